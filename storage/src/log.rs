//! The Raft log's bytes: entries and hard state in one ordered, checksummed stream.
//!
//! ```text
//!  dir/segment-0000000002   dir/segment-0000000003   dir/segment-0000000001   dir/...0004
//! +------------------------+------------------------+------------------------+-----------+
//! | header: generation 7   | header: generation 8   | header: generation 9   | zeroes    |
//! | checkpoint, states     | checkpoint, states     | checkpoint, states     | (spare,   |
//! | entry 40 .. entry 61   | entry 62, state vote   | entry 75, entry 76     |  written  |
//! | purge 38, entry 62 ... | truncate 70, entry 70  | (what a former life    |  once)    |
//! | entry 64               | ... entry 74           |  of the file left)     |           |
//! +------------------------+------------------------+------------------------+-----------+
//!   oldest needed                                     active: appended to       prepared
//! ```
//! Files are preallocated, zeroed and used again, so that a sync writes no metadata. `record` and
//! `segment` draw the bytes. A segment is given up when a durable purge has left it without entries;
//! since each begins with a checkpoint (which entries are held) and every state, nothing else ties
//! the log to older files.
//!
//! The order of the stream is the order of the calls: a vote saved after an append is never durable
//! before it. What a call changes is visible when it returns, and durable when its `done` is called
//! (or its future ends): one fdatasync for all that queued up during the one before. Any fault stops
//! the log for good; open it anew. `recovery` says how a torn tail is told from damage.

mod held;
mod read;
mod recovery;
mod view;
mod writer;

pub(crate) mod record;
pub(crate) mod segment;

#[cfg(test)]
mod tests;

pub use crate::log::recovery::inspect::{LogLook, SEGMENT_VERSION, SegmentLook, SegmentUse};

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::disk::Disk;
use crate::fault::Fault;
use crate::lock;
use crate::log::view::{Operation, View};

/// The limits of a [`Log`].
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Bytes of a segment file. An entry that does not fit gets a larger one of its own.
    pub segment_bytes: u64,
    /// Unused segment files that are kept for the next use.
    pub spare_segments_max: usize,
    /// Payload bytes that are written and synced together.
    pub batch_bytes_max: usize,
    /// Payload bytes that may wait to be written before [`Log::append`] waits.
    pub pending_bytes_max: usize,
    /// Payload bytes of recent entries kept in memory.
    pub cache_bytes_max: usize,
    /// Milliseconds of quiet after which the end of the log is marked, so that later damage to its
    /// last records is noticed.
    pub idle_mark_ms: u64,
    /// Milliseconds to wait for the lock of the directory.
    pub lock_wait_ms: u64,
}

impl LogConfig {
    /// 16 MiB segments, 2 spare; batches of 1 MiB, 32 MiB waiting, 8 MiB cached; marked after 100
    /// ms; 2 s of waiting for the lock.
    pub fn new() -> LogConfig {
        LogConfig {
            segment_bytes: 16 << 20,
            spare_segments_max: 2,
            batch_bytes_max: 1 << 20,
            pending_bytes_max: 32 << 20,
            cache_bytes_max: 8 << 20,
            idle_mark_ms: 100,
            lock_wait_ms: 2_000,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig::new()
    }
}

/// What an operator wants to know about a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStatus {
    /// The first index held.
    pub first: u64,
    /// The index after the last one.
    pub next: u64,
    /// Entries below this index are durable.
    pub durable_next: u64,
    /// Files that hold entries or may get some.
    pub segments: usize,
    /// Batches made durable since it was opened.
    pub syncs: u64,
}

pub(crate) struct Shared<F> {
    view: Mutex<View<F>>,
    work: Notify,
    room: Arc<Semaphore>,
}

impl<F> Shared<F> {
    fn new(view: View<F>, config: &LogConfig) -> Shared<F> {
        let room = config.pending_bytes_max.clamp(1, u32::MAX as usize >> 1);
        Shared {
            view: Mutex::new(view),
            work: Notify::new(),
            room: Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS))),
        }
    }
}

/// A log. Clones are handles on the same one; when the last is dropped it writes what is queued and
/// ends.
pub struct Log<D: Disk> {
    handle: Arc<Handle<D::File>>,
}

impl<D: Disk> Clone for Log<D> {
    fn clone(&self) -> Self {
        Log { handle: self.handle.clone() }
    }
}

