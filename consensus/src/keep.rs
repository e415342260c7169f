//! The materialised state in the [`Kv`]: rows, the position they belong to, and the journal.
//!
//! One batch per log entry holds all three, so they agree after any crash. None of it is truth: a
//! store that is missing, damaged or does not have the hash it says is emptied and rebuilt from
//! snapshot and log. The journal is the history for watches, audit and time travel; a node that was
//! rebuilt has none older than its snapshot. `journal` has its rows and its bounds.

mod journal;

pub use journal::JournalRow;
pub(crate) use journal::{Extent, JournalLimits};

use crate::{
    entry::Step,
    planted::Planted,
    snapshot::TURN_ROWS,
    types::{LogId, StoredMembership},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use model::{Globals, Key, Loading, Row, State};
use serde::{Deserialize, Serialize};
use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};
use storage::{Batch, Fault, Kv, codec, keyspace::Space, kv::Show};

/// [`Kv`] without its type.
pub(crate) trait AnyKv: Send + Sync + 'static {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault>;
    fn range(&self, from: &[u8], to: &[u8], max: usize) -> Result<Vec<(Vec<u8>, Bytes)>, Fault>;
    fn visit(&self, from: &[u8], to: &[u8], show: &mut Show<'_>) -> Result<(), Fault>;
    fn apply(&self, batch: Batch) -> Result<(), Fault>;
    fn sync(&self) -> BoxFuture<'static, Result<(), Fault>>;
}

impl<K: Kv> AnyKv for K {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Kv::get(self, key)
    }

    fn range(&self, from: &[u8], to: &[u8], max: usize) -> Result<Vec<(Vec<u8>, Bytes)>, Fault> {
        Kv::range(self, from, to, max)
    }

    fn visit(&self, from: &[u8], to: &[u8], show: &mut Show<'_>) -> Result<(), Fault> {
        Kv::visit(self, from, to, show)
    }

    fn apply(&self, batch: Batch) -> Result<(), Fault> {
        Kv::apply(self, batch)
    }

    fn sync(&self) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(Kv::sync(self))
    }
}

/// Where the stored rows stand in history. Appended only.
#[derive(Serialize, Deserialize)]
enum StoredPosition {
    /// Before the journal was measured.
    V1(Position),
    /// With what is in the journal.
    V2(Position, Extent),
}

/// Where a state stands in history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: StoredMembership,
    pub(crate) globals: Globals,
    pub(crate) hash: u128,
}

const POSITION: &[u8] = b"state-position";

fn state_key(key: &Key) -> Result<Vec<u8>, Fault> {
    codec::encode(key).map(|bytes| Space::State.key(&bytes))
}

/// The materialised state of one node.
#[derive(Clone)]
pub(crate) struct Keep {
    kv: Arc<dyn AnyKv>,
    limits: JournalLimits,
    /// What is in the journal.
    extent: Arc<Mutex<Extent>>,
    planted: Planted,
}

impl Keep {
    /// The state in a store. What is in its journal is read, or counted if the store does not say.
    pub(crate) fn open(kv: Arc<dyn AnyKv>, limits: JournalLimits) -> Result<Self, Fault> {
        let keep = Self { kv, limits, extent: Arc::default(), planted: Planted::default() };
        let extent = match keep.position()? {
            Some(StoredPosition::V2(_, extent)) => extent,
            Some(StoredPosition::V1(_)) => keep.count_journal()?,
            None => Extent::default(),
        };
        keep.extent(|current| *current = extent);
        Ok(keep)
    }

    /// With what is planted.
    pub(crate) fn with(self, planted: Planted) -> Self {
        Self { planted, ..self }
    }

    fn position(&self) -> Result<Option<StoredPosition>, Fault> {
        let found = self.kv.get(&Space::Meta.key(POSITION))?;
        found.map(|bytes| codec::decode(&bytes)).transpose()
    }

