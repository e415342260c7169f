//! Snapshot files: written aside in checksummed chunks, synced, renamed; whole or not there.
//!
//! ```text
//!  snapshot-00000000000000000042-<id>
//! +-------------------+---------------------+---------------+-- - -+---------------------+
//! | mustrsnp          | checkpoint record   | entry record  |      | mark record         |
//! | version u32, crc  | index: order        | index: 0      | ...  | index: chunks       |
//! |                   | payload: meta       | payload: chunk|      | payload: bytes, u64 |
//! +-------------------+---------------------+---------------+-- - -+---------------------+
//! ```
//! The records are those of the log. `order` says which snapshot is newer (the applied index, say)
//! and `id` is whatever the caller calls it; both are in the name, the meta bytes are the caller's.
//! A snapshot of a newer format is refused and stays where it is.
//! A damaged snapshot is refused and set aside (`<name>.damaged`) for somebody to look at; the next
//! older one is taken. Readers and writers hold one chunk in memory.

mod reader;

use std::path::PathBuf;

use bytes::Bytes;

use crate::disk::{Disk, DiskFile};
use crate::fault::Fault;
use crate::log::record::{self, Head, Kind};

pub use crate::snapshot::reader::SnapshotReader;

const WHAT: &str = "snapshot";
const MAGIC: &[u8; 8] = b"mustrsnp";
/// The format of a snapshot that is written, and the newest that is read.
pub const VERSION: u32 = 1;
const PREAMBLE: usize = 16;
const GENERATION: u32 = 1;
const ID_MAX: usize = 128;

/// The limits of a [`Snapshots`].
#[derive(Debug, Clone)]
pub struct SnapshotConfig {
    /// Bytes of a chunk as it is written; the last one is shorter.
    pub chunk_bytes: usize,
    /// Bytes after which a writer syncs, so that the last sync is not a long one.
    pub sync_bytes: u64,
    /// Largest chunk and largest meta that a reader accepts.
    pub chunk_bytes_max: usize,
}

impl SnapshotConfig {
    /// Chunks of 256 KiB, a sync every 8 MiB, chunks of at most 16 MiB read.
    pub fn new() -> SnapshotConfig {
        SnapshotConfig { chunk_bytes: 256 << 10, sync_bytes: 8 << 20, chunk_bytes_max: 16 << 20 }
    }
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        SnapshotConfig::new()
    }
}

/// The name of a snapshot. Newer ones are greater.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotName {
    /// Which of two snapshots is newer.
    pub order: u64,
    /// The caller's name for it: 1 to 128 of `A-Z a-z 0-9 _ -`.
    pub id: String,
}

impl SnapshotName {
    /// The name of its file.
    pub fn file(&self) -> String {
        format!("snapshot-{:020}-{}", self.order, self.id)
    }

    fn parse(file: &str) -> Option<SnapshotName> {
        let (order, id) = file.strip_prefix("snapshot-")?.split_once('-')?;
        let name = SnapshotName { order: order.parse().ok()?, id: id.to_owned() };
        (name.is_valid() && name.file() == file).then_some(name)
    }

    fn is_valid(&self) -> bool {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !self.id.is_empty() && self.id.len() <= ID_MAX && self.id.bytes().all(fits)
    }
}

/// A directory of snapshots.
#[derive(Clone)]
pub struct Snapshots<D> {
    disk: D,
    dir: PathBuf,
    config: SnapshotConfig,
}

impl<D: Disk> Snapshots<D> {
    /// Opens or makes the directory and removes what unfinished writers left in it.
    pub async fn open(
        disk: D,
        dir: impl Into<PathBuf>,
        config: SnapshotConfig,
    ) -> Result<Snapshots<D>, Fault> {
        let dir = dir.into();
        disk.create_dir(&dir).await?;
        for name in disk.list(&dir).await? {
            if name.ends_with(".new") {
                disk.remove(&dir.join(name)).await?;
            }
        }
        // A process that died after a rename left a name that is visible and not yet durable.
        disk.sync_dir(&dir).await?;
        Ok(Snapshots { disk, dir, config })
    }

    /// A directory as it lies there, for reading only: nothing is made or removed.
    pub fn as_they_lie(disk: D, dir: impl Into<PathBuf>, config: SnapshotConfig) -> Snapshots<D> {
        Snapshots { disk, dir: dir.into(), config }
    }

