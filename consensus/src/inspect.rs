//! A stopped node's ledger as it lies on disk: what is in it, and whether it holds together.
//!
//! Log, snapshots and store are read by the code that a start reads them with, and nothing is written.
//! Beyond checksums it is checked that entries follow each other, that each snapshot has the hash it
//! says, and that the stored state is the one that snapshot and log lead to.

use crate::{
    entry::{self, Entry},
    keep::{JournalLimits, Keep, Position},
    log_store::{COMMITTED, PURGED, VOTE},
    snapshot,
    snapshot_files::{Reading, StoredMeta},
    types::{LogId, RaftEntry, Vote},
};
use model::State;
use openraft::EntryPayload;
use std::{collections::BTreeMap, path::Path, sync::Arc};
use storage::{
    Disk, Fault, Finding, Kv, Remedy, codec,
    log::LogLook,
    snapshot::{SnapshotConfig, Snapshots},
};

/// Raft's log.
pub struct LogReport {
    /// The format of its files.
    pub format: u32,
    /// The files, and which indexes are held.
    pub files: Vec<storage::log::SegmentLook>,
    /// First index held.
    pub first: u64,
    /// Index after the last one.
    pub next: u64,
    /// The vote, as Raft writes it.
    pub vote: Option<String>,
    /// Up to which index it was purged.
    pub purged: Option<u64>,
    /// Which index was known to be committed.
    pub committed: Option<u64>,
    /// Records that were never acknowledged.
    pub unacknowledged: usize,
}

/// One snapshot.
pub struct SnapshotReport {
    /// Name of its file.
    pub file: String,
    /// Its format.
    pub format: u32,
    /// Its size.
    pub bytes: u64,
    /// The log index it covers.
    pub index: Option<u64>,
    /// Its revision.
    pub revision: u64,
    /// The hash of its state.
    pub hash: u128,
}

/// The materialised state.
pub struct StoreReport {
    /// The format of its rows.
    pub format: u32,
    /// The log index it has applied.
    pub applied: Option<u64>,
    /// Its revision.
    pub revision: u64,
    /// The hash of its rows.
    pub hash: u128,
    /// Rows by table.
    pub rows: BTreeMap<String, u64>,
    /// Oldest and newest revision in the journal.
    pub journal: Option<(u64, u64)>,
    /// Bytes of the journal's rows, by its own count.
    pub journal_bytes: u64,
    /// Whether the state was compared with the one that snapshot and log lead to.
    pub replayed: bool,
}

