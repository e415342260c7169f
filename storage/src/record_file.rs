//! A small truth in one file: checksummed records, appended durably, rewritten when it has grown.
//!
//! An agent keeps its orders and reports in one: nobody can rebuild them while it is offline. The
//! bytes are those of a log segment (`log::segment`, `log::record`): a header, then records. After
//! each sync a mark is written behind the last record (and overwritten by the next), so that damage
//! to what was acknowledged is refused while a torn, unacknowledged tail is cut. A rewrite happens
//! aside: after a power cut the file has the old values or the new ones.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::disk::{Disk, DiskFile, parent};
use crate::fault::Fault;
use crate::log::record::{self, Head, Kind, Walk};
use crate::log::segment::{Header, RECORDS_AT};

const WHAT: &str = "record file";

/// The limits of a [`RecordFile`].
#[derive(Debug, Clone)]
pub struct RecordFileConfig {
    /// Bytes of the file. An append past it is refused: rewrite it with what is still true first.
    pub bytes_max: u64,
}

impl RecordFileConfig {
    /// 64 MiB.
    pub fn new() -> RecordFileConfig {
        RecordFileConfig { bytes_max: 64 << 20 }
    }
}

impl Default for RecordFileConfig {
    fn default() -> Self {
        RecordFileConfig::new()
    }
}

/// An open record file, with one writer.
pub struct RecordFile<D: Disk> {
    disk: D,
    path: PathBuf,
    config: RecordFileConfig,
    file: D::File,
    generation: u32,
    /// Where the next record goes.
    offset: u64,
    /// Its sequence number; every record before it is durable.
    sequence: u64,
    /// Set while an operation is under way and left so when it fails or its future is dropped.
    broken: Option<Fault>,
}

impl<D: Disk> RecordFile<D> {
    /// Opens the file, or makes an empty one; answers the values that it holds, in order. The
    /// directory must exist. [`Fault::Corrupt`] when something acknowledged is damaged.
    pub async fn open(
        disk: D,
        path: &Path,
        config: RecordFileConfig,
    ) -> Result<(RecordFile<D>, Vec<Bytes>), Fault> {
        if !disk.exists(path).await? {
            let header = Header { generation: 1, first_sequence: 1, capacity: 0 };
            let (file, offset, sequence) = write_aside(&disk, path, header, &[]).await?;
            let file = RecordFile {
                disk,
                path: path.to_path_buf(),
                config,
                file,
                generation: 1,
                offset,
                sequence,
                broken: None,
            };
            return Ok((file, Vec::new()));
        }
        let file = disk.open(path).await?;
        let bytes = file.read_at(0, file.len().await? as usize).await?;
        let parsed = Header::parse(&bytes).map_err(|fault| fault.met_in(path))?;
        let Some(header) = parsed else {
            return Err(Fault::corrupt(WHAT, path, 0, "its header is not valid"));
        };
        let mut values = Vec::new();
        let mut walk = Walk::new(&bytes, RECORDS_AT, header.generation, header.first_sequence);
        let mut end = (walk.offset, walk.sequence);
        for (offset, found) in walk.by_ref() {
            // A mark is overwritten by the record that follows it.
            if found.head.kind == Kind::Entry {
                values.push(Bytes::copy_from_slice(found.payload));
                end = (offset + record::size(found.payload.len()), found.head.sequence + 1);
            }
        }
        let strays = record::strays(&bytes, walk.offset, Some(header.generation), walk.sequence);
        if let Some((_, head)) = strays.iter().find(|(_, head)| head.watermark >= walk.sequence) {
            let detail = format!(
                "record {} is not valid, but record {} was written when it was durable",
                walk.sequence, head.sequence
            );
            return Err(Fault::corrupt(WHAT, path, walk.offset as u64, detail));
        }
        let (offset, sequence) = (end.0 as u64, end.1);
        // Cuts what was never acknowledged; what is left is written again, because a sync that
        // failed or never came may have left it visible and not durable.
        file.set_len(offset).await?;
        file.write_at_synced(0, bytes.slice(..end.0)).await?;
        disk.sync_dir(parent(path)).await?;
        let path = path.to_path_buf();
        let generation = header.generation;
        let file =
            RecordFile { disk, path, config, file, generation, offset, sequence, broken: None };
        file.mark().await?;
        Ok((file, values))
    }

    /// Bytes of the file: what a caller watches to decide when to rewrite.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Appends a value; durable at return. After a fault, and after its future was dropped, the
    /// file must be opened anew.
    pub async fn append(&mut self, value: Bytes) -> Result<(), Fault> {
        self.append_all(vec![value]).await
    }

