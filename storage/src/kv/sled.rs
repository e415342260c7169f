//! The real [`Kv`]: sled 0.34.7, one tree, and a sync that deserves the name.
//!
//! sled's own flush ends in `sync_file_range`, which survives no power cut; so one thread of ours
//! flushes and then syncs sled's files itself, once for everybody who is waiting. sled starts
//! threads of its own and reads the disk on the caller's; it never runs in a simulation. A store
//! that is torn does not open (or panics while opening, which is caught): see
//! [`open_or_set_aside`](crate::kv::open_or_set_aside).

use std::collections::BTreeSet;
use std::fs::File;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::disk::{LOCK_PAUSE, parent};
use crate::fault::Fault;
use crate::kv::{Batch, Kv, KvHome, Row, Show};
use crate::lock;

/// Where a store lives and what it may use.
#[derive(Debug, Clone)]
pub struct SledConfig {
    /// Its directory.
    pub path: PathBuf,
    /// Memory for cached pages. sled keeps roughly to it.
    pub cache_bytes: u64,
    /// Callers that may wait for a sync; one more is refused with [`Fault::Stopped`].
    pub sync_waiters_max: usize,
    /// Stores set aside that are kept for inspection; older ones are deleted.
    pub aside_max: usize,
    /// Milliseconds to wait for the lock of the directory. sled's own threads may hold the files for a
    /// moment after the last handle to a store is gone.
    pub lock_wait_ms: u64,
}

impl SledConfig {
    /// 16 MiB of cache, 4,096 waiting callers, one store kept aside, 2 s of waiting for the lock.
    pub fn new(path: impl Into<PathBuf>) -> SledConfig {
        SledConfig {
            path: path.into(),
            cache_bytes: 16 << 20,
            sync_waiters_max: 4096,
            aside_max: 1,
            lock_wait_ms: 2_000,
        }
    }
}

/// The directory of a sled store.
#[derive(Debug, Clone)]
pub struct SledHome {
    config: SledConfig,
}

impl SledHome {
    /// The place that `config` names; nothing is touched yet.
    pub fn new(config: SledConfig) -> SledHome {
        SledHome { config }
    }

    /// Earlier stores that were set aside, oldest first, with their numbers.
    fn asides(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let Some(name) = self.config.path.file_name() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let prefix = format!("{}.aside-", name.to_string_lossy());
        let mut asides = Vec::new();
        for entry in std::fs::read_dir(parent(&self.config.path))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(number) = name.strip_prefix(&prefix).and_then(|rest| rest.parse().ok()) {
                asides.push((number, entry.path()));
            }
        }
        asides.sort();
        Ok(asides)
    }

    fn move_aside(&self) -> io::Result<String> {
        let mut asides = self.asides()?;
        let number = asides.last().map_or(1, |(number, _)| number + 1);
        let mut aside = self.config.path.clone().into_os_string();
        aside.push(format!(".aside-{number}"));
        let aside = PathBuf::from(aside);
        std::fs::rename(&self.config.path, &aside)?;
        File::open(parent(&self.config.path))?.sync_all()?;
        asides.push((number, aside.clone()));
        let surplus = asides.len().saturating_sub(self.config.aside_max.max(1));
        for (_, old) in asides.iter().take(surplus) {
            std::fs::remove_dir_all(old)?;
        }
        Ok(aside.display().to_string())
    }
}

impl KvHome for SledHome {
    type Kv = SledKv;

    fn place(&self) -> PathBuf {
        self.config.path.clone()
    }

    fn open(&self) -> Result<SledKv, Fault> {
        let path = &self.config.path;
        std::fs::create_dir_all(path).map_err(|source| Fault::io("create", path, source))?;
        let until = Instant::now() + Duration::from_millis(self.config.lock_wait_ms);
        loop {
            match self.open_once() {
                Err(Fault::Locked { .. }) if Instant::now() < until => {
                    thread::park_timeout(LOCK_PAUSE);
                }
                opened => return opened,
            }
        }
    }

    fn set_aside(&self) -> Result<String, Fault> {
        self.move_aside().map_err(|source| Fault::io("set aside", &self.config.path, source))
    }
}

impl SledHome {
    fn open_once(&self) -> Result<SledKv, Fault> {
        let path = &self.config.path;
        let config = ::sled::Config::new()
            .path(path)
            .cache_capacity(self.config.cache_bytes)
            .flush_every_ms(None);
        let database = match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(database)) => database,
            Ok(Err(error)) => return Err(open_fault(path, error)),
            Err(_) => {
                return Err(Fault::corrupt("store", path, 0, "the engine panicked opening it"));
            }
        };
        SledKv::start(database, &self.config)
    }
}

