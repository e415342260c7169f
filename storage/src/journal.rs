//! Rows by revision: what watches resume from and time travel reads.
//!
//! The journal lives in the same [`Kv`] as the state, so that a row and the state it led to are one
//! batch. Keys are big-endian revisions, so their order is that of time. Old rows go in bounded
//! pieces; a reader below [`Journal::first`] has to be told that they are compacted.

use bytes::Bytes;

use crate::fault::Fault;
use crate::keyspace::Space;
use crate::kv::{Batch, Kv};

/// The limits of a [`Journal`].
#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// Rows that one call of [`Journal::prune`] removes.
    pub prune_rows_max: usize,
}

impl JournalConfig {
    /// 1,024 rows at a time.
    pub fn new() -> JournalConfig {
        JournalConfig { prune_rows_max: 1024 }
    }
}

impl Default for JournalConfig {
    fn default() -> Self {
        JournalConfig::new()
    }
}

/// The journal in a store.
#[derive(Clone)]
pub struct Journal<K> {
    kv: K,
    config: JournalConfig,
}

impl<K: Kv> Journal<K> {
    /// The journal in `kv`.
    pub fn new(kv: K, config: JournalConfig) -> Journal<K> {
        Journal { kv, config }
    }

    /// Adds the row of `revision` to a batch that the caller applies, together with the state that
    /// it led to.
    pub fn append(&self, batch: &mut Batch, revision: u64, row: impl Into<Bytes>) {
        batch.put(key(revision), row);
    }

    /// The first `rows_max` rows from revision `from` on, in order.
    pub fn range(&self, from: u64, rows_max: usize) -> Result<Vec<(u64, Bytes)>, Fault> {
        let (_, end) = Space::Journal.bounds();
        let rows = self.kv.range(&key(from), &end, rows_max)?;
        rows.into_iter().map(|(key, row)| Ok((revision_of(&key)?, row))).collect()
    }

    /// The row of one revision.
    pub fn get(&self, revision: u64) -> Result<Option<Bytes>, Fault> {
        self.kv.get(&key(revision))
    }

    /// The oldest revision that has a row.
    pub fn first(&self) -> Result<Option<u64>, Fault> {
        Ok(self.range(0, 1)?.first().map(|(revision, _)| *revision))
    }

    /// The newest revision that has a row.
    pub fn last(&self) -> Result<Option<u64>, Fault> {
        let (begin, end) = Space::Journal.bounds();
        self.kv.last(&begin, &end)?.map(|(key, _)| revision_of(&key)).transpose()
    }

    /// Removes rows below `revision`, oldest first and at most `prune_rows_max`; answers how many
    /// went. Call again while it answers that many.
    pub fn prune(&self, revision: u64) -> Result<usize, Fault> {
        let (begin, _) = Space::Journal.bounds();
        let rows = self.kv.range(&begin, &key(revision), self.config.prune_rows_max)?;
        let mut batch = Batch::new();
        let pruned = rows.len();
        for (key, _) in rows {
            batch.remove(key);
        }
        if pruned > 0 {
            self.kv.apply(batch)?;
        }
        Ok(pruned)
    }
}

fn key(revision: u64) -> Vec<u8> {
    Space::Journal.key(&revision.to_be_bytes())
}

fn revision_of(key: &[u8]) -> Result<u64, Fault> {
    let revision = key.get(1..).and_then(|rest| rest.try_into().ok()).map(u64::from_be_bytes);
    revision.ok_or_else(|| Fault::Codec {
        attempted: "decode",
        detail: format!("a journal key has {} bytes instead of 9", key.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::KvHome;
    use crate::kv::simulated::{SimulatedHome, SimulatedKvConfig};

    #[test]
    fn rows_are_read_from_a_revision_on_and_pruned_in_pieces() {
        let kv = SimulatedHome::new(SimulatedKvConfig::default()).open().unwrap();
        let journal = Journal::new(kv.clone(), JournalConfig { prune_rows_max: 4 });
        assert_eq!((journal.first().unwrap(), journal.last().unwrap()), (None, None));
        for revision in 250..=260 {
            let mut batch = Batch::new();
            batch.put(Space::State.key(b"x"), "beside it");
            journal.append(&mut batch, revision, format!("row {revision}"));
            kv.apply(batch).unwrap();
        }
        assert_eq!((journal.first().unwrap(), journal.last().unwrap()), (Some(250), Some(260)));
        let rows = journal.range(255, 2).unwrap();
        assert_eq!(rows, [(255, Bytes::from("row 255")), (256, Bytes::from("row 256"))]);
        assert_eq!(journal.prune(256).unwrap(), 4);
        assert_eq!(journal.prune(256).unwrap(), 2);
        assert_eq!(journal.prune(256).unwrap(), 0);
        assert_eq!(journal.first().unwrap(), Some(256));
        assert_eq!(journal.get(255).unwrap(), None);
        assert_eq!(kv.get(&Space::State.key(b"x")).unwrap().unwrap(), "beside it");
    }
}
