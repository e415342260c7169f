//! The seam under everything that is truth: files, directories and the moment they are durable.
//!
//! The Raft log, snapshots and an agent's memory stand on [`Disk`]; [`real::RealDisk`] is the
//! operating system's, [`simulated::SimulatedDisk`] forgets, tears and refuses as its seed says.
//! `conformance::disk` holds both to the contracts below.
//!
//! An operation begins when its future is first polled. Operations that are awaited one after the
//! other happen in that order; two that are in flight at once may happen in either. A future that
//! is dropped leaves its operation done, undone or still to be done: a writer that can be
//! cancelled must not touch that file again.

pub mod real;
pub mod simulated;

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::fault::Fault;

/// Between two tries for a lock.
pub(crate) const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A file system. Clones are handles on the same one.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;
    /// Holds a lock until it is dropped.
    type Lock: Send + Sync + 'static;

    /// Makes a new empty file, open for reading and writing. Refused when the name is taken. The
    /// name is durable after [`Disk::sync_dir`] of its directory.
    fn create(&self, path: &Path) -> impl Future<Output = Result<Self::File, Fault>> + Send;

    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> impl Future<Output = Result<Self::File, Fault>> + Send;

    /// Whether a file or directory has this name.
    fn exists(&self, path: &Path) -> impl Future<Output = Result<bool, Fault>> + Send;

    /// The names of the files and directories in `dir`, sorted. A missing directory is a fault
    /// (see [`Fault::is_not_found`]).
    fn list(&self, dir: &Path) -> impl Future<Output = Result<Vec<String>, Fault>> + Send;

    /// Gives `from` the name `to`, replacing what had it, in one step that happens wholly or not
    /// at all. Durable after [`Disk::sync_dir`] of the directory of `to`. Files only.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Removes a file's name. Open handles go on working.
    fn remove(&self, path: &Path) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Makes a directory and those above it, durable at return. One that exists is fine.
    fn create_dir(&self, dir: &Path) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Makes durable which names `dir` holds.
    fn sync_dir(&self, dir: &Path) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Takes the lock of the file `path` (made when missing) or answers [`Fault::Locked`] at once.
    /// A process that dies lets go of it.
    fn lock(&self, path: &Path) -> impl Future<Output = Result<Self::Lock, Fault>> + Send;

    /// As [`Disk::lock`], but waits up to `wait_ms` milliseconds for a holder who is letting go: an
    /// incarnation that has ended frees its files a little after it said so.
    fn lock_within(
        &self,
        path: &Path,
        wait_ms: u64,
    ) -> impl Future<Output = Result<Self::Lock, Fault>> + Send {
        async move {
            let until = Instant::now() + Duration::from_millis(wait_ms);
            loop {
                match self.lock(path).await {
                    Err(Fault::Locked { .. }) if Instant::now() < until => sleep(LOCK_PAUSE).await,
                    answered => return answered,
                }
            }
        }
    }

    /// The whole content of a file of at most `bytes_max` bytes.
    fn read_file(
        &self,
        path: &Path,
        bytes_max: u64,
    ) -> impl Future<Output = Result<Bytes, Fault>> + Send {
        async move {
            let file = self.open(path).await?;
            let bytes = file.len().await?;
            if bytes > bytes_max {
                return Err(Fault::TooLarge { what: "file", bytes, bytes_max });
            }
            file.read_at(0, bytes as usize).await
        }
    }

    /// Makes `bytes` the content of `path`, durably: after a power cut the file has the old
    /// content or the new, never a mixture. Written aside (`<name>.new`), synced and renamed.
    fn replace_file(
        &self,
        path: &Path,
        bytes: Bytes,
    ) -> impl Future<Output = Result<(), Fault>> + Send {
        async move {
            let mut aside = path.as_os_str().to_os_string();
            aside.push(".new");
            let aside = Path::new(&aside);
            if self.exists(aside).await? {
                self.remove(aside).await?;
            }
            let file = self.create(aside).await?;
            file.write_at_synced(0, bytes).await?;
            self.rename(aside, path).await?;
            self.sync_dir(parent(path)).await
        }
    }
}

/// An open file. Clones are handles on the same one.
#[expect(clippy::len_without_is_empty, reason = "asking the disk can fail; nobody wants is_empty")]
pub trait DiskFile: Clone + Send + Sync + 'static {
    /// The name it was opened by.
    fn path(&self) -> &Path;

    /// Its size in bytes.
    fn len(&self) -> impl Future<Output = Result<u64, Fault>> + Send;

    /// Up to `bytes` bytes from `offset`; fewer only at the end of the file.
    fn read_at(
        &self,
        offset: u64,
        bytes: usize,
    ) -> impl Future<Output = Result<Bytes, Fault>> + Send;

    /// Writes all of `bytes` at `offset`, growing the file as needed (a hole reads as zeroes).
    /// Visible at return; durable after [`DiskFile::sync`].
    fn write_at(&self, offset: u64, bytes: Bytes)
    -> impl Future<Output = Result<(), Fault>> + Send;

    /// Makes the content durable (fdatasync): every write that was awaited before. After a failed
    /// sync nothing written since the last good one may be relied on, not even by syncing again.
    fn sync(&self) -> impl Future<Output = Result<(), Fault>> + Send;

    /// [`DiskFile::write_at`] and [`DiskFile::sync`] in one trip to the thread that does it.
    fn write_at_synced(
        &self,
        offset: u64,
        bytes: Bytes,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Cuts or extends (with zeroes) the file. Durable after [`DiskFile::sync`].
    fn set_len(&self, bytes: u64) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Makes the file `bytes` long and writes zeroes over all of it, durable at return, so that
    /// later syncs of writes inside it change no metadata (twice as fast).
    fn preallocate(&self, bytes: u64) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// The directory that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
