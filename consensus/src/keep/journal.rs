//! The journal: a row for every revision, bounded in rows and in bytes.
//!
//! How much there is stands beside the position and changes with it, so nobody has to count. The
//! oldest rows go in the batch that brings new ones.

use super::{Keep, StoredPosition};
use crate::{WatchEvent, entry::Step, publish::History};
use model::{Caller, Change, Command, Event, Outcome, RequestId, Revision, Timestamp};
use serde::{Deserialize, Serialize};
use storage::{Batch, Fault, codec, keyspace::Space};

/// How much the journal may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JournalLimits {
    /// Rows.
    pub(crate) rows_max: u64,
    /// Bytes of rows. Those of the newest entry stay in any case.
    pub(crate) bytes_max: u64,
}

impl JournalLimits {
    /// No limits, for somebody who only reads.
    pub(crate) fn none() -> Self {
        Self { rows_max: u64::MAX, bytes_max: u64::MAX }
    }
}

/// What is in the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extent {
    /// Rows.
    pub(crate) rows: u64,
    /// Their bytes, without keys.
    pub(crate) bytes: u64,
    /// No revision below this one has a row.
    pub(crate) oldest: u64,
}

/// Rows that go with one entry beyond as many as it brings, so that a lowered bound is reached
/// little by little.
const SURPLUS_ROWS_MAX: usize = 64;

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

fn journal_key(revision: Revision) -> Vec<u8> {
    Space::Journal.key(&revision.0.to_be_bytes())
}

/// The revision that a journal row is of.
fn revision_of(key: &[u8]) -> Result<u64, Fault> {
    let bytes = key.get(1..).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u64::from_be_bytes).ok_or_else(|| Fault::Codec {
        attempted: "decode",
        detail: format!("a journal key has {} bytes", key.len()),
    })
}

impl Keep {
    /// Adds the rows of an entry to its batch, and takes out the oldest while there are too many.
    pub(super) fn put_journal(
        &self,
        batch: &mut Batch,
        extent: &mut Extent,
        steps: &[Step],
    ) -> Result<(), Fault> {
        let Some(first) = steps.first().map(|step| step.revision) else { return Ok(()) };
        if extent.rows == 0 {
            extent.oldest = first.0;
        }
        for step in steps {
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
            let row = codec::encode(&row)?;
            extent.rows += 1;
            extent.bytes += row.len() as u64;
            batch.put(journal_key(step.revision), row);
        }
        self.prune(batch, extent, (first, steps.len() + SURPLUS_ROWS_MAX))
    }

    /// Takes out the oldest rows below `end` that are too many, at most so many.
    fn prune(
        &self,
        batch: &mut Batch,
        extent: &mut Extent,
        (end, mut rows_max): (Revision, usize),
    ) -> Result<(), Fault> {
        let limits = self.limits;
        let exceeds =
            |extent: &Extent| extent.rows > limits.rows_max || extent.bytes > limits.bytes_max;
        while exceeds(extent) && rows_max > 0 {
            let surplus = extent.rows.saturating_sub(limits.rows_max).max(1);
            let page = rows_max.min(usize::try_from(surplus).unwrap_or(usize::MAX));
            let from = journal_key(Revision(extent.oldest));
            let rows = self.kv.range(&from, &journal_key(end), page)?;
            if rows.is_empty() {
                return Ok(());
            }
            for (key, row) in rows {
                extent.oldest = revision_of(&key)? + 1;
                extent.rows = extent.rows.saturating_sub(1);
                extent.bytes = extent.bytes.saturating_sub(row.len() as u64);
                rows_max -= 1;
                batch.remove(key);
            }
        }
        Ok(())
    }

    /// Counts what is in a journal that was written before it was measured.
    pub(super) fn count_journal(&self) -> Result<Extent, Fault> {
        let mut extent = Extent::default();
        self.walk(Space::Journal, |key, row| {
            if extent.rows == 0 {
                extent.oldest = revision_of(key)?;
            }
            extent.rows += 1;
            extent.bytes += row.len() as u64;
            Ok(())
        })?;
        Ok(extent)
    }

    /// Rows and bytes in the journal, as the store says.
    pub(crate) fn journal_extent(&self) -> Result<Extent, Fault> {
        Ok(match self.position()? {
            Some(StoredPosition::V2(_, extent)) => extent,
            Some(StoredPosition::V1(_)) | None => self.count_journal()?,
        })
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
