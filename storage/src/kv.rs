//! The seam right above the materialised state: an ordered map with atomic batches.
//!
//! What is in a [`Kv`] can be rebuilt from snapshot and log, so an implementation may lose what was
//! not synced, and may refuse to open at all: [`open_or_set_aside`] then moves the remains out of
//! the way and starts empty, and the caller rebuilds. [`sled::SledKv`] is the real one,
//! [`simulated::SimulatedKv`] the one with a seed; `conformance::kv` holds both to this contract.

pub mod simulated;
pub mod sled;

use std::future::Future;

use bytes::Bytes;

use crate::fault::Fault;

/// A key with its value.
pub type Row = (Vec<u8>, Bytes);

/// An ordered map from bytes to bytes. Clones are handles on the same one.
pub trait Kv: Clone + Send + Sync + 'static {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// The first `rows_max` rows with `from <= key < to`, in order of their keys.
    fn range(&self, from: &[u8], to: &[u8], rows_max: usize) -> Result<Vec<Row>, Fault>;

    /// The last row with `from <= key < to`.
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Row>, Fault>;

    /// Applies all of `batch` or nothing. Visible at return; **not** durable. After a crash the
    /// batches up to some point are there and none after it.
    fn apply(&self, batch: Batch) -> Result<(), Fault>;

    /// Makes durable every batch that was applied before the call.
    fn sync(&self) -> impl Future<Output = Result<(), Fault>> + Send + 'static;
}

/// Changes that happen together. Of several changes to one key the last one counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<(Vec<u8>, Option<Bytes>)>,
}

impl Batch {
    /// No changes.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Gives `key` the value `value`.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Bytes>) {
        self.changes.push((key.into(), Some(value.into())));
    }

    /// Removes `key`, which need not exist.
    pub fn remove(&mut self, key: impl Into<Vec<u8>>) {
        self.changes.push((key.into(), None));
    }

    /// How many changes it holds.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes in order; `None` removes.
    pub fn into_changes(self) -> Vec<(Vec<u8>, Option<Bytes>)> {
        self.changes
    }
}

/// The place of a [`Kv`], which outlives it: opens it, or moves what does not open out of the way.
pub trait KvHome: Clone + Send + Sync + 'static {
    /// What it opens.
    type Kv: Kv;

    /// Opens what is there, or an empty one. [`Fault::is_corrupt`] means that trying again cannot
    /// help.
    fn open(&self) -> Result<Self::Kv, Fault>;

    /// Moves what is there out of the way, so that the next [`KvHome::open`] begins empty. Answers
    /// where the remains are.
    fn set_aside(&self) -> Result<String, Fault>;
}

/// An opened [`Kv`], and what happened to its predecessor if that did not open.
#[derive(Debug)]
pub struct Opened<K> {
    /// The one to use.
    pub kv: K,
    /// Why the former one was set aside and where it is; the caller rebuilds from truth.
    pub set_aside: Option<(Fault, String)>,
}

/// Opens the store of `home`; one that is damaged is set aside and replaced by an empty one. Other
/// faults (a lock held, no permission, a full disk) are the caller's: moving files would not help.
pub fn open_or_set_aside<H: KvHome>(home: &H) -> Result<Opened<H::Kv>, Fault> {
    match home.open() {
        Ok(kv) => Ok(Opened { kv, set_aside: None }),
        Err(fault) if fault.is_corrupt() => {
            let moved_to = home.set_aside()?;
            tracing::warn!(%fault, moved_to, "set aside a store that does not open");
            Ok(Opened { kv: home.open()?, set_aside: Some((fault, moved_to)) })
        }
        Err(fault) => Err(fault),
    }
}
