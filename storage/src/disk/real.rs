//! The operating system's files, behind a small pool of threads of its own.
//!
//! Syncs block for a tenth of a millisecond to seconds; the runtime, often a single thread, must
//! not. So every operation is a job for the pool: one queue, bounded, no lock held while a job
//! runs. Give the Raft log a `RealDisk` of its own, so that bulk writes (snapshots, artifacts) in
//! another one's queue are never ahead of a sync that a vote waits for.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use crate::disk::{Disk, DiskFile, parent};
use crate::fault::Fault;
use crate::lock;

/// How a [`RealDisk`] works.
#[derive(Debug, Clone)]
pub struct RealDiskConfig {
    /// Threads that run operations; that many syncs can be in flight at once. At least 1.
    pub threads: usize,
    /// Operations that may wait for a thread before further callers are held up.
    pub jobs_max: usize,
}

impl RealDiskConfig {
    /// Two threads, 1,024 waiting operations.
    pub fn new() -> RealDiskConfig {
        RealDiskConfig { threads: 2, jobs_max: 1024 }
    }
}

impl Default for RealDiskConfig {
    fn default() -> Self {
        RealDiskConfig::new()
    }
}

/// Files are for their owner only, whatever the umask: tenants' values are in them.
const PRIVATE: u32 = 0o600;

/// What a [`RealDisk`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RealDiskStatus {
    /// Operations that have ended since it was started.
    pub done: u64,
    /// Operations that wait for a thread.
    pub waiting: usize,
}

/// The operating system's file system.
#[derive(Clone)]
pub struct RealDisk {
    pool: Arc<Pool>,
    read_only: bool,
}

impl RealDisk {
    /// Starts the threads. They end when the last handle and the last open file are dropped.
    pub fn start(config: &RealDiskConfig) -> Result<RealDisk, Fault> {
        let shared = Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new() });
        // Built first: should a later thread not start, dropping it ends the earlier ones.
        let pool = Arc::new(Pool {
            shared: shared.clone(),
            slots: Semaphore::new(config.jobs_max.clamp(1, Semaphore::MAX_PERMITS)),
        });
        for number in 0..config.threads.max(1) {
            let shared = shared.clone();
            thread::Builder::new()
                .name(format!("disk-{number}"))
                .spawn(move || shared.work())
                .map_err(|source| Fault::io("start a thread for", Path::new("disk"), source))?;
        }
        Ok(RealDisk { pool, read_only: false })
    }

    /// The same, for somebody who only looks: files are opened for reading, and whatever would change
    /// something is refused. Needs no right to write.
    pub fn start_read_only(config: &RealDiskConfig) -> Result<RealDisk, Fault> {
        Ok(RealDisk { read_only: true, ..RealDisk::start(config)? })
    }

    fn check_writable(&self, attempted: &'static str, path: &Path) -> Result<(), Fault> {
        match self.read_only {
            true => Err(Fault::io(attempted, path, io::ErrorKind::ReadOnlyFilesystem.into())),
            false => Ok(()),
        }
    }

    /// Where it stands.
    pub fn status(&self) -> RealDiskStatus {
        let queue = lock(&self.pool.shared.queue);
        RealDiskStatus { done: queue.done, waiting: queue.jobs.len() }
    }

    async fn run<T: Send + 'static>(
        &self,
        attempted: &'static str,
        path: &Path,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let path = path.to_path_buf();
        self.pool
            .run(move || work(&path).map_err(|source| Fault::io(attempted, &path, source)))
            .await
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Dropped with the last handle, and then lets the threads go.
struct Pool {
    shared: Arc<Shared>,
    slots: Semaphore,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Jobs that have ended.
    done: u64,
    closed: bool,
}

impl Pool {
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let lost = |_| Fault::stopped("disk", "its threads are gone");
        let _slot = self
            .slots
            .acquire()
            .await
            .map_err(|_| Fault::stopped("disk", "its threads are gone"))?;
        let (answer, answered) = oneshot::channel();
        // A caller that went away no longer wants the answer; the work is done all the same.
        let job = Box::new(move || drop(answer.send(work())));
        lock(&self.shared.queue).jobs.push_back(job);
        self.shared.wake.notify_one();
        answered.await.map_err(lost)?
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn work(&self) {
        let mut ended = 0;
        while let Some(job) = self.next(ended) {
            job();
            ended = 1;
        }
    }

    /// The next job; counts the one that the thread has ended.
    fn next(&self, ended: u64) -> Option<Job> {
        let mut queue = lock(&self.queue);
        queue.done += ended;
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }
}

impl Disk for RealDisk {
    type File = RealFile;
    type Lock = RealLock;

    async fn create(&self, path: &Path) -> Result<RealFile, Fault> {
        self.check_writable("create", path)?;
        let create = |path: &Path| {
            OpenOptions::new().read(true).write(true).create_new(true).mode(PRIVATE).open(path)
        };
        let file = self.run("create", path, create).await?;
        Ok(RealFile { disk: self.clone(), file: Arc::new(file), path: path.into() })
    }

    async fn open(&self, path: &Path) -> Result<RealFile, Fault> {
        let write = !self.read_only;
        let open = move |path: &Path| OpenOptions::new().read(true).write(write).open(path);
        let file = self.run("open", path, open).await?;
        Ok(RealFile { disk: self.clone(), file: Arc::new(file), path: path.into() })
    }

    async fn exists(&self, path: &Path) -> Result<bool, Fault> {
        self.run("look up", path, |path| path.try_exists()).await
    }

