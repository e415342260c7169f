//! What a ledger finds on its disk when it starts: state that can be rebuilt, and a log that cannot.

use crate::{
    BadConfig, Config, StopReason,
    keep::{JournalLimits, Keep, Position},
    log_store::LogStore,
    planted::Planted,
    snapshot::Snapshots as _,
    snapshot_files::{Divergence, SnapshotFiles},
    types::LogId,
};
use model::State;
use openraft::storage::RaftLogStorage as _;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use storage::{
    Disk, Fault,
    kv::{self, KvHome},
    log::{Log, LogConfig},
};

/// Why a ledger cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] BadConfig),
    /// Truth on disk cannot be read or written.
    #[error("could not open the ledger's files")]
    Storage(#[from] Fault),
    /// The log is gone, damaged, or older than what was built from it: with it went votes that were
    /// given and entries that were acknowledged, so that this node must not vote again.
    #[error(
        "the raft log in {} cannot be trusted: {detail}; this node must not vote again under its id: \
         remove its data folder and join it anew with what `muster cluster add` prints, and remove the \
         old id with `muster cluster remove`; or, if it was the only node, \
         restore its whole data folder from a backup", dir.display()
    )]
    LogLost {
        /// The log's directory.
        dir: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The cluster decides by rules that this build does not know.
    #[error("{0}; what is on its disk is whole")]
    Rules(StopReason),
    /// The state was not the majority's, and was not again after it was rebuilt from what is here.
    #[error(
        "the state of this node was rebuilt from its own snapshot and log, and again it was not the \
         one that a majority of the control nodes agrees on, so one of them is wrong: remove this \
         node from the cluster, empty its data folder and join it anew with a join token; {} has the \
         verdict", note.display()
    )]
    Diverged {
        /// The file with the verdict.
        note: PathBuf,
    },
    /// Raft refuses what it found.
    #[error("could not start raft: {0}")]
    Raft(String),
}

/// The store and the state in it; a store that is damaged, or not the state it says, is set aside. So is
/// one that is ahead of the log and of the snapshot: an entry is applied once a majority has it durable,
/// which need not include this node. Raft would let go of the log up to there and have nothing but the
/// store to show for it, which may be lost; or find entries there that were cut off since, and not start.
pub(super) async fn open_state<D: Disk, H: KvHome>(
    config: &Config,
    home: &H,
    (log, log_dir): (&LogStore<D>, &Path),
    snapshots: &SnapshotFiles<D>,
) -> Result<(H::Kv, Keep, Position, State), StartError> {
    let limits =
        JournalLimits { rows_max: config.journal_rows_max, bytes_max: config.journal_bytes_max };
    let planted = Planted::of(config);
    let keep = |kv: &H::Kv| Keep::open(Arc::new(kv.clone()), limits).map(|it| it.with(planted));
    let kv = kv::open_or_set_aside(home)?.kv;
    let diverged = match snapshots.divergence().await? {
        Divergence::None => false,
        Divergence::Found => true,
        Divergence::Again { note } => return Err(StartError::Diverged { note }),
    };
    let loaded = match diverged {
        true => Err(Fault::Stopped { what: "state", detail: "it differed before".to_owned() }),
        false => kv::check_format(&kv, &home.place())
            .and_then(|()| keep(&kv))
            .and_then(|kept| Ok((kept.load()?, kept))),
    };
    if let Ok((Some((position, _)), _)) = &loaded {
        // Before it is gone: it may be all that says that the log is not the one it was.
        check_vote(log, log_dir, position.applied)?;
    }
    let ends = [
        log.clone().get_log_state().await.map_err(unread)?.last_log_id,
        snapshots.current().await?.and_then(|stored| stored.meta.last_log_id),
    ];
    let (loaded, rebuilt) = match loaded {
        Ok((Some((position, _)), _)) if ends.iter().all(|end| *end < position.applied) => {
            let detail = "it is ahead of log and snapshot".to_owned();
            (Err(Fault::Stopped { what: "state", detail }), true)
        }
        other => (other, diverged),
    };
    match loaded {
        Ok((Some((position, state)), kept)) => Ok((kv, kept, position, state)),
        Ok((None, kept)) => {
            kept.clear().await?;
            Ok((kv, kept, Position::default(), State::default()))
        }
        Err(fault) if rebuilt || fault.is_corrupt() => {
            drop(kv);
            let moved_to = home.set_aside()?;
            if diverged {
                snapshots.put_divergence_away().await?;
            }
            tracing::warn!(%fault, moved_to, "set the stored state aside, it will be rebuilt");
            let kv = home.open()?;
            kv::check_format(&kv, &home.place())?;
            let kept = keep(&kv)?;
            Ok((kv, kept, Position::default(), State::default()))
        }
        Err(fault) => Err(fault.met_in(&home.place()).into()),
    }
}

fn unread(error: std::io::Error) -> StartError {
    match Fault::from_io(&error) {
        Some(fault) => StartError::Storage(fault.clone()),
        None => StartError::Raft(error.to_string()),
    }
}

/// Refuses a state by rules that this build does not know.
pub(super) fn check_rules(config: &Config, position: &Position) -> Result<(), StartError> {
    let (level, known) = (position.globals.rules, config.rules_max);
    match level <= known {
        true => Ok(()),
        false => Err(StartError::Rules(StopReason::RulesUnknown { level, known })),
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
