//! One table of the state: an ordered map that forks without copying and knows what was touched.
//!
//! Rows stand behind `Arc`, the map is persistent: a fork costs a few pointer copies, and a write
//! after a fork copies one path. Every write notes the key and the value before, once per entry, and
//! keeps the table's hash in step, row by row.

use crate::hash::row_hash;
use imbl::OrdMap;
use std::{collections::BTreeMap, fmt, hash::Hash, sync::Arc};

/// An ordered, forkable table.
#[derive(Clone)]
pub struct Table<K: Ord + Clone, V: Clone> {
    rows: OrdMap<K, Arc<V>>,
    touched: BTreeMap<K, Option<Arc<V>>>,
    hash: u128,
}

impl<K: Ord + Clone, V: Clone> Default for Table<K, V> {
    fn default() -> Self {
        Self { rows: OrdMap::new(), touched: BTreeMap::new(), hash: 0 }
    }
}

impl<K: Ord + Clone + fmt::Debug, V: Clone + fmt::Debug> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.rows.iter()).finish()
    }
}

impl<K: Ord + Clone + Hash, V: Clone + Hash> Table<K, V> {
    /// The row at `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key).map(Arc::as_ref)
    }

    /// The row at `key`, shared.
    pub fn get_arc(&self, key: &K) -> Option<&Arc<V>> {
        self.rows.get(key)
    }

    /// The key as the table holds it: equal to `key`, and sharing its memory with other users of it.
    pub(crate) fn own_key(&self, key: &K) -> Option<&K> {
        self.rows.get_key_value(key).map(|(own, _)| own)
    }

    /// All rows in key order, shared.
    pub(crate) fn iter_arc(&self) -> impl Iterator<Item = (&K, &Arc<V>)> {
        self.rows.iter()
    }

    /// Whether there is a row at `key`.
    pub fn contains(&self, key: &K) -> bool {
        self.rows.contains_key(key)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All rows in key order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.iter().map(|(key, row)| (key, row.as_ref()))
    }

    /// Rows within `range`, in key order.
    pub fn range<R: std::ops::RangeBounds<K>>(
        &self,
        range: R,
    ) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.range(range).map(|(key, row)| (key, row.as_ref()))
    }

    /// Puts a row, replacing the one before.
    pub fn put(&mut self, key: K, row: V) {
        self.put_arc(key, Arc::new(row));
    }

    /// Puts a shared row, replacing the one before.
    pub(crate) fn put_arc(&mut self, key: K, row: Arc<V>) {
        self.hash = self.hash.wrapping_add(row_hash(&key, row.as_ref()));
        let before = self.rows.insert(key.clone(), row);
        if let Some(before) = &before {
            self.hash = self.hash.wrapping_sub(row_hash(&key, before.as_ref()));
        }
        self.touched.entry(key).or_insert(before);
    }

    /// Takes a row away and returns it.
    pub fn remove(&mut self, key: &K) -> Option<Arc<V>> {
        let before = self.rows.remove(key)?;
        self.hash = self.hash.wrapping_sub(row_hash(key, before.as_ref()));
        self.touched.entry(key.clone()).or_insert_with(|| Some(before.clone()));
        Some(before)
    }

    /// The keys written since the last call, each with the row it had before.
    pub fn take_touched(&mut self) -> BTreeMap<K, Option<Arc<V>>> {
        std::mem::take(&mut self.touched)
    }

    /// Forgets which keys were written.
    pub(crate) fn forget_touched(&mut self) {
        self.touched.clear();
    }

    /// Sum over all rows of a hash of key and row: equal tables have equal sums, and a write changes
    /// it in constant time.
    pub fn hash(&self) -> u128 {
        self.hash
    }
}