    /// Appends values with one sync. After a power cut during it any beginning of them may be
    /// there.
    pub async fn append_all(&mut self, values: Vec<Bytes>) -> Result<(), Fault> {
        let mut buffer = Vec::new();
        let sequence = put_values(&mut buffer, self.generation, self.sequence, &values)?;
        let bytes = self.offset + buffer.len() as u64;
        if bytes > self.config.bytes_max {
            return Err(Fault::TooLarge { what: WHAT, bytes, bytes_max: self.config.bytes_max });
        }
        self.begin()?;
        let result = self.write(buffer, sequence).await;
        self.end(result)
    }

    async fn write(&mut self, buffer: Vec<u8>, sequence: u64) -> Result<(), Fault> {
        let bytes = buffer.len() as u64;
        self.file.write_at_synced(self.offset, Bytes::from(buffer)).await?;
        self.offset += bytes;
        self.sequence = sequence;
        self.mark().await
    }

    /// Says behind the last record that it is durable. Not synced: it only has to get there some
    /// time, and the next record takes its place.
    async fn mark(&self) -> Result<(), Fault> {
        let mark = mark(self.generation, self.sequence);
        self.file.write_at(self.offset, Bytes::from(mark)).await
    }

    /// Makes `values` the whole content, durable at return.
    pub async fn rewrite(&mut self, values: Vec<Bytes>) -> Result<(), Fault> {
        self.begin()?;
        let generation = self.generation + 1;
        let header = Header { generation, first_sequence: self.sequence, capacity: 0 };
        let written = write_aside(&self.disk, &self.path, header, &values).await;
        let result = written.map(|(file, offset, sequence)| {
            (self.file, self.generation) = (file, generation);
            (self.offset, self.sequence) = (offset, sequence);
        });
        self.end(result)
    }

    fn begin(&mut self) -> Result<(), Fault> {
        if let Some(fault) = &self.broken {
            return Err(fault.clone());
        }
        self.broken = Some(Fault::stopped(WHAT, "an operation on it was not finished"));
        Ok(())
    }

    fn end(&mut self, result: Result<(), Fault>) -> Result<(), Fault> {
        self.broken = result.clone().err();
        result
    }
}

/// Puts a record for each value; answers the next sequence number.
fn put_values(
    buffer: &mut Vec<u8>,
    generation: u32,
    mut sequence: u64,
    values: &[Bytes],
) -> Result<u64, Fault> {
    let watermark = sequence - 1;
    for value in values {
        if value.len() > record::PAYLOAD_MAX {
            let (bytes, bytes_max) = (value.len() as u64, record::PAYLOAD_MAX as u64);
            return Err(Fault::TooLarge { what: "record", bytes, bytes_max });
        }
        let head = Head { kind: Kind::Entry, index: 0, sequence, generation, watermark };
        record::put(buffer, &head, value);
        sequence += 1;
    }
    Ok(sequence)
}

/// A record of sequence number `sequence` that vouches for all before it.
fn mark(generation: u32, sequence: u64) -> Vec<u8> {
    let watermark = sequence - 1;
    let head = Head { kind: Kind::Mark, index: 0, sequence, generation, watermark };
    let mut bytes = Vec::new();
    record::put(&mut bytes, &head, &[]);
    bytes
}

