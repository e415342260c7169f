//! How much of the log stays: enough for a node that was away for a moment, and for one that is on its
//! way, but never more than is said.
//!
//! Raft would purge after each snapshot, by a number of entries alone. A large state takes longer to
//! reach a new node than the log takes to move on by that number: the node would be sent one snapshot
//! after the other and never arrive. So the leader keeps what follows the snapshot that a node is being
//! sent, and what a node in contact has not got yet, up to a bound of its own.

use crate::{core::Core, types::LogId};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The snapshots that are on their way, by node.
#[derive(Clone, Default)]
pub(crate) struct Transfers {
    by_node: Arc<Mutex<BTreeMap<u64, Transfer>>>,
}

struct Transfer {
    /// The log index that the snapshot covers.
    index: u64,
    /// When the last try ended; `None` while one is under way.
    ended: Option<Instant>,
}

impl Transfers {
    fn with<R>(&self, f: impl FnOnce(&mut BTreeMap<u64, Transfer>) -> R) -> R {
        f(&mut self.by_node.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A snapshot is sent to `node` until the answer is dropped.
    pub(crate) fn begin(&self, node: u64, covers: Option<&LogId>) -> UnderWay {
        let index = covers.map_or(0, |log_id| log_id.index);
        self.with(|by_node| by_node.insert(node, Transfer { index, ended: None }));
        UnderWay { transfers: self.clone(), node }
    }

    /// The log index that `node` will have, once the snapshot under way has arrived. One that has
    /// just ended counts: it may have arrived, or be tried again.
    fn index(&self, node: u64, patience: Duration) -> Option<u64> {
        self.with(|by_node| {
            let transfer = by_node.get(&node)?;
            let fresh = transfer.ended.is_none_or(|ended| ended.elapsed() < patience);
            fresh.then_some(transfer.index)
        })
    }
}

/// A transfer that is under way.
pub(crate) struct UnderWay {
    transfers: Transfers,
    node: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.transfers.with(|by_node| {
            if let Some(transfer) = by_node.get_mut(&self.node) {
                transfer.ended = Some(Instant::now());
            }
        });
    }
}

/// Purges what is no longer needed. Cheap when nothing is.
pub(crate) async fn purge(core: &Core) {
    let metrics = core.metrics();
    let Some(snapshot) = metrics.snapshot.map(|log_id| log_id.index) else { return };
    let next = metrics.purged.map_or(0, |log_id| log_id.index + 1);
    let (config, log) = (&core.config, &core.shared.log);
    let by_count = snapshot.checked_sub(config.log_keep_entries);
    let by_bytes = log.last_beyond(snapshot, config.log_keep_bytes);
    let Some(mut upto) = by_count.max(by_bytes).filter(|upto| *upto >= next) else { return };
    if let Some(held) = needed_after(core, next).filter(|held| *held < upto) {
        let last = metrics.last_log_index.unwrap_or(snapshot);
        let most = log.last_beyond(last, config.log_hold_bytes);
        upto = Some(held).max(most).unwrap_or(held).min(upto);
    }
    if upto >= next
        && let Err(error) = core.raft.trigger().purge_log(upto).await
    {
        tracing::debug!(%error, "raft purges nothing");
    }
}

/// On the leader: the lowest index after which a node in contact still needs the log. One that needs
/// entries before `next` needs a snapshot: then it counts from that.
fn needed_after(core: &Core, next: u64) -> Option<u64> {
    let metrics = core.metrics();
    let (replication, heard) = (metrics.replication?, metrics.heartbeat.unwrap_or_default());
    let lost_after = Duration::from_millis(core.config.node_lost_ms);
    let patience = Duration::from_millis(core.config.snapshot_idle_ms);
    let others = replication.iter().filter(|(id, _)| **id != core.node_id.0);
    let needed = others.filter_map(|(id, matched)| {
        let heard = heard.get(id).copied().flatten();
        let in_contact = heard.is_some_and(|at| crate::core::age(&at) < lost_after);
        let sent = core.transfers.index(*id, patience);
        let has =
            matched.as_ref().map(|log_id| log_id.index).filter(|has| in_contact && has + 1 >= next);
        has.max(sent.filter(|sent| sent + 1 >= next))
    });
    needed.min()
}
