//! The journal: a row for every revision, bounded in rows and in bytes.
//!
//! How much there is stands beside the position and changes with it, so nobody has to count. The
//! oldest rows go in the batch that brings new ones.
//!
//! A row of a large command has hundreds of kilobytes. It is stored in parts, the further ones under
//! its key and their number: sled writes the few rows that share a page together, and what exceeds its
//! measure goes into files of their own, which stay in memory whatever its cache may hold.

use super::{Keep, StoredPosition};
use crate::{WatchEvent, entry::Step, planted::PlantedBug, publish::History};
use model::{Caller, Change, Command, Event, Outcome, RequestId, Revision, Timestamp};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
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

/// One revision in so many is skipped where that bug is planted.
const PLANTED_SKIP: u64 = 16;

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

/// Bytes of a part of a row.
const PART_BYTES: usize = 4 << 10;

/// The key of a further part of a row, from 1.
fn part_key(revision: Revision, part: u16) -> Vec<u8> {
    let mut key = journal_key(revision);
    key.extend_from_slice(&part.to_be_bytes());
    key
}

/// The revision that a key of the journal is of, and whether a row begins there.
fn revision_of(key: &[u8]) -> Result<(u64, bool), Fault> {
    let bytes = key.get(1..9).and_then(|bytes| bytes.try_into().ok());
    let revision = bytes.map(u64::from_be_bytes).ok_or_else(|| Fault::Codec {
        attempted: "decode",
        detail: format!("a journal key has {} bytes", key.len()),
    })?;
    Ok((revision, key.len() == 9))
}

fn put_parts(batch: &mut Batch, revision: Revision, row: &[u8]) -> Result<(), Fault> {
    let too_large = || {
        let (bytes, bytes_max) = (row.len() as u64, (PART_BYTES * usize::from(u16::MAX)) as u64);
        Fault::TooLarge { what: "journal row", bytes, bytes_max }
    };
    for (part, bytes) in row.chunks(PART_BYTES).enumerate() {
        let key = match u16::try_from(part).map_err(|_| too_large())? {
            0 => journal_key(revision),
            part => part_key(revision, part),
        };
        batch.put(key, bytes.to_vec());
    }
    Ok(())
}

fn decode(row: &[u8]) -> Result<JournalRow, Fault> {
    let StoredJournalRow::V1(row) = codec::decode(row)?;
    Ok(row)
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
            let skipped = step.revision.0.is_multiple_of(PLANTED_SKIP)
                && self.planted.is(PlantedBug::SkipJournalEntry);
            if !skipped {
                put_parts(batch, step.revision, &row)?;
            }
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
        if !exceeds(extent) {
            return Ok(());
        }
        let from = journal_key(Revision(extent.oldest));
        self.kv.visit(&from, &journal_key(end), &mut |key, part| {
            let (revision, begins) = revision_of(key)?;
            if begins && (rows_max == 0 || !exceeds(extent)) {
                return Ok(ControlFlow::Break(()));
            }
            if begins {
                rows_max -= 1;
                extent.rows = extent.rows.saturating_sub(1);
                extent.oldest = revision + 1;
            }
            extent.bytes = extent.bytes.saturating_sub(part.len() as u64);
            batch.remove(key);
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Counts what is in a journal that was written before it was measured.
    pub(super) fn count_journal(&self) -> Result<Extent, Fault> {
        let mut extent = Extent::default();
        self.walk(Space::Journal, |key, part| {
            let (revision, begins) = revision_of(key)?;
            if extent.rows == 0 {
                extent.oldest = revision;
            }
            extent.rows += u64::from(begins);
            extent.bytes += part.len() as u64;
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
            let (revision, _) = revision_of(key)?;
            bounds = Some((bounds.map_or(revision, |(oldest, _)| oldest), revision));
            Ok(())
        })?;
        Ok(bounds)
    }

    /// Up to `max` journal rows above `after`.
    pub(crate) fn journal(&self, after: Revision, max: usize) -> Result<Vec<JournalRow>, Fault> {
        let (_, to) = Space::Journal.bounds();
        let (mut rows, mut row) = (Vec::new(), Vec::new());
        if max == 0 {
            return Ok(rows);
        }
        self.kv.visit(&journal_key(after.next()), &to, &mut |key, part| {
            let (_, begins) = revision_of(key)?;
            if begins && !row.is_empty() {
                rows.push(decode(&std::mem::take(&mut row))?);
            }
            if rows.len() == max {
                return Ok(ControlFlow::Break(()));
            }
            row.extend_from_slice(part);
            Ok(ControlFlow::Continue(()))
        })?;
        if !row.is_empty() {
            rows.push(decode(&row)?);
        }
        Ok(rows)
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
