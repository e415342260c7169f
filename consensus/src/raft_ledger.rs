//! The replicated ledger: one node's part in a Raft group.
//!
//! [`RaftLedger::start`] opens log, snapshots and store, rebuilds what does not hold together, and
//! runs until it is shut down or Raft ends; [`RaftLedger::stopped`] tells which. A ledger that
//! ended is not mended: the node exits and starts anew.

mod open;
mod start;
mod status;

pub use open::StartError;
pub use start::Foundation;
pub use status::LedgerStatus;

use crate::{
    Error, JournalRow, Leadership, Leases, Ledger, Member, MemberChange, Peer, PeerService,
    Proposal, StopReason, WatchError, WatchStream,
    core::Core,
    entry::{self, Queued},
    forward, membership, memory_ledger,
    planted::{Planted, PlantedBug},
    queue::{Queue, Rank},
    reads::Reads,
};
use model::{NodeId, Outcome, Revision, State};
use openraft::errors::RaftError;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};
use storage::{Fault, log::LogStatus};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

/// One node's replicated ledger. Clones share it.
#[derive(Clone)]
pub struct RaftLedger {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) core: Arc<Core>,
    pub(crate) queue: Queue,
    reads: Reads,
    tasks: StdMutex<Vec<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.abort_tasks();
    }
}

impl Inner {
    fn abort_tasks(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.drain(..).for_each(|task| task.abort());
    }
}

impl RaftLedger {
    /// Makes this node the first of a new cluster. Nothing happens when it belongs to one already.
    ///
    /// # Errors
    /// [`Error::Stopped`] when Raft has ended.
    pub async fn bootstrap(&self, peer: Peer) -> Result<(), Error> {
        let core = &self.inner.core;
        let members = BTreeMap::from([(core.node_id.0, peer)]);
        match core.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(error)) => {
                tracing::debug!(%error, "this node belongs to a cluster already");
                Ok(())
            }
            Err(RaftError::Fatal(_)) => Err(Error::Stopped),
        }
    }

    /// Whether this node belongs to a cluster: it was bootstrapped, or heard from a leader.
    pub async fn is_initialized(&self) -> bool {
        self.inner.core.raft.is_initialized().await.unwrap_or(false)
    }

    /// Takes a node in: as a learner, and as a voter once it has caught up. Through any node; safe
    /// to repeat. The same id with another address changes the address.
    ///
    /// # Errors
    /// [`Error::Unknown`] at the deadline when a try may have had an effect.
    pub async fn add_node(&self, id: NodeId, peer: Peer, deadline: Instant) -> Result<(), Error> {
        membership::change(&self.inner.core, MemberChange::Add { id, peer }, deadline).await
    }

    /// Lets a node go. Through any node; safe to repeat. Its id must not be used again.
    ///
    /// # Errors
    /// [`Error::Unknown`] at the deadline when a try may have had an effect.
    pub async fn remove_node(&self, id: NodeId, deadline: Instant) -> Result<(), Error> {
        membership::change(&self.inner.core, MemberChange::Remove { id }, deadline).await
    }

    /// Changes the members or the leader. Through any node; safe to repeat.
    ///
    /// # Errors
    /// [`Error::Members`] for what is refused; [`Error::Unknown`] at the deadline when a try may have
    /// had an effect.
    pub async fn change_members(
        &self,
        change: MemberChange,
        deadline: Instant,
    ) -> Result<(), Error> {
        membership::change(&self.inner.core, change, deadline).await
    }

    /// Says that this node was removed from its cluster, as a peer told: it stops soon.
    pub fn note_removed(&self) {
        self.inner.core.removed.send_replace(true);
    }

    /// The members as this node knows them, by id.
    pub fn members(&self) -> Vec<Member> {
        self.inner.core.members()
    }

    /// Answers the calls of peers.
    pub fn peer_service(&self) -> PeerService {
        PeerService::new(self.inner.clone())
    }

    /// Up to `max` revisions above `after` from this node's journal; fewer at its end.
    ///
    /// # Errors
    /// The store's fault.
    pub fn journal(&self, after: Revision, max: usize) -> Result<Vec<JournalRow>, Fault> {
        self.inner.core.shared.keep.journal(after, max)
    }

    /// Makes a snapshot soon, and purges the log below it.
    ///
    /// # Errors
    /// [`Error::Stopped`] when Raft has ended.
    pub async fn snapshot(&self) -> Result<(), Error> {
        self.inner.core.raft.trigger().snapshot().await.map_err(|_| Error::Stopped)
    }

    /// Figures for an operator.
    pub fn status(&self) -> LedgerStatus {
        let metrics = self.inner.core.metrics();
        LedgerStatus {
            term: metrics.current_term,
            leader: metrics.current_leader.map(NodeId),
            last_log_index: metrics.last_log_index,
            committed_index: metrics.cluster_committed.map(|id| id.index),
            applied_index: metrics.last_applied.map(|id| id.index),
            snapshot_index: metrics.snapshot.map(|id| id.index),
            purged_index: metrics.purged.map(|id| id.index),
            restored_index: self.inner.core.shared.restored_index.get().copied(),
        }
    }

    /// Figures of the log's files.
    pub fn log_status(&self) -> LogStatus {
        self.inner.core.shared.log.status()
    }

    /// Resolves when this ledger has stopped, with the reason. The node must then end its
    /// incarnation.
    pub async fn stopped(&self) -> StopReason {
        let mut stopped = self.inner.core.stopped.subscribe();
        match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(StopReason::Shutdown),
            Err(_) => StopReason::Shutdown,
        }
    }

    /// Hands leadership over if this node has it, so that what it still has to do needs no leader. It
    /// goes on as a follower.
    pub async fn hand_over(&self) {
        let core = &self.inner.core;
        if !core.leadership.borrow().is_leader {
            return;
        }
        // Once for a change that is under way, and once for each of the two halves of a hand-over.
        let limit = Duration::from_millis(core.config.hand_over_ms) * 3;
        match tokio::time::timeout(limit, core.hand_over(None)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "leadership was not handed over"),
            Err(_) => tracing::warn!("leadership was not handed over in time"),
        }
    }

    /// Hands leadership over if this node has it, ends what is under way, and stops. Other clones stop
    /// with it.
    pub async fn shutdown(&self) {
        self.hand_over().await;
        let limit = Duration::from_millis(self.inner.core.config.hand_over_ms);
        self.inner.queue.close(Instant::now() + limit).await;
        self.kill().await;
    }

    /// Ends this node's part for a reason that others found: [`RaftLedger::stopped`] tells it.
    pub fn halt(&self, reason: StopReason) {
        self.inner.core.stop(reason);
    }

    /// Stops at once and hands nothing over, as a crash would.
    pub async fn kill(&self) {
        let core = &self.inner.core;
        core.stop(StopReason::Shutdown);
        self.inner.abort_tasks();
        if let Err(error) = core.raft.shutdown().await {
            tracing::warn!(%error, "raft did not end well");
        }
    }
}