/// Tells a damaged store from a machine that does not let us in.
fn open_fault(path: &Path, error: ::sled::Error) -> Fault {
    let ::sled::Error::Io(source) = error else {
        return Fault::corrupt("store", path, 0, error.to_string());
    };
    if source.to_string().contains("could not acquire lock") {
        return Fault::Locked { path: path.to_path_buf() };
    }
    match source.kind() {
        // What sled says when bytes are missing or wrong.
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::InvalidData
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::NotFound
        | io::ErrorKind::Other => Fault::corrupt("store", path, 0, source.to_string()),
        _ => Fault::io("open", path, source),
    }
}

/// A sled store.
#[derive(Clone)]
pub struct SledKv {
    tree: ::sled::Tree,
    flusher: Arc<Flusher>,
}

impl SledKv {
    fn start(database: ::sled::Db, config: &SledConfig) -> Result<SledKv, Fault> {
        let tree = ::sled::Tree::clone(&database);
        let shared = Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new() });
        let work = Work { database, path: config.path.clone(), synced_blobs: BTreeSet::new() };
        let queue = shared.clone();
        let thread = thread::Builder::new()
            .name("kv-sync".to_owned())
            .spawn(move || queue.work(work))
            .map_err(|source| Fault::io("start a thread for", &config.path, source))?;
        let flusher = Arc::new(Flusher {
            shared,
            thread: Some(thread),
            waiters_max: config.sync_waiters_max,
            path: config.path.clone(),
        });
        Ok(SledKv { tree, flusher })
    }

    fn fault(&self, attempted: &'static str) -> impl Fn(::sled::Error) -> Fault {
        let path = self.flusher.path.clone();
        move |error| engine_fault(attempted, &path, error)
    }
}

fn engine_fault(attempted: &'static str, path: &Path, error: ::sled::Error) -> Fault {
    match error {
        ::sled::Error::Corruption { .. } => Fault::corrupt("store", path, 0, error.to_string()),
        other => Fault::io(attempted, path, other.into()),
    }
}

fn row((key, value): (::sled::IVec, ::sled::IVec)) -> Row {
    (key.to_vec(), Bytes::copy_from_slice(&value))
}

impl Kv for SledKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        let value = self.tree.get(key).map_err(self.fault("read"))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn range(&self, from: &[u8], to: &[u8], rows_max: usize) -> Result<Vec<Row>, Fault> {
        if from >= to {
            return Ok(Vec::new());
        }
        let rows = self.tree.range(from..to).take(rows_max);
        rows.map(|found| found.map(row).map_err(self.fault("read"))).collect()
    }

    fn visit(&self, from: &[u8], to: &[u8], show: &mut Show<'_>) -> Result<(), Fault> {
        if from >= to {
            return Ok(());
        }
        for found in self.tree.range(from..to) {
            let (key, value) = found.map_err(self.fault("read"))?;
            if show(&key, &value)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Row>, Fault> {
        if from >= to {
            return Ok(None);
        }
        let found = self.tree.range(from..to).next_back();
        found.map(|found| found.map(row).map_err(self.fault("read"))).transpose()
    }

    fn apply(&self, batch: Batch) -> Result<(), Fault> {
        let mut changes = ::sled::Batch::default();
        for (key, value) in batch.into_changes() {
            match value {
                Some(value) => changes.insert(key, &*value),
                None => changes.remove(key),
            }
        }
        self.tree.apply_batch(changes).map_err(self.fault("write"))
    }

    fn sync(&self) -> impl Future<Output = Result<(), Fault>> + Send + 'static {
        // Joins the queue now, not when the future first runs: it covers what was applied before.
        let waiting = self.flusher.enqueue();
        async move {
            let gone = |_| Fault::stopped("store", "its sync thread is gone");
            waiting?.await.map_err(gone)?
        }
    }
}

type Answer = oneshot::Sender<Result<(), Fault>>;

/// Dropped with the last handle; waits for the thread, so that the directory is free afterwards.
struct Flusher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    waiters_max: usize,
    path: PathBuf,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    waiters: Vec<Answer>,
    closed: bool,
}

impl Flusher {
    fn enqueue(&self) -> Result<oneshot::Receiver<Result<(), Fault>>, Fault> {
        let mut queue = lock(&self.shared.queue);
        if queue.waiters.len() >= self.waiters_max {
            return Err(Fault::stopped("store", "too many callers wait for a sync"));
        }
        let (answer, waiting) = oneshot::channel();
        queue.waiters.push(answer);
        self.shared.wake.notify_one();
        Ok(waiting)
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(path = %self.path.display(), "the sync thread of a store panicked");
        }
    }
}

