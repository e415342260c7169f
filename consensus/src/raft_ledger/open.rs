//! What a ledger finds on its disk when it starts: state that can be rebuilt, and a log that cannot.

use super::StartError;
use crate::{
    Config,
    keep::{JournalLimits, Keep, Position},
    log_store::LogStore,
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
    let limits =
        JournalLimits { rows_max: config.journal_rows_max, bytes_max: config.journal_bytes_max };
    let keep = |kv: &H::Kv| Keep::open(Arc::new(kv.clone()), limits);
    let kv = kv::open_or_set_aside(home)?.kv;
    kv::check_format(&kv, &home.place())?;
    let diverged = snapshots.take_divergence().await?;
    let loaded = match diverged {
        true => Err(Fault::Stopped { what: "state", detail: "it differed before".to_owned() }),
        false => keep(&kv).and_then(|kept| Ok((kept.load()?, kept))),
    };
    match loaded {
        Ok((Some((position, state)), kept)) => Ok((kv, kept, position, state)),
        Ok((None, kept)) => {
            kept.clear().await?;
            Ok((kv, kept, Position::default(), State::default()))
        }
        Err(fault) if diverged || fault.is_corrupt() => {
            drop(kv);
            let moved_to = home.set_aside()?;
            tracing::warn!(%fault, moved_to, "set the stored state aside, it will be rebuilt");
            let kv = home.open()?;
            kv::check_format(&kv, &home.place())?;
            let kept = keep(&kv)?;
            Ok((kv, kept, Position::default(), State::default()))
        }
        Err(fault) => Err(fault.met_in(&home.place())),
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