struct Handle<F> {
    shared: Arc<Shared<F>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    room_max: u32,
}

impl<F> Drop for Handle<F> {
    fn drop(&mut self) {
        lock(&self.shared.view).closed = true;
        self.shared.work.notify_one();
    }
}

fn check(config: &LogConfig) -> Result<(), Fault> {
    let segment_max = u64::from(u32::MAX);
    match config.segment_bytes {
        4096.. if config.segment_bytes <= segment_max => Ok(()),
        bytes => Err(Fault::TooLarge { what: "log segment", bytes, bytes_max: segment_max }),
    }
}

impl<D: Disk> Log<D> {
    /// Makes an empty log that begins at index 0 in `dir`, durable at return; one that is there
    /// stays as it is. Only for a log that never was: [`Log::open`] makes none, for an empty log in
    /// the place of one that is gone would let its holder vote twice.
    pub async fn make(disk: &D, dir: &Path, config: &LogConfig) -> Result<(), Fault> {
        check(config)?;
        recovery::make(disk, dir, config).await
    }

    /// Whether `dir` holds a log, whole or not.
    pub async fn exists(disk: &D, dir: &Path) -> Result<bool, Fault> {
        if !disk.exists(dir).await? {
            return Ok(false);
        }
        let names = disk.list(dir).await?;
        Ok(names.iter().any(|name| segment_number(name).is_some()))
    }

    /// Opens the log in `dir` and starts the task that writes it on the current runtime.
    /// [`Fault::Corrupt`] when durable bytes are damaged or missing, all of them too: such a log must
    /// not vote again. [`Fault::Locked`] while another one holds `dir`.
    pub async fn open(disk: D, dir: &Path, config: LogConfig) -> Result<Log<D>, Fault> {
        check(&config)?;
        let mut writer = recovery::open(disk, dir, config).await?;
        writer.prepare();
        let shared = writer.shared.clone();
        let handle = Handle {
            room_max: shared.room.available_permits() as u32,
            shared,
            writer: Mutex::new(Some(tokio::spawn(writer.run()))),
        };
        Ok(Log { handle: Arc::new(handle) })
    }

    /// The first index held; the one after the last purged.
    pub fn first_index(&self) -> u64 {
        lock(&self.handle.shared.view).first
    }

    /// The index that the next entry must have.
    pub fn next_index(&self) -> u64 {
        lock(&self.handle.shared.view).next
    }

    /// The last index held; `None` when no entry is.
    pub fn last_index(&self) -> Option<u64> {
        let view = lock(&self.handle.shared.view);
        view.next.checked_sub(1).filter(|last| *last >= view.first)
    }

    /// The lowest index from which the entries up to `last` take at most `bytes_max` bytes on disk.
    pub fn first_within(&self, last: u64, bytes_max: u64) -> u64 {
        let view = lock(&self.handle.shared.view);
        let mut bytes = 0;
        let held = view.first..view.next.min(last.saturating_add(1));
        let fits = |index: &u64| {
            bytes += view.length(*index).map_or(0, |length| record::size(length) as u64);
            bytes <= bytes_max
        };
        let end = held.end;
        held.rev().take_while(fits).last().unwrap_or(end)
    }

    /// Where it stands.
    pub fn status(&self) -> LogStatus {
        let view = lock(&self.handle.shared.view);
        LogStatus {
            first: view.first,
            next: view.next,
            durable_next: view.written.next,
            segments: view.files.len(),
            syncs: view.syncs,
        }
    }

    /// The fault that stopped the log, if one did.
    pub fn fault(&self) -> Option<Fault> {
        lock(&self.handle.shared.view).fault.clone()
    }

    /// The hard state last saved under `key`.
    pub fn state(&self, key: u8) -> Option<Bytes> {
        lock(&self.handle.shared.view).states.get(&key).cloned()
    }