impl Shared {
    fn work(&self, mut work: Work) {
        loop {
            let waiters = {
                let mut queue = lock(&self.queue);
                while queue.waiters.is_empty() && !queue.closed {
                    queue =
                        self.wake.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
                }
                std::mem::take(&mut queue.waiters)
            };
            if waiters.is_empty() {
                return;
            }
            let answer = work.sync();
            for waiter in waiters {
                // A caller that went away no longer wants the answer.
                drop(waiter.send(answer.clone()));
            }
        }
    }
}

/// What the sync thread owns.
struct Work {
    database: ::sled::Db,
    path: PathBuf,
    /// Blob files are written once and never changed.
    synced_blobs: BTreeSet<PathBuf>,
}

impl Work {
    fn sync(&mut self) -> Result<(), Fault> {
        self.database.flush().map_err(|error| engine_fault("flush", &self.path, error))?;
        self.sync_files().map_err(|source| Fault::io("sync", &self.path, source))
    }

    /// Syncs every file that a recovery reads. A sync through any handle covers the whole file.
    fn sync_files(&mut self) -> io::Result<()> {
        let mut present = BTreeSet::new();
        let blobs = self.path.join("blobs");
        if blobs.is_dir() {
            for entry in std::fs::read_dir(&blobs)? {
                let blob = entry?.path();
                if !self.synced_blobs.contains(&blob) {
                    sync_if_there(&blob)?;
                }
                present.insert(blob);
            }
            if present != self.synced_blobs {
                File::open(&blobs)?.sync_all()?;
            }
        }
        self.synced_blobs = present;
        File::open(self.path.join("db"))?.sync_data()?;
        sync_if_there(&self.path.join("conf"))?;
        File::open(&self.path)?.sync_all()
    }
}

/// sled removes blobs and snapshots from its own threads at any moment.
fn sync_if_there(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(file) => file.sync_data(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::*;
    use crate::dice::Dice;
    use crate::kv::open_or_set_aside;

    fn home(place: &tempfile::TempDir) -> SledHome {
        SledHome::new(SledConfig::new(place.path().join("kv")))
    }

    fn put(kv: &SledKv, key: &str, value: Vec<u8>) {
        let mut batch = Batch::new();
        batch.put(key, value);
        kv.apply(batch).unwrap();
    }

    #[tokio::test]
    async fn a_store_in_use_is_locked_and_not_set_aside() {
        let place = tempfile::tempdir().unwrap();
        let kv = home(&place).open().unwrap();
        put(&kv, "a", b"1".to_vec());
        let mut impatient = SledConfig::new(place.path().join("kv"));
        impatient.lock_wait_ms = 50;
        let fault = open_or_set_aside(&SledHome::new(impatient)).err().unwrap();
        assert!(matches!(fault, Fault::Locked { .. }), "{fault}");
        drop(kv);
        let opened = open_or_set_aside(&home(&place)).unwrap();
        assert_eq!(opened.kv.get(b"a").unwrap().unwrap(), "1");
    }

    #[tokio::test]
    async fn whatever_the_damage_there_is_a_store_afterwards() {
        for seed in 0..8 {
            let place = tempfile::tempdir().unwrap();
            let kv = home(&place).open().unwrap();
            for number in 0..200 {
                put(&kv, &format!("key {number}"), vec![number as u8; 300]);
            }
            kv.sync().await.unwrap();
            drop(kv);
            let mut dice = Dice::new(seed);
            // Its settings are checked as a whole; damage among its pages it may not even notice.
            let (name, writes) = if seed < 4 { ("conf", 3) } else { ("db", 20) };
            let path = place.path().join("kv").join(name);
            let mut file = File::options().write(true).open(&path).unwrap();
            let bytes = file.metadata().unwrap().len();
            for _ in 0..writes {
                file.seek(SeekFrom::Start(dice.below(bytes.min(60_000)))).unwrap();
                file.write_all(&dice.roll().to_le_bytes()).unwrap();
            }
            drop(file);
            let opened = open_or_set_aside(&home(&place)).unwrap();
            assert!(opened.set_aside.is_some() || name == "db", "damaged settings opened");
            if let Some((fault, moved_to)) = opened.set_aside {
                assert!(fault.is_corrupt() && Path::new(&moved_to).is_dir());
                assert!(opened.kv.range(b"", b"z", 9).unwrap().is_empty());
            }
            put(&opened.kv, "after", b"1".to_vec());
            opened.kv.sync().await.unwrap();
        }
    }

    #[tokio::test]
    async fn only_the_newest_stores_set_aside_are_kept() {
        let place = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            drop(home(&place).open().unwrap());
            home(&place).set_aside().unwrap();
        }
        let asides = home(&place).asides().unwrap();
        assert_eq!(asides.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3]);
    }
}