impl Ledger for RaftLedger {
    async fn propose(&self, proposal: Proposal) -> Result<Outcome, Error> {
        let Proposal { command, caller, request_id, deadline } = proposal;
        let (rank, has_request_id) = (Rank::of(&caller), request_id.is_some());
        let blob = entry::encode(&Queued { caller, request_id, command }).map_err(|fault| {
            tracing::error!(%fault, "cannot encode a command");
            Error::Stopped
        })?;
        let Inner { core, queue, reads, .. } = &*self.inner;
        let asked = forward::Asked { blob, rank, has_request_id };
        forward::propose(core, (queue, reads), &asked, deadline).await
    }

    async fn linearize(&self, deadline: Instant) -> Result<Revision, Error> {
        let Inner { core, reads, .. } = &*self.inner;
        if Planted::of(&core.config).is(PlantedBug::ReadWithoutReadIndex) {
            return Ok(self.read(|state| state.globals.revision));
        }
        core.catch_up(reads.confirmed(deadline).await?, deadline).await?;
        Ok(self.read(|state| state.globals.revision))
    }

    async fn wait_for(&self, revision: Revision, deadline: Instant) -> Result<(), Error> {
        memory_ledger::wait_for(self.applied(), revision, deadline).await
    }

    fn read<R>(&self, reader: impl FnOnce(&State) -> R) -> R {
        self.inner.core.shared.published.read(reader)
    }

    fn watch(&self, after: Revision) -> Result<WatchStream, WatchError> {
        self.inner.core.shared.published.watch(after)
    }

    fn applied(&self) -> watch::Receiver<Revision> {
        self.inner.core.shared.published.applied()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.core.leadership.subscribe()
    }

    fn leases(&self) -> &Leases {
        &self.inner.core.leases
    }

    fn node_id(&self) -> NodeId {
        self.inner.core.node_id
    }
}

#[cfg(test)]
impl RaftLedger {
    /// Whether it has ended, for whatever reason.
    pub(crate) fn is_stopped_for_test(&self) -> bool {
        self.inner.core.is_stopped()
    }

    /// Entries applied since the newest checkpoint was begun.
    pub(crate) fn since_checkpoint_for_test(&self) -> u64 {
        self.inner.core.shared.entries_since.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(crate) fn inner_core(&self) -> &Core {
        &self.inner.core
    }

    /// Changes the state behind Raft's back.
    pub(crate) fn corrupt_for_test(&self) {
        self.inner.core.shared.published.write(|state| {
            let first = state.tenants.iter().next().map(|(name, _)| name.clone());
            first.map(|name| state.tenants.remove(&name))
        });
    }
}