    /// Appends entries whose indexes follow what is there. They are readable when this returns and
    /// durable when `done` is called with `Ok`. Waits only while more than `pending_bytes_max` are
    /// unwritten; a future dropped while it waits has appended nothing. On a fault nothing was
    /// appended and `done` is dropped.
    pub async fn append(
        &self,
        entries: Vec<(u64, Bytes)>,
        done: impl FnOnce(Result<(), Fault>) + Send + 'static,
    ) -> Result<(), Fault> {
        for (_, bytes) in &entries {
            if bytes.len() > record::PAYLOAD_MAX {
                let (bytes, bytes_max) = (bytes.len() as u64, record::PAYLOAD_MAX as u64);
                return Err(Fault::TooLarge { what: "log entry", bytes, bytes_max });
            }
        }
        let bytes = entries.iter().map(|(_, bytes)| bytes.len()).sum();
        let room = self.room(bytes).await?;
        let mut view = lock(&self.handle.shared.view);
        view.check()?;
        view.append(entries, Box::new(done), Some(room))?;
        drop(view);
        self.handle.shared.work.notify_one();
        Ok(())
    }

    /// Appends entries and waits until they are durable.
    pub async fn append_durably(&self, entries: Vec<(u64, Bytes)>) -> Result<(), Fault> {
        let (done, waiting) = completion();
        self.append(entries, done).await?;
        wait(waiting).await
    }

    /// Saves hard state under `key` and waits until it is durable, and everything before it.
    pub async fn save_state(&self, key: u8, bytes: Bytes) -> Result<(), Fault> {
        let (done, waiting) = completion();
        {
            let mut view = lock(&self.handle.shared.view);
            view.check()?;
            view.save_state(key, bytes, Box::new(done));
        }
        self.handle.shared.work.notify_one();
        wait(waiting).await
    }

    /// Saves hard state that may be lost in a crash: it is written along with the next batch. What
    /// a recovery finds is never newer than the entries found with it.
    pub fn save_state_later(&self, key: u8, bytes: Bytes) -> Result<(), Fault> {
        let mut view = lock(&self.handle.shared.view);
        view.check()?;
        view.save_state_later(key, bytes);
        Ok(())
    }

    /// Drops the entries after `last_kept`, all that are held for `None`. Visible at return; what is
    /// appended next cannot become durable without it.
    pub fn truncate_after(&self, last_kept: Option<u64>) -> Result<(), Fault> {
        self.change(|view| view.truncate(last_kept.map_or(0, |index| index.saturating_add(1))))
    }

    /// Drops the entries up to and with `index`. When that is past the last one, the log is empty
    /// and goes on at `index + 1`. Files are freed once the purge is durable.
    pub fn purge_upto(&self, index: u64) -> Result<(), Fault> {
        self.change(|view| view.purge(index.saturating_add(1)))
    }

    fn change(&self, work: impl FnOnce(&mut View<D::File>)) -> Result<(), Fault> {
        let mut view = lock(&self.handle.shared.view);
        view.check()?;
        work(&mut view);
        drop(view);
        self.handle.shared.work.notify_one();
        Ok(())
    }

    /// Waits until everything that was called before is durable.
    pub async fn flush(&self) -> Result<(), Fault> {
        let (done, waiting) = completion();
        self.change(|view| view.enqueue(Operation::Barrier, Some(Box::new(done)), None))?;
        wait(waiting).await
    }

    /// Writes what is queued and ends the log for all its handles. At return its directory may be
    /// opened again.
    pub async fn close(self) -> Result<(), Fault> {
        lock(&self.handle.shared.view).closed = true;
        self.handle.shared.work.notify_one();
        let writer = lock(&self.handle.writer).take();
        if let Some(writer) = writer {
            let lost = |_| Fault::stopped("log", "its writer was cancelled");
            writer.await.map_err(lost)?;
        }
        self.fault().map_or(Ok(()), Err)
    }

    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Fault> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.handle.room_max);
        let room = self.handle.shared.room.clone().acquire_many_owned(bytes).await;
        room.map_err(|_| self.fault().unwrap_or_else(|| Fault::stopped("log", "it ended")))
    }
}

type Completed = oneshot::Receiver<Result<(), Fault>>;

fn completion() -> (impl FnOnce(Result<(), Fault>) + Send + 'static, Completed) {
    let (done, waiting) = oneshot::channel();
    // Nobody waits any more when the caller was dropped: then there is nobody to tell.
    (move |result| drop(done.send(result)), waiting)
}

async fn wait(waiting: Completed) -> Result<(), Fault> {
    waiting.await.map_err(|_| Fault::stopped("log", "its writer was cancelled"))?
}

fn segment_name(number: u64) -> String {
    format!("segment-{number:010}")
}

fn segment_number(name: &str) -> Option<u64> {
    name.strip_prefix("segment-")?.parse().ok()
}
