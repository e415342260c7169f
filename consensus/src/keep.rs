//! The materialised state in the [`Kv`]: rows, the position they belong to, and the journal.
//!
//! One batch per log entry holds all three, so they agree after any crash. None of it is truth: a
//! store that is missing, damaged or does not have the hash it says is emptied and rebuilt from
//! snapshot and log. The journal is the history for watches, audit and time travel; a node that was
//! rebuilt has none older than its snapshot.

use crate::{
    WatchEvent,
    entry::Step,
    planted::{Planted, PlantedBug},
    publish::History,
    types::{LogId, StoredMembership},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use model::{
    Caller, Change, Command, Event, Globals, Key, Outcome, RequestId, Revision, Row, State,
    Timestamp,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use storage::{Batch, Fault, Kv, codec, keyspace::Space};

/// [`Kv`] without its type.
pub(crate) trait AnyKv: Send + Sync + 'static {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault>;
    fn range(&self, from: &[u8], to: &[u8], max: usize) -> Result<Vec<(Vec<u8>, Bytes)>, Fault>;
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
    V1(Position),
}

/// Where a state stands in history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: StoredMembership,
    pub(crate) globals: Globals,
    pub(crate) hash: u128,
}

/// One revision as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRow {
    /// The revision.
    pub revision: Revision,
    /// Its time.
    pub time: Timestamp,
    /// Who asked.
    pub caller: Caller,
    /// By which request.
    pub request_id: Option<RequestId>,
    /// What was asked.
    pub command: Command,
    /// What was answered; a refusal is history too.
    pub outcome: Outcome,
    /// What happened.
    pub events: Vec<Event>,
    /// Which rows it touched, before and after.
    pub changes: Vec<Change>,
}

#[derive(Deserialize)]
enum StoredJournalRow {
    V1(JournalRow),
}

/// The same bytes as [`StoredJournalRow`], without owning them.
#[derive(Serialize)]
enum StoredJournalRef<'a> {
    V1(JournalRef<'a>),
}

#[derive(Serialize)]
struct JournalRef<'a> {
    revision: Revision,
    time: Timestamp,
    caller: &'a Caller,
    request_id: &'a Option<RequestId>,
    command: &'a Command,
    outcome: &'a Outcome,
    events: &'a [Event],
    changes: &'a [Change],
}

const POSITION: &[u8] = b"state-position";
/// One revision in so many is skipped where that bug is planted.
const PLANTED_SKIP: u64 = 16;
/// Rows read or written at once while the whole store is walked.
const PAGE_ROWS: usize = 1_024;

fn state_key(key: &Key) -> Result<Vec<u8>, Fault> {
    codec::encode(key).map(|bytes| Space::State.key(&bytes))
}

fn journal_key(revision: Revision) -> Vec<u8> {
    Space::Journal.key(&revision.0.to_be_bytes())
}

/// The materialised state of one node.
#[derive(Clone)]
pub(crate) struct Keep {
    kv: Arc<dyn AnyKv>,
    journal_rows_max: u64,
    planted: Planted,
}

impl Keep {
    pub(crate) fn new(kv: Arc<dyn AnyKv>, journal_rows_max: u64) -> Self {
        Self { kv, journal_rows_max, planted: Planted::default() }
    }

    /// With what is planted.
    pub(crate) fn with(self, planted: Planted) -> Self {
        Self { planted, ..self }
    }

    /// The state that is stored, if a whole one is. One without the hash it should have is corrupt.
    pub(crate) fn load(&self) -> Result<Option<(Position, State)>, Fault> {
        let Some(bytes) = self.kv.get(&Space::Meta.key(POSITION))? else { return Ok(None) };
        let StoredPosition::V1(position) = codec::decode(&bytes)?;
        let mut rows = Vec::new();
        self.walk(Space::State, |key, value| {
            let key: Key = codec::decode(key.get(1..).unwrap_or_default())?;
            rows.push((key, codec::decode::<Row>(value)?));
            Ok(())
        })?;
        let state = State::load(position.globals.clone(), rows.into_iter());
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
        mut row: impl FnMut(&[u8], &Bytes) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let (mut from, to) = space.bounds();
        loop {
            let page = self.kv.range(&from, &to, PAGE_ROWS)?;
            for (key, value) in &page {
                row(key, value)?;
            }
            match page.into_iter().last() {
                Some((mut last, _)) => {
                    last.push(0);
                    from = last;
                }
                None => return Ok(()),
            }
        }
    }

