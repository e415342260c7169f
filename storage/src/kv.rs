//! The seam right above the materialised state: an ordered map with atomic batches.
//!
//! What is in a [`Kv`] can be rebuilt from snapshot and log, so an implementation may lose what was
//! not synced, and may refuse to open at all: [`open_or_set_aside`] then moves the remains out of
//! the way and starts empty, and the caller rebuilds. [`sled::SledKv`] is the real one,
//! [`simulated::SimulatedKv`] the one with a seed; `conformance::kv` holds both to this contract.

pub mod simulated;
pub mod sled;

use std::future::Future;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::codec;
use crate::fault::Fault;
use crate::keyspace::Space;

/// A key with its value.
pub type Row = (Vec<u8>, Bytes);

/// Is shown a key and its value, and says whether to go on.
pub type Show<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Fault> + 'a;

/// An ordered map from bytes to bytes. Clones are handles on the same one.
pub trait Kv: Clone + Send + Sync + 'static {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// The first `rows_max` rows with `from <= key < to`, in order of their keys.
    fn range(&self, from: &[u8], to: &[u8], rows_max: usize) -> Result<Vec<Row>, Fault>;

    /// Shows every row with `from <= key < to` in order of their keys, until `show` breaks off. Copies
    /// none. `show` must not use the store.
    fn visit(&self, from: &[u8], to: &[u8], show: &mut Show<'_>) -> Result<(), Fault>;

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

    /// Its directory, as messages name it.
    fn place(&self) -> PathBuf;

    /// Opens what is there, or an empty one. [`Fault::is_corrupt`] means that trying again cannot
    /// help.
    fn open(&self) -> Result<Self::Kv, Fault>;

    /// Moves what is there out of the way, so that the next [`KvHome::open`] begins empty. Answers
    /// where the remains are.
    fn set_aside(&self) -> Result<String, Fault>;
}

/// The format of the rows that are written, and the newest that is read. One more when a release
/// writes rows that the one before cannot read.
pub const FORMAT: u32 = 1;
/// Where a store says its format. A store that does not is of the first.
const FORMAT_KEY: &[u8] = b"format";

/// The format of the rows in a store.
pub fn format_of<K: Kv>(kv: &K) -> Result<u32, Fault> {
    let found = kv.get(&Space::Meta.key(FORMAT_KEY))?;
    found.map_or(Ok(1), |bytes| codec::decode(&bytes))
}

/// Refuses a store of a newer format, and notes the format in one that says none.
pub fn check_format<K: Kv>(kv: &K, place: &Path) -> Result<(), Fault> {
    let key = Space::Meta.key(FORMAT_KEY);
    if kv.get(&key)?.is_none() {
        let mut batch = Batch::new();
        batch.put(key, codec::encode(&FORMAT)?);
        return kv.apply(batch);
    }
    match format_of(kv).map_err(|fault| fault.met_in(place))? {
        found if found > FORMAT => Err(Fault::version("store", place, found, FORMAT)),
        _ => Ok(()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::simulated::{SimulatedHome, SimulatedKvConfig};

    #[test]
    fn a_store_says_its_format_and_a_newer_one_is_refused_by_name() {
        let kv = SimulatedHome::new(SimulatedKvConfig::default()).open().unwrap();
        let place = Path::new("/data/kv");
        assert_eq!(format_of(&kv).unwrap(), 1);
        check_format(&kv, place).unwrap();
        check_format(&kv, place).unwrap();
        assert_eq!(kv.get(b"mformat").unwrap().unwrap(), &[1, 1][..]);
        let mut batch = Batch::new();
        batch.put(b"mformat".to_vec(), codec::encode(&(FORMAT + 1)).unwrap());
        kv.apply(batch).unwrap();
        let fault = check_format(&kv, place).unwrap_err();
        assert!(fault.to_string().starts_with("store in /data/kv has format version 2"), "{fault}");
        assert!(!fault.is_corrupt());
    }
}