    /// The snapshots there are, newest first. They were whole once.
    pub async fn list(&self) -> Result<Vec<SnapshotName>, Fault> {
        let files = self.disk.list(&self.dir).await?;
        let mut names: Vec<_> = files.iter().filter_map(|file| SnapshotName::parse(file)).collect();
        names.sort_by(|left, right| right.cmp(left));
        Ok(names)
    }

    /// Begins a snapshot. Nothing has its name until [`SnapshotWriter::finish`]. A name that is
    /// taken is replaced.
    pub async fn create(
        &self,
        name: SnapshotName,
        meta: Bytes,
    ) -> Result<SnapshotWriter<D>, Fault> {
        if !name.is_valid() {
            let detail = format!("{:?} is no snapshot id", name.id);
            return Err(Fault::Codec { attempted: "encode", detail });
        }
        too_large("snapshot meta", meta.len(), self.config.chunk_bytes_max)?;
        let aside = self.dir.join(format!("{}.new", name.file()));
        if self.disk.exists(&aside).await? {
            self.disk.remove(&aside).await?;
        }
        let file = self.disk.create(&aside).await?;
        let mut writer = SnapshotWriter {
            snapshots: self.clone(),
            file,
            name,
            aside,
            buffer: Vec::new(),
            offset: 0,
            synced: 0,
            chunks: 0,
            bytes: 0,
        };
        writer.begin(&meta).await?;
        Ok(writer)
    }

    /// Opens a snapshot for reading. Its chunks are checked one by one as they are read.
    pub async fn reader(&self, name: &SnapshotName) -> Result<SnapshotReader<D::File>, Fault> {
        let file = self.disk.open(&self.dir.join(name.file())).await?;
        SnapshotReader::open(file, name.clone(), self.config.chunk_bytes_max).await
    }