    /// Stores what an entry did. Visible at return, durable some time later.
    pub(crate) fn write(&self, position: &Position, steps: &[Step]) -> Result<(), Fault> {
        let mut batch = Batch::new();
        for step in steps {
            for change in &step.applied.changes {
                put_row(&mut batch, &change.key, change.after.as_ref())?;
            }
            let row = StoredJournalRef::V1(JournalRef {
                revision: step.revision,
                time: step.time,
                caller: &step.queued.caller,
                request_id: &step.queued.request_id,
                command: &step.queued.command,
                outcome: &step.applied.outcome,
                events: &step.applied.events,
                changes: &step.applied.changes,
            });
            let skipped = step.revision.0.is_multiple_of(PLANTED_SKIP)
                && self.planted.is(PlantedBug::SkipJournalEntry);
            if !skipped {
                batch.put(journal_key(step.revision), codec::encode(&row)?);
            }
            if let Some(old) = step.revision.0.checked_sub(self.journal_rows_max) {
                batch.remove(journal_key(Revision(old)));
            }
        }
        put_position(&mut batch, position)?;
        self.kv.apply(batch)
    }

    /// Replaces everything stored by `state`. A crash half-way leaves no position, so that the rest
    /// is not taken for a state.
    pub(crate) fn replace(&self, position: &Position, state: &State) -> Result<(), Fault> {
        self.clear()?;
        let mut batch = Batch::new();
        for (key, row) in state.rows() {
            put_row(&mut batch, &key, Some(&row))?;
            if batch.len() >= PAGE_ROWS {
                self.kv.apply(std::mem::take(&mut batch))?;
            }
        }
        put_position(&mut batch, position)?;
        self.kv.apply(batch)
    }

    /// Removes state and journal; what else is in the store stays.
    pub(crate) fn clear(&self) -> Result<(), Fault> {
        let mut batch = Batch::new();
        batch.remove(Space::Meta.key(POSITION));
        self.kv.apply(batch)?;
        for space in [Space::State, Space::Journal] {
            let (from, to) = space.bounds();
            loop {
                let page = self.kv.range(&from, &to, PAGE_ROWS)?;
                if page.is_empty() {
                    break;
                }
                let mut batch = Batch::new();
                page.into_iter().for_each(|(key, _)| batch.remove(key));
                self.kv.apply(batch)?;
            }
        }
        Ok(())
    }

    /// Makes durable what was written.
    pub(crate) async fn sync(&self) -> Result<(), Fault> {
        self.kv.sync().await
    }

    /// The oldest and the newest revision in the journal.
    pub(crate) fn journal_bounds(&self) -> Result<Option<(u64, u64)>, Fault> {
        let mut bounds = None;
        self.walk(Space::Journal, |key, _| {
            let bytes = key.get(1..9).and_then(|bytes| bytes.try_into().ok());
            let revision = u64::from_be_bytes(bytes.unwrap_or_default());
            bounds = Some((bounds.map_or(revision, |(oldest, _)| oldest), revision));
            Ok(())
        })?;
        Ok(bounds)
    }

    /// Up to `max` journal rows above `after`.
    pub(crate) fn journal(&self, after: Revision, max: usize) -> Result<Vec<JournalRow>, Fault> {
        let (_, to) = Space::Journal.bounds();
        let rows = self.kv.range(&journal_key(after.next()), &to, max)?;
        rows.iter()
            .map(|(_, value)| {
                let StoredJournalRow::V1(row) = codec::decode(value)?;
                Ok(row)
            })
            .collect()
    }
}

fn put_row(batch: &mut Batch, key: &Key, row: Option<&Row>) -> Result<(), Fault> {
    match row {
        Some(row) => batch.put(state_key(key)?, codec::encode(row)?),
        None => batch.remove(state_key(key)?),
    }
    Ok(())
}

fn put_position(batch: &mut Batch, position: &Position) -> Result<(), Fault> {
    let stored = StoredPosition::V1(position.clone());
    batch.put(Space::Meta.key(POSITION), codec::encode(&stored)?);
    Ok(())
}

impl History for Keep {
    fn page(&self, after: Revision, max: usize) -> Result<Vec<WatchEvent>, Fault> {
        let rows = self.journal(after, max)?;
        let event = |row: JournalRow| WatchEvent {
            revision: row.revision,
            time: row.time,
            caller: row.caller,
            changes: row.changes.into(),
        };
        Ok(rows.into_iter().map(event).collect())
    }

    fn oldest(&self) -> Option<Revision> {
        let (from, to) = Space::Journal.bounds();
        let first = self.kv.range(&from, &to, 1).ok()?;
        let (key, _) = first.first()?;
        Some(Revision(u64::from_be_bytes(key.get(1..9)?.try_into().ok()?)))
    }
}