    async fn list(&self, dir: &Path) -> Result<Vec<String>, Fault> {
        self.run("list", dir, |dir| {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(dir)? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort();
            Ok(names)
        })
        .await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), Fault> {
        self.check_writable("rename", from)?;
        let to = to.to_path_buf();
        self.run("rename", from, move |from| std::fs::rename(from, to)).await
    }

    async fn remove(&self, path: &Path) -> Result<(), Fault> {
        self.check_writable("remove", path)?;
        self.run("remove", path, |path| std::fs::remove_file(path)).await
    }

    async fn create_dir(&self, dir: &Path) -> Result<(), Fault> {
        self.check_writable("create directory", dir)?;
        self.run("create directory", dir, |dir| {
            let missing: Vec<_> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
            std::fs::create_dir_all(dir)?;
            for made in missing {
                File::open(parent(made))?.sync_all()?;
            }
            Ok(())
        })
        .await
    }

    async fn sync_dir(&self, dir: &Path) -> Result<(), Fault> {
        self.run("sync directory", dir, |dir| File::open(dir)?.sync_all()).await
    }

    async fn lock(&self, path: &Path) -> Result<RealLock, Fault> {
        let (path, write) = (path.to_path_buf(), !self.read_only);
        self.pool
            .run(move || {
                // A lock needs no right to write, but a file that is there.
                let file = OpenOptions::new()
                    .read(true)
                    .write(write)
                    .create(write)
                    .mode(PRIVATE)
                    .truncate(false)
                    .open(&path)
                    .map_err(|source| Fault::io("open", &path, source))?;
                match file.try_lock() {
                    Ok(()) => Ok(RealLock { _file: file }),
                    Err(std::fs::TryLockError::WouldBlock) => Err(Fault::Locked { path }),
                    Err(std::fs::TryLockError::Error(source)) => {
                        Err(Fault::io("lock", &path, source))
                    }
                }
            })
            .await
    }
}

/// A lock on a file of the operating system; let go when dropped.
pub struct RealLock {
    _file: File,
}

/// An open file of the operating system.
#[derive(Clone)]
pub struct RealFile {
    disk: RealDisk,
    file: Arc<File>,
    path: Arc<Path>,
}

/// Zeroes are written in pieces of this size.
const ZEROES: usize = 1 << 20;

impl RealFile {
    async fn run<T: Send + 'static>(
        &self,
        attempted: &'static str,
        work: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let (file, path) = (self.file.clone(), self.path.clone());
        self.disk
            .pool
            .run(move || work(&file).map_err(|source| Fault::io(attempted, &path, source)))
            .await
    }
}

impl DiskFile for RealFile {
    fn path(&self) -> &Path {
        &self.path
    }

    async fn len(&self) -> Result<u64, Fault> {
        self.run("measure", |file| Ok(file.metadata()?.len())).await
    }

    async fn read_at(&self, offset: u64, bytes: usize) -> Result<Bytes, Fault> {
        self.run("read", move |file| {
            let mut buffer = vec![0; bytes];
            let mut filled = 0;
            while filled < bytes {
                match file.read_at(&mut buffer[filled..], offset + filled as u64) {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            buffer.truncate(filled);
            Ok(Bytes::from(buffer))
        })
        .await
    }

    async fn write_at(&self, offset: u64, bytes: Bytes) -> Result<(), Fault> {
        self.run("write", move |file| file.write_all_at(&bytes, offset)).await
    }

    async fn sync(&self) -> Result<(), Fault> {
        self.run("sync", |file| file.sync_data()).await
    }

    async fn write_at_synced(&self, offset: u64, bytes: Bytes) -> Result<(), Fault> {
        self.run("write and sync", move |file| {
            file.write_all_at(&bytes, offset)?;
            file.sync_data()
        })
        .await
    }

    async fn set_len(&self, bytes: u64) -> Result<(), Fault> {
        self.run("set the length of", move |file| file.set_len(bytes)).await
    }

    async fn preallocate(&self, bytes: u64) -> Result<(), Fault> {
        self.run("preallocate", move |file| {
            file.set_len(bytes)?;
            let zeroes = vec![0; ZEROES.min(bytes as usize)];
            let mut offset = 0;
            while offset < bytes {
                let piece = (bytes - offset).min(ZEROES as u64) as usize;
                file.write_all_at(&zeroes[..piece], offset)?;
                offset += piece as u64;
            }
            file.sync_all()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_only_looks_reads_and_locks_and_changes_nothing() {
        let place = tempfile::tempdir().unwrap();
        let (file, lock) = (place.path().join("file"), place.path().join("lock"));
        std::fs::write(&file, "as it was").unwrap();
        let looking = RealDisk::start_read_only(&RealDiskConfig::new()).unwrap();
        assert!(looking.lock(&lock).await.is_err(), "a lock file was made");
        std::fs::write(&lock, "").unwrap();
        let held = looking.lock(&lock).await.unwrap();
        let other = RealDisk::start(&RealDiskConfig::new()).unwrap();
        assert!(matches!(other.lock(&lock).await, Err(Fault::Locked { .. })));
        drop(held);
        let open = looking.open(&file).await.unwrap();
        assert_eq!(open.read_at(0, 100).await.unwrap(), "as it was");
        assert!(open.write_at(0, Bytes::from("x")).await.is_err());
        assert!(open.set_len(0).await.is_err());
        assert!(looking.create(&place.path().join("new")).await.is_err());
        assert!(looking.remove(&file).await.is_err());
        assert!(looking.rename(&file, &place.path().join("moved")).await.is_err());
        assert!(looking.create_dir(&place.path().join("dir")).await.is_err());
        assert_eq!(looking.list(place.path()).await.unwrap(), ["file", "lock"]);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "as it was");
    }
}
