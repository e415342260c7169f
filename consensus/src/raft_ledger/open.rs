//! What a ledger finds on its disk when it starts: state that can be rebuilt, and a log that cannot.

use super::StartError;
use crate::{
    Config,
    keep::{Keep, Position},
    log_store::LogStore,
    planted::Planted,
    snapshot_files::SnapshotFiles,
    types::LogId,
};
use model::State;
use std::{path::Path, sync::Arc};
use storage::{
    Disk, Fault,
    kv::{self, KvHome},
    log::{Log, LogConfig},
};

/// The store and the state in it; a store that is damaged, or not the state it says, is set aside.
pub(super) async fn open_state<D: Disk, H: KvHome>(
    config: &Config,
    home: &H,
    snapshots: &SnapshotFiles<D>,
) -> Result<(H::Kv, Keep, Position, State), Fault> {
    let planted = Planted::of(config);
    let keep = |kv: &H::Kv| Keep::new(Arc::new(kv.clone()), config.journal_rows_max).with(planted);
    let kv = kv::open_or_set_aside(home)?.kv;
    let diverged = snapshots.take_divergence().await?;
    let kept = keep(&kv);
    let loaded = match diverged {
        true => Err(Fault::Stopped { what: "state", detail: "it differed before".to_owned() }),
        false => kept.load(),
    };
    match loaded {
        Ok(Some((position, state))) => Ok((kv, kept, position, state)),
        Ok(None) => {
            kept.clear()?;
            Ok((kv, kept, Position::default(), State::default()))
        }
        Err(fault) if diverged || fault.is_corrupt() => {
            drop((kept, kv));
            let moved_to = home.set_aside()?;
            tracing::warn!(%fault, moved_to, "set the stored state aside, it will be rebuilt");
            let kv = home.open()?;
            let kept = keep(&kv);
            Ok((kv, kept, Position::default(), State::default()))
        }
        Err(fault) => Err(fault),
    }
}

/// The log of a node that has one; see [`StartError::LogLost`].
pub(super) async fn open_log<D: Disk>(
    disk: D,
    dir: &Path,
    config: LogConfig,
) -> Result<Log<D>, StartError> {
    let opened = Log::open(disk, dir, config).await;
    opened.map_err(|fault| match fault.is_corrupt() {
        true => StartError::LogLost { dir: dir.to_owned(), detail: fault.to_string() },
        false => StartError::Storage(fault),
    })
}

/// Refuses a log that is older than the state or snapshot beside it. Those may be ahead of its end:
/// an entry is applied once a majority has it durable, which need not include this node. But the
/// vote for the leader that sent it was durable here before the entry arrived. So a vote of a lower
/// term than an applied entry, or none, was lost, and with it who knows which entries.
pub(super) fn check_vote<D: Disk>(
    log: &LogStore<D>,
    dir: &Path,
    applied: impl IntoIterator<Item = LogId>,
) -> Result<(), StartError> {
    let voted = log.vote()?.map(|vote| vote.leader_id.term);
    match applied.into_iter().map(|id| id.committed_leader_id().term).max() {
        Some(term) if voted.is_none_or(|voted| voted < term) => {
            let voted = voted.map_or_else(|| "none".to_owned(), |term| format!("of term {term}"));
            let detail = format!(
                "its newest vote is {voted}, but what was built from it holds an entry of term {term}"
            );
            Err(StartError::LogLost { dir: dir.to_owned(), detail })
        }
        Some(_) | None => Ok(()),
    }
}