/// Writes a whole file beside `path` and gives it that name.
async fn write_aside<D: Disk>(
    disk: &D,
    path: &Path,
    header: Header,
    values: &[Bytes],
) -> Result<(D::File, u64, u64), Fault> {
    let mut buffer = header.to_bytes().to_vec();
    buffer.resize(RECORDS_AT, 0);
    let sequence = put_values(&mut buffer, header.generation, header.first_sequence, values)?;
    let offset = buffer.len() as u64;
    // The file gets its name only when all of it is durable, so the mark is true from the start.
    buffer.extend_from_slice(&mark(header.generation, sequence));
    disk.replace_file(path, Bytes::from(buffer)).await?;
    Ok((disk.open(path).await?, offset, sequence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;
    use crate::disk::real::{RealDisk, RealDiskConfig};
    use crate::disk::simulated::{Injection, Loss, SimulatedDisk, SimulatedDiskConfig};

    const PATH: &str = "/memory";

    async fn open(disk: &SimulatedDisk) -> Result<(RecordFile<SimulatedDisk>, Vec<Bytes>), Fault> {
        RecordFile::open(disk.clone(), Path::new(PATH), RecordFileConfig::new()).await
    }

    fn value(dice: &mut Dice, number: u64) -> Bytes {
        Bytes::from(format!("{number}:{}", "v".repeat(dice.below(700) as usize)))
    }

    fn disk(seed: u64) -> SimulatedDisk {
        SimulatedDisk::new(SimulatedDiskConfig { seed, ..SimulatedDiskConfig::default() })
    }

    #[tokio::test]
    async fn values_come_back_in_order_on_the_real_disk() {
        let place = tempfile::tempdir().unwrap();
        let disk = RealDisk::start(&RealDiskConfig::new()).unwrap();
        let (path, config) = (place.path().join("memory"), RecordFileConfig { bytes_max: 4096 });
        let (mut file, found) =
            RecordFile::open(disk.clone(), &path, config.clone()).await.unwrap();
        assert!(found.is_empty());
        file.append(Bytes::from_static(b"one")).await.unwrap();
        file.append_all(vec![Bytes::from_static(b""), Bytes::from_static(b"three")]).await.unwrap();
        let (mut file, found) =
            RecordFile::open(disk.clone(), &path, config.clone()).await.unwrap();
        assert_eq!(found, ["one", "", "three"]);
        let large = file.append(Bytes::from(vec![0; 4096])).await;
        assert!(matches!(large, Err(Fault::TooLarge { .. })));
        file.rewrite(vec![Bytes::from_static(b"three")]).await.unwrap();
        file.append(Bytes::from_static(b"four")).await.unwrap();
        let (_, found) = RecordFile::open(disk, &path, config).await.unwrap();
        assert_eq!(found, ["three", "four"]);
    }

    #[tokio::test(start_paused = true)]
    async fn power_cut_keeps_every_acknowledged_value_and_invents_none() {
        for seed in 0..400 {
            let mut dice = Dice::new(seed);
            let mut disk = disk(seed);
            // What the file may hold, from what was last acknowledged to what was last tried.
            let mut possible: Vec<Vec<Bytes>> = vec![Vec::new()];
            for _life in 0..5 {
                disk.inject(Injection::PowerOffAfter(1 + dice.below(60)));
                if let Ok((mut file, found)) = open(&disk).await {
                    assert!(possible.contains(&found), "seed {seed}: {found:?} of {possible:?}");
                    let mut held = found;
                    possible = vec![held.clone()];
                    for number in 0..50 {
                        let acknowledged = if dice.below(8) == 0 {
                            held.drain(..held.len() / 2);
                            possible.push(held.clone());
                            file.rewrite(held.clone()).await.is_ok()
                        } else {
                            let values: Vec<_> =
                                (0..dice.below(3)).map(|_| value(&mut dice, number)).collect();
                            for value in &values {
                                held.push(value.clone());
                                possible.push(held.clone());
                            }
                            file.append_all(values).await.is_ok()
                        };
                        if !acknowledged {
                            break;
                        }
                        possible = vec![held.clone()];
                    }
                }
                disk = disk.crash(Loss::any(&mut dice));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_flipped_bit_of_an_acknowledged_value_is_refused() {
        let disk = disk(1);
        let (mut file, _) = open(&disk).await.unwrap();
        for number in 0..3 {
            file.append(Bytes::from(format!("value {number}, in 24 bytes!"))).await.unwrap();
        }
        let values = vec![
            Bytes::from_static(b"rewritten, and so short."),
            Bytes::from_static(b"24 bytes, so no padding."),
        ];
        file.rewrite(values).await.unwrap();
        file.append(Bytes::from_static(b"one more, at its end....")).await.unwrap();
        // The mark is on its way without a sync; it arrives.
        file.file.sync().await.unwrap();
        for offset in (0..64).chain(RECORDS_AT as u64..file.bytes()) {
            let damaged = disk.fork_durable();
            damaged.flip_bit(Path::new(PATH), offset, (offset % 8) as u8).unwrap();
            let opened = open(&damaged).await;
            assert!(matches!(opened, Err(Fault::Corrupt { .. })), "byte {offset}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_sync_stops_the_file_until_it_is_opened_anew() {
        let disk = disk(1);
        let (mut file, _) = open(&disk).await.unwrap();
        disk.inject(Injection::FailNextSync);
        assert!(file.append(Bytes::from_static(b"one")).await.is_err());
        assert!(file.append(Bytes::from_static(b"two")).await.is_err());
        let (mut file, found) = open(&disk).await.unwrap();
        file.append(Bytes::from_static(b"three")).await.unwrap();
        // Whatever was found once is there for good.
        let (_, again) = open(&disk.crash(Loss::Unsynced)).await.unwrap();
        assert_eq!(again, [found, vec![Bytes::from_static(b"three")]].concat());
    }
}