    /// The newest snapshot that is whole, read through once and ready to be read again. Damaged
    /// ones are set aside, and their faults answered, newest first.
    pub async fn newest_whole(
        &self,
    ) -> Result<(Option<SnapshotReader<D::File>>, Vec<Fault>), Fault> {
        let mut faults = Vec::new();
        for name in self.list().await? {
            match self.verified(&name).await {
                Ok(reader) => return Ok((Some(reader), faults)),
                Err(fault) if fault.is_corrupt() => {
                    tracing::warn!(%fault, order = name.order, id = name.id, "set a snapshot aside");
                    self.set_aside(&name).await?;
                    faults.push(fault);
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok((None, faults))
    }

    async fn verified(&self, name: &SnapshotName) -> Result<SnapshotReader<D::File>, Fault> {
        let mut reader = self.reader(name).await?;
        while reader.next_chunk().await?.is_some() {}
        reader.rewind();
        Ok(reader)
    }

    /// Moves a snapshot out of the way, to `<name>.damaged`.
    pub async fn set_aside(&self, name: &SnapshotName) -> Result<(), Fault> {
        let path = self.dir.join(name.file());
        let aside = self.dir.join(format!("{}.damaged", name.file()));
        self.disk.rename(&path, &aside).await?;
        self.disk.sync_dir(&self.dir).await
    }

    /// Removes all but the newest `keep` snapshots, and all but the newest `keep` set aside. Open
    /// readers go on.
    pub async fn retain(&self, keep: usize) -> Result<(), Fault> {
        let mut files: Vec<_> =
            self.list().await?.iter().skip(keep).map(|name| name.file()).collect();
        let mut damaged = self.disk.list(&self.dir).await?;
        damaged.retain(|file| file.ends_with(".damaged"));
        files.extend(damaged.into_iter().rev().skip(keep));
        for file in files {
            self.disk.remove(&self.dir.join(file)).await?;
        }
        self.disk.sync_dir(&self.dir).await
    }
}

fn too_large(what: &'static str, bytes: usize, bytes_max: usize) -> Result<(), Fault> {
    match bytes <= bytes_max {
        true => Ok(()),
        false => Err(Fault::TooLarge { what, bytes: bytes as u64, bytes_max: bytes_max as u64 }),
    }
}

/// A snapshot being written. Dropped unfinished, it leaves a `.new` file that the next opening
/// removes.
pub struct SnapshotWriter<D: Disk> {
    snapshots: Snapshots<D>,
    file: D::File,
    name: SnapshotName,
    aside: PathBuf,
    buffer: Vec<u8>,
    offset: u64,
    synced: u64,
    chunks: u64,
    bytes: u64,
}

impl<D: Disk> SnapshotWriter<D> {
    async fn begin(&mut self, meta: &[u8]) -> Result<(), Fault> {
        let mut preamble = Vec::with_capacity(PREAMBLE);
        preamble.extend_from_slice(MAGIC);
        preamble.extend_from_slice(&VERSION.to_le_bytes());
        let checksum = crc32fast::hash(&preamble);
        preamble.extend_from_slice(&checksum.to_le_bytes());
        self.offset = PREAMBLE as u64;
        self.file.write_at(0, Bytes::from(preamble)).await?;
        let order = self.name.order;
        self.put(Kind::Checkpoint, order, 1, meta).await
    }

    async fn put(
        &mut self,
        kind: Kind,
        index: u64,
        sequence: u64,
        payload: &[u8],
    ) -> Result<(), Fault> {
        let head = Head { kind, index, sequence, generation: GENERATION, watermark: 0 };
        let mut bytes = Vec::with_capacity(record::size(payload.len()));
        record::put(&mut bytes, &head, payload);
        let length = bytes.len() as u64;
        self.file.write_at(self.offset, Bytes::from(bytes)).await?;
        self.offset += length;
        if self.offset - self.synced >= self.snapshots.config.sync_bytes {
            self.file.sync().await?;
            self.synced = self.offset;
        }
        Ok(())
    }

    /// Appends bytes; how they are cut into chunks is not for the reader to know.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        let chunk_bytes = self.snapshots.config.chunk_bytes.max(1);
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(chunk_bytes - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == chunk_bytes {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.buffer);
        self.put(Kind::Entry, self.chunks, self.chunks + 2, &chunk).await?;
        self.chunks += 1;
        self.bytes += chunk.len() as u64;
        self.buffer = chunk;
        self.buffer.clear();
        Ok(())
    }

    /// Removes what was written.
    pub async fn discard(self) -> Result<(), Fault> {
        self.snapshots.disk.remove(&self.aside).await
    }

    /// Gives the snapshot its name; durable at return.
    pub async fn finish(mut self) -> Result<SnapshotName, Fault> {
        self.flush().await?;
        let bytes = self.bytes.to_le_bytes();
        self.put(Kind::Mark, self.chunks, self.chunks + 2, &bytes).await?;
        self.file.sync().await?;
        let path = self.snapshots.dir.join(self.name.file());
        self.snapshots.disk.rename(&self.aside, &path).await?;
        self.snapshots.disk.sync_dir(&self.snapshots.dir).await?;
        Ok(self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::dice::Dice;
    use crate::disk::real::{RealDisk, RealDiskConfig};
    use crate::disk::simulated::{Injection, Loss, SimulatedDisk, SimulatedDiskConfig};

    const DIR: &str = "/snapshots";

    fn config() -> SnapshotConfig {
        SnapshotConfig { chunk_bytes: 1000, sync_bytes: 3000, chunk_bytes_max: 1 << 16 }
    }

    fn name(order: u64) -> SnapshotName {
        SnapshotName { order, id: format!("T1-{order}") }
    }

    fn content(order: u64) -> Vec<u8> {
        (0..order * 1700 % 9000).map(|position| (position * order) as u8).collect()
    }

    async fn write<D: Disk>(snapshots: &Snapshots<D>, order: u64) -> Result<(), Fault> {
        let mut writer = snapshots.create(name(order), Bytes::from(format!("{order}"))).await?;
        for piece in content(order).chunks(700) {
            writer.write(piece).await?;
        }
        writer.finish().await.map(drop)
    }

    async fn read<F: DiskFile>(mut reader: SnapshotReader<F>) -> Result<Vec<u8>, Fault> {
        let mut content = Vec::new();
        while let Some(chunk) = reader.next_chunk().await? {
            content.extend_from_slice(&chunk);
        }
        Ok(content)
    }

    #[tokio::test]
    async fn the_newest_is_read_back_and_older_ones_go_on_the_real_disk() {
        let place = tempfile::tempdir().unwrap();
        let disk = RealDisk::start(&RealDiskConfig::new()).unwrap();
        let snapshots = Snapshots::open(disk, place.path().join("s"), config()).await.unwrap();
        for order in [3, 11, 7] {
            write(&snapshots, order).await.unwrap();
        }
        assert_eq!(snapshots.list().await.unwrap(), [name(11), name(7), name(3)]);
        snapshots.retain(2).await.unwrap();
        assert_eq!(snapshots.list().await.unwrap(), [name(11), name(7)]);
        let (reader, faults) = snapshots.newest_whole().await.unwrap();
        let reader = reader.unwrap();
        assert_eq!(
            (reader.name(), reader.meta().as_ref(), faults.len()),
            (&name(11), &b"11"[..], 0)
        );
        assert_eq!(read(reader).await.unwrap(), content(11));
        let bad = SnapshotName { order: 1, id: "../x".to_owned() };
        assert!(snapshots.create(bad, Bytes::new()).await.is_err());
    }

    fn disk(seed: u64) -> SimulatedDisk {
        SimulatedDisk::new(SimulatedDiskConfig { seed, ..SimulatedDiskConfig::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn power_cut_leaves_whole_snapshots_and_every_finished_one() {
        for seed in 0..400 {
            let mut dice = Dice::new(seed);
            let mut disk = disk(seed);
            let mut finished = Vec::new();
            for life in 0..4 {
                disk.inject(Injection::PowerOffAfter(1 + dice.below(100)));
                if let Ok(snapshots) = Snapshots::open(disk.clone(), DIR, config()).await {
                    for order in life * 5 + 1..life * 5 + 6 {
                        match write(&snapshots, order).await {
                            Ok(()) => finished.push(name(order)),
                            Err(_) => break,
                        }
                    }
                }
                disk = disk.crash(Loss::any(&mut dice));
                let snapshots = Snapshots::open(disk.clone(), DIR, config()).await.unwrap();
                let found = snapshots.list().await.unwrap();
                assert!(finished.iter().all(|name| found.contains(name)), "seed {seed}");
                for name in found {
                    let reader = snapshots.reader(&name).await.unwrap();
                    assert_eq!(read(reader).await.unwrap(), content(name.order), "seed {seed}");
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_flipped_bit_sets_a_snapshot_aside_for_the_one_before_it() {
        let disk = disk(1);
        let snapshots = Snapshots::open(disk.clone(), DIR, config()).await.unwrap();
        write(&snapshots, 1).await.unwrap();
        write(&snapshots, 2).await.unwrap();
        let path = Path::new(DIR).join(name(2).file());
        let bytes = disk.open(&path).await.unwrap().len().await.unwrap();
        let mut refused = 0;
        for offset in 0..bytes {
            let disk = disk.fork_durable();
            disk.flip_bit(&path, offset, (offset % 8) as u8).unwrap();
            let snapshots = Snapshots::open(disk, DIR, config()).await.unwrap();
            let (reader, faults) = snapshots.newest_whole().await.unwrap();
            let reader = reader.unwrap();
            let order = reader.name().order;
            assert_eq!(read(reader).await.unwrap(), content(order));
            assert_eq!(faults.len(), usize::from(order == 1), "byte {offset}");
            refused += faults.len() as u64;
        }
        // All but the few bytes of padding between records.
        assert!(refused + 7 * 6 > bytes, "{refused} of {bytes}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_of_a_newer_format_is_refused_by_name_and_stays_where_it_is() {
        let disk = disk(1);
        let snapshots = Snapshots::open(disk.clone(), DIR, config()).await.unwrap();
        write(&snapshots, 1).await.unwrap();
        write(&snapshots, 2).await.unwrap();
        let path = Path::new(DIR).join(name(2).file());
        let file = disk.open(&path).await.unwrap();
        let mut preamble = file.read_at(0, PREAMBLE).await.unwrap().to_vec();
        assert_eq!(
            preamble, b"mustrsnp\x01\0\0\0\xa1\x4c\x09\xb2",
            "the first format's first bytes"
        );
        preamble[8] = 2;
        let checksum = crc32fast::hash(&preamble[..12]);
        preamble[12..].copy_from_slice(&checksum.to_le_bytes());
        file.write_at_synced(0, Bytes::from(preamble)).await.unwrap();
        let fault = snapshots.newest_whole().await.err().unwrap();
        let said = fault.to_string();
        for word in [path.to_str().unwrap(), "version 2", "up to 1", "upgrade muster"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert_eq!(snapshots.list().await.unwrap(), [name(2), name(1)]);
    }
}