    fn extent<R>(&self, f: impl FnOnce(&mut Extent) -> R) -> R {
        f(&mut self.extent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The state that is stored, if a whole one is. One without the hash it should have is corrupt.
    pub(crate) fn load(&self) -> Result<Option<(Position, State)>, Fault> {
        let position = match self.position()? {
            None => return Ok(None),
            Some(StoredPosition::V1(position) | StoredPosition::V2(position, _)) => position,
        };
        let mut loading = Loading::new(position.globals.clone());
        self.walk(Space::State, |key, value| {
            let key: Key = codec::decode(key.get(1..).unwrap_or_default())?;
            loading.put(key, codec::decode::<Row>(value)?);
            Ok(())
        })?;
        let state = loading.finish();
        let (stored, found) = (position.hash, state.hash());
        if stored != found {
            let detail = format!("its hash is {found:032x}, it should be {stored:032x}");
            let path = "stored state".into();
            return Err(Fault::Corrupt { what: "state", path, offset: 0, detail });
        }
        Ok(Some((position, state)))
    }

    fn walk(
        &self,
        space: Space,
        mut row: impl FnMut(&[u8], &[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let (from, to) = space.bounds();
        self.kv.visit(&from, &to, &mut |key, value| {
            row(key, value)?;
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Stores what an entry did. Visible at return, durable some time later.
    pub(crate) fn write(&self, position: &Position, steps: &[Step]) -> Result<(), Fault> {
        self.extent(|current| {
            let mut extent = *current;
            let mut batch = Batch::new();
            for step in steps {
                for change in &step.applied.changes {
                    put_row(&mut batch, &change.key, change.after.as_ref())?;
                }
            }
            self.put_journal(&mut batch, &mut extent, steps)?;
            put_position(&mut batch, position, extent)?;
            self.kv.apply(batch)?;
            *current = extent;
            Ok(())
        })
    }

    /// Replaces everything stored by `state`, a few rows at a time. A crash half-way leaves no
    /// position, so that the rest is not taken for a state.
    pub(crate) async fn replace(&self, position: &Position, state: &State) -> Result<(), Fault> {
        self.clear().await?;
        let mut batch = Batch::new();
        for (key, row) in state.rows() {
            put_row(&mut batch, &key, Some(&row))?;
            if batch.len() >= TURN_ROWS {
                self.kv.apply(std::mem::take(&mut batch))?;
                tokio::task::yield_now().await;
            }
        }
        put_position(&mut batch, position, Extent::default())?;
        self.kv.apply(batch)
    }

    /// Removes state and journal, a few rows at a time; what else is in the store stays.
    pub(crate) async fn clear(&self) -> Result<(), Fault> {
        let mut batch = Batch::new();
        batch.remove(Space::Meta.key(POSITION));
        self.kv.apply(batch)?;
        self.extent(|current| *current = Extent::default());
        for space in [Space::State, Space::Journal] {
            let (from, to) = space.bounds();
            loop {
                let page = self.kv.range(&from, &to, TURN_ROWS)?;
                if page.is_empty() {
                    break;
                }
                let mut batch = Batch::new();
                page.into_iter().for_each(|(key, _)| batch.remove(key));
                self.kv.apply(batch)?;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Makes durable what was written.
    pub(crate) async fn sync(&self) -> Result<(), Fault> {
        self.kv.sync().await
    }
}

fn put_row(batch: &mut Batch, key: &Key, row: Option<&Row>) -> Result<(), Fault> {
    match row {
        Some(row) => batch.put(state_key(key)?, codec::encode(row)?),
        None => batch.remove(state_key(key)?),
    }
    Ok(())
}

fn put_position(batch: &mut Batch, position: &Position, extent: Extent) -> Result<(), Fault> {
    let stored = StoredPosition::V2(position.clone(), extent);
    batch.put(Space::Meta.key(POSITION), codec::encode(&stored)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Caller, Command, NodeId, Outcome, Reply, Revision, Timestamp};
    use storage::kv::{
        KvHome,
        simulated::{SimulatedHome, SimulatedKvConfig},
    };

    fn position() -> Position {
        let membership = openraft::Membership::new_with_defaults(
            vec![std::collections::BTreeSet::from([1])],
            [1],
        );
        let globals = Globals { revision: Revision(300), applied_index: 7, ..Globals::default() };
        let leader =
            <crate::types::LeaderId as openraft::vote::RaftLeaderIdExt>::new_committed(2, 1);
        let log_id = LogId::new(leader, 7);
        let membership = StoredMembership::new(Some(log_id), membership);
        Position { applied: Some(log_id), membership, globals, hash: 1 << 100 }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What releases wrote. The first had no extent of the journal.
    const GOLDEN: [&str; 2] = [
        "0100010201070102010701010101010000fb2c0100010700fe00000000000000000000000010000000",
        "0101010201070102010701010101010000fb2c0100010700fe0000000000000000000000001000000003fb9001fb2a01",
    ];

    #[test]
    fn golden_bytes_of_a_position_stay_as_they_were_written() {
        let extent = Extent { rows: 3, bytes: 400, oldest: 298 };
        let stored = [StoredPosition::V1(position()), StoredPosition::V2(position(), extent)];
        for (stored, golden) in stored.iter().zip(GOLDEN) {
            let bytes = codec::encode(stored).unwrap();
            assert_eq!(hex(&bytes), golden);
            let kv = SimulatedHome::new(SimulatedKvConfig::default()).open().unwrap();
            let mut batch = Batch::new();
            batch.put(b"mstate-position".to_vec(), bytes);
            Kv::apply(&kv, batch).unwrap();
            let keep = Keep::open(Arc::new(kv), JournalLimits::none()).unwrap();
            let found = match keep.position().unwrap() {
                Some(StoredPosition::V1(found) | StoredPosition::V2(found, _)) => Some(found),
                None => None,
            };
            assert_eq!(found, Some(position()));
        }
    }

    fn step(revision: u64, bytes: usize) -> Step {
        let command = Command::RaiseRules { level: bytes as u32 };
        let (revision, time) = (Revision(revision), Timestamp(revision));
        let queued =
            crate::entry::Queued { caller: Caller::Node(NodeId(1)), request_id: None, command };
        let result = Ok(Reply::Done { resource: String::new(), changed: false });
        let outcome = Outcome { revision, result };
        let applied = model::Applied { outcome, events: Vec::new(), changes: Vec::new() };
        Step { revision, time, queued, applied }
    }

    #[test]
    fn a_large_row_is_kept_in_parts_and_goes_as_a_whole() {
        let kv = SimulatedHome::new(SimulatedKvConfig::default()).open().unwrap();
        let limits = JournalLimits { rows_max: 4, bytes_max: u64::MAX };
        let keep = Keep::open(Arc::new(kv.clone()), limits).unwrap();
        for revision in 1..=9 {
            let mut step = step(revision, 1);
            // Sizes around those of one part and of several.
            let note = "x".repeat(4_060 * (revision as usize % 4) + revision as usize);
            let name = model::Name::new("t").unwrap();
            let (labels, annotations) = Default::default();
            let draft = model::Draft { name, labels, annotations, if_revision: None };
            step.queued.command = Command::ApplyTenant { draft, display_name: note };
            keep.write(&position(), &[step]).unwrap();
            assert_eq!(keep.journal_extent().unwrap(), keep.count_journal().unwrap());
        }
        let rows = keep.journal(Revision(0), 100).unwrap();
        assert_eq!(rows.iter().map(|row| row.revision.0).collect::<Vec<_>>(), [6, 7, 8, 9]);
        for (max, after) in [(1, 6), (2, 7), (3, 5)] {
            let some = keep.journal(Revision(after), max).unwrap();
            assert_eq!(some, rows[after as usize - 5..][..max]);
        }
        let (from, to) = Space::Journal.bounds();
        let stored = Kv::range(&kv, &from, &to, usize::MAX).unwrap();
        assert!(stored.iter().all(|(_, part)| part.len() <= 4 << 10));
        assert!(stored.len() >= 7, "{} parts", stored.len());
    }

    #[test]
    fn a_journal_of_before_is_counted_and_a_lower_bound_reached_little_by_little() {
        let kv = SimulatedHome::new(SimulatedKvConfig::default()).open().unwrap();
        let kv: Arc<dyn AnyKv> = Arc::new(kv);
        let keep = Keep::open(kv.clone(), JournalLimits::none()).unwrap();
        for revision in 1..=300 {
            keep.write(&position(), &[step(revision, 1)]).unwrap();
        }
        let full = keep.journal_extent().unwrap();
        assert_eq!((full.rows, full.oldest), (300, 1));
        // As the first releases left it.
        let mut batch = Batch::new();
        let stored = StoredPosition::V1(position());
        batch.put(Space::Meta.key(POSITION), codec::encode(&stored).unwrap());
        kv.apply(batch).unwrap();
        let limits = JournalLimits { rows_max: 250, bytes_max: full.bytes / 3 };
        let keep = Keep::open(kv, limits).unwrap();
        let mut rows = vec![keep.count_journal().unwrap().rows];
        for revision in 301..=310 {
            keep.write(&position(), &[step(revision, 1)]).unwrap();
            let extent = keep.journal_extent().unwrap();
            assert_eq!(extent, keep.count_journal().unwrap(), "the count is right");
            rows.push(extent.rows);
        }
        assert_eq!(rows[0], 300);
        assert!(rows.windows(2).all(|pair| pair[0] - pair[1] <= 65), "{rows:?}");
        assert!(keep.journal_extent().unwrap().bytes <= limits.bytes_max, "{rows:?}");
        assert_eq!(keep.journal_bounds().unwrap().map(|(_, newest)| newest), Some(310));
        // The newest entry stays, however large it is.
        let many: Vec<Step> = (311..=600).map(|revision| step(revision, 1)).collect();
        keep.write(&position(), &many).unwrap();
        keep.write(&position(), &[]).unwrap();
        let extent = keep.journal_extent().unwrap();
        assert_eq!((extent.oldest, extent.rows), (311, 290));
    }
}
