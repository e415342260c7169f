//! Bytes on disk: what must never be lost, and what can be rebuilt from it.
//!
//! Truth stands on [`Disk`]: the Raft log ([`log`]), snapshots ([`snapshot`]) and an agent's memory
//! ([`record_file`]) are checksummed, synced before anybody is told, and refuse to open when they
//! were damaged below what had been acknowledged. What is materialised from truth (state by key,
//! journal, catalogue) stands on [`Kv`] and costs a rebuild when it is lost, never data.
//!
//! This room moves bytes and does not know what a deployment is. Threads and blocking calls live
//! behind the two seams; everything else here runs on one tokio thread and, with the simulated
//! halves of the seams, from a seed. Read [`disk`], then [`log`], then [`kv`].

pub mod codec;
pub mod conformance;
pub mod disk;

pub mod journal;
pub mod keyspace;
pub mod kv;
pub mod log;
pub mod record_file;
pub mod snapshot;

mod dice;
mod fault;
mod finding;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use crate::dice::Dice;
pub use crate::disk::{Disk, DiskFile};
pub use crate::fault::Fault;
pub use crate::finding::{Finding, Remedy};
pub use crate::kv::{Batch, Kv};

/// Locks; a panic elsewhere while it was held does not spread, because every critical section in
/// this room leaves its data whole at each step.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