/// All of it.
#[derive(Default)]
pub struct LedgerReport {
    /// Raft's log, if there is one.
    pub log: Option<LogReport>,
    /// Snapshots, newest first.
    pub snapshots: Vec<SnapshotReport>,
    /// The store, if it was given and holds a state.
    pub store: Option<StoreReport>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// Looks at the ledger in `dir`, and at a copy of its store, which was at `kv_path`.
///
/// # Errors
/// When a directory cannot be read at all; damage is a finding.
pub async fn inspect<D: Disk, K: Kv>(
    disk: &D,
    dir: &Path,
    store: Option<(&K, &Path)>,
) -> Result<LedgerReport, Fault> {
    let mut report = LedgerReport::default();
    let newest = snapshots(disk, &dir.join("snapshots"), &mut report).await?;
    let mut kept = None;
    if let Some((kv, path)) = store {
        match load(kv, path) {
            Ok((keep, found)) => {
                if let Some((position, state)) = &found {
                    report.store = Some(store_report(&keep, position, state)?);
                }
                kept = found;
            }
            Err(fault) => report.findings.push(Finding::of(&fault, path, Remedy::Nothing)),
        }
    }
    let log_dir = dir.join("log");
    if disk.exists(&log_dir).await? {
        let look = LogLook::at(disk, &log_dir).await?;
        report.log = Some(log_report(&look, &log_dir, &mut report.findings));
        let hash = replay(&look, newest, kept.as_ref(), &mut report.findings).await?;
        if let (Some(report_of), Some((_, path)), Some(hash)) = (&mut report.store, store, hash) {
            report_of.replayed = true;
            if hash != report_of.hash {
                let found = report_of.hash;
                let detail =
                    format!("its hash is {found:032x}, snapshot and log lead to {hash:032x}");
                report.findings.push(Finding::new(path, 0, detail, Remedy::Nothing));
            }
        }
    }
    Ok(report)
}

/// What a store holds.
type Kept = (Keep, Option<(Position, State)>);

/// Reads a store whose format is known.
fn load<K: Kv>(kv: &K, path: &Path) -> Result<Kept, Fault> {
    storage::kv::check_format(kv, path)?;
    let keep = Keep::open(Arc::new(kv.clone()), JournalLimits::none())?;
    let found = keep.load()?;
    Ok((keep, found))
}

/// Reads every snapshot; answers the state of the newest whole one.
async fn snapshots<D: Disk>(
    disk: &D,
    dir: &Path,
    report: &mut LedgerReport,
) -> Result<Option<(Position, State)>, Fault> {
    let mut newest = None;
    if !disk.exists(dir).await? {
        return Ok(None);
    }
    let files = Snapshots::as_they_lie(disk.clone(), dir, SnapshotConfig::new());
    for name in files.list().await? {
        let path = dir.join(name.file());
        let read = async {
            let reader = files.reader(&name).await?;
            let bytes = reader.file_bytes();
            let StoredMeta::V1(meta) = codec::decode(reader.meta())?;
            let (position, state) = snapshot::read(Box::new(Reading(reader))).await?;
            let index = meta.last_log_id.map(|id| id.index);
            Ok::<_, Fault>((bytes, index, position, state))
        };
        match read.await {
            Ok((bytes, index, position, state)) => {
                report.snapshots.push(SnapshotReport {
                    file: name.file(),
                    format: storage::snapshot::VERSION,
                    bytes,
                    index,
                    revision: position.globals.revision.0,
                    hash: position.hash,
                });
                newest = newest.or(Some((position, state)));
            }
            Err(fault) => report.findings.push(Finding::of(&fault, &path, Remedy::Nothing)),
        }
    }
    Ok(newest)
}

fn log_report<D: Disk>(look: &LogLook<D>, dir: &Path, findings: &mut Vec<Finding>) -> LogReport {
    findings.extend(look.findings.iter().cloned());
    let (vote, fault) = state::<D, Vote>(look, VOTE);
    let (purged, second) = state::<D, LogId>(look, PURGED);
    let (committed, third) = state::<D, Option<LogId>>(look, COMMITTED);
    let faults = [fault, second, third].into_iter().flatten();
    findings.extend(faults.map(|fault| Finding::of(&fault, dir, Remedy::Rejoin)));
    LogReport {
        format: storage::log::SEGMENT_VERSION,
        files: look.segments.clone(),
        first: look.first,
        next: look.next,
        vote: vote.map(|vote| vote.to_string()),
        purged: purged.map(|id| id.index),
        committed: committed.flatten().map(|id| id.index),
        unacknowledged: look.unacknowledged,
    }
}

fn state<D: Disk, T: serde::de::DeserializeOwned>(
    look: &LogLook<D>,
    key: u8,
) -> (Option<T>, Option<Fault>) {
    match look.states.get(&key).map(|bytes| codec::decode(bytes)).transpose() {
        Ok(value) => (value, None),
        Err(fault) => (None, Some(fault)),
    }
}

/// Reads every entry that is held. Answers the hash of the state that they lead to from a snapshot at
/// the position of the stored state, if they reach it.
async fn replay<D: Disk>(
    look: &LogLook<D>,
    newest: Option<(Position, State)>,
    kept: Option<&(Position, State)>,
    findings: &mut Vec<Finding>,
) -> Result<Option<u128>, Fault> {
    let end = kept.and_then(|(position, _)| position.applied).map(|id| id.index);
    let mut state = match newest {
        Some((position, state)) => Some((position.applied.map(|id| id.index), state)),
        None => (look.first == 0).then(|| (None, State::default())),
    };
    let mut term = 0;
    for index in look.first..look.next {
        let bytes = look.entry(index).await?;
        let checked = check(&bytes, index, &mut term);
        let entry = match checked {
            Ok(entry) => entry,
            Err(detail) => {
                let (path, offset) = look.place(index).unwrap_or_default();
                findings.push(Finding::new(&path, offset, detail, Remedy::Rejoin));
                return Ok(None);
            }
        };
        if let Some((applied, state)) = &mut state
            && applied.map_or(0, |applied| applied + 1) == index
            && end.is_some_and(|end| index <= end)
        {
            let commands = match entry.payload {
                EntryPayload::Blank | EntryPayload::Membership(_) => Vec::new(),
                EntryPayload::Normal(Entry::V1 { rules, .. }) if rules > model::RULES_MAX => {
                    // A newer release decides by rules that are not known here.
                    return Ok(None);
                }
                EntryPayload::Normal(Entry::V1 { stamp, rules, commands, .. }) => {
                    let commands = entry::decode(&commands)?;
                    entry::apply(state, stamp, rules, commands)
                }
            };
            drop(commands);
            state.globals.applied_index = index;
            *applied = Some(index);
        }
    }
    Ok(state.filter(|(applied, _)| end.is_some() && *applied == end).map(|(_, state)| state.hash()))
}

/// Decodes an entry and checks that it follows the one before it.
fn check(bytes: &[u8], index: u64, term: &mut u64) -> Result<RaftEntry, String> {
    let entry: RaftEntry = codec::decode(bytes).map_err(|fault| fault.to_string())?;
    let its_term = entry.log_id.committed_leader_id().term;
    if entry.log_id.index != index {
        return Err(format!("the entry at {index} says it is {}", entry.log_id.index));
    }
    if its_term < *term {
        return Err(format!("entry {index} is of term {its_term}, the one before of {term}"));
    }
    *term = its_term;
    Ok(entry)
}

fn store_report(keep: &Keep, position: &Position, state: &State) -> Result<StoreReport, Fault> {
    let mut rows: BTreeMap<String, u64> = BTreeMap::new();
    for (key, _) in state.rows() {
        // The name of the variant; what follows it is the key.
        let text = format!("{key:?}");
        let table = text.split(['(', '{', ' ']).next().unwrap_or_default().to_owned();
        *rows.entry(table).or_default() += 1;
    }
    Ok(StoreReport {
        applied: position.applied.map(|id| id.index),
        // Another one would not have been read.
        format: storage::kv::FORMAT,
        revision: position.globals.revision.0,
        hash: position.hash,
        rows,
        journal: keep.journal_bounds()?,
        journal_bytes: keep.journal_extent()?.bytes,
        replayed: false,
    })
}
