//! Looks at a log that nobody has open, changes no byte, and tells what recovery would say.
//!
//! It judges by the same replay as recovery. What recovery would erase (records that were never
//! acknowledged) is no finding: it is counted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Replay, WHAT, refuse_orphans};
use crate::disk::{Disk, DiskFile};
use crate::fault::Fault;
use crate::finding::{Finding, Remedy};
use crate::log::held::{Held, Location};
use crate::log::record;
use crate::log::segment::{Header, RECORDS_AT, Segment};
use crate::log::segment_number;

/// What a file of a log is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentUse {
    /// It holds entries, or the newest records.
    Held,
    /// Everything in it was purged: it waits for its next life.
    Retired,
    /// It was never used.
    Spare,
}

/// One file of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentLook {
    /// Its name.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// The life it is in; 0 for one never used.
    pub generation: u32,
    /// What it is for.
    pub used: SegmentUse,
    /// Entries held that stand in it.
    pub entries: u64,
    /// Where its records end.
    pub end: u64,
}

/// A log as it lies on disk.
pub struct LogLook<D: Disk> {
    /// Its files by name.
    pub segments: Vec<SegmentLook>,
    /// The first index held.
    pub first: u64,
    /// The index after the last one.
    pub next: u64,
    /// Hard states by key.
    pub states: BTreeMap<u8, Bytes>,
    /// Records behind the end that were never acknowledged; the next start erases them.
    pub unacknowledged: usize,
    /// What is wrong.
    pub findings: Vec<Finding>,
    held: Held,
    files: BTreeMap<u32, D::File>,
}

/// The newest format of a segment that this release reads.
pub const SEGMENT_VERSION: u32 = crate::log::segment::VERSION;

impl<D: Disk> LogLook<D> {
    /// Looks at the log in `dir`. Damage is a finding.
    ///
    /// # Errors
    /// When the directory cannot be read at all.
    pub async fn at(disk: &D, dir: &Path) -> Result<LogLook<D>, Fault> {
        let mut look = LogLook {
            segments: Vec::new(),
            first: 0,
            next: 0,
            states: BTreeMap::new(),
            unacknowledged: 0,
            findings: Vec::new(),
            held: Held::default(),
            files: BTreeMap::new(),
        };
        let mut all: BTreeMap<u32, Segment<D::File>> = BTreeMap::new();
        let mut headless = Vec::new();
        for name in disk.list(dir).await? {
            if segment_number(&name).is_none() {
                continue;
            }
            let path = dir.join(&name);
            if let Some(segment) = look.file(disk, &path, name, &mut headless).await?
                && let Some(twin) = all.insert(segment.header.generation, segment)
            {
                look.damaged(&path, 0, format!("{} is of the same life", twin.path().display()));
            }
        }
        let chain = chain_of(all);
        if chain.is_empty() {
            look.damaged(dir, 0, "no segment has a valid header".to_owned());
            return Ok(look);
        }
        let mut replay = Replay::new(0);
        look.replay(&mut replay, &chain).await?;
        for file in &headless {
            if let Err(fault) = refuse_orphans(file, replay.sequence).await {
                look.findings.push(Finding::of(&fault, file.path(), Remedy::Rejoin));
            }
        }
        if let Some(index) = replay.held.first_unknown() {
            look.damaged(dir, 0, format!("entry {index} and its segment are missing"));
        }
        (look.first, look.next) = (replay.held.first, replay.held.next);
        (look.held, look.states) = (replay.held, replay.states);
        look.files =
            chain.into_iter().map(|segment| (segment.header.generation, segment.file)).collect();
        look.count();
        Ok(look)
    }

    fn damaged(&mut self, path: &Path, offset: u64, detail: String) {
        self.findings.push(Finding::new(path, offset, detail, Remedy::Rejoin));
    }

    /// Looks at the header of one file.
    async fn file(
        &mut self,
        disk: &D,
        path: &Path,
        name: String,
        headless: &mut Vec<D::File>,
    ) -> Result<Option<Segment<D::File>>, Fault> {
        let file = disk.open(path).await?;
        let bytes = file.len().await?;
        let mut row = SegmentLook {
            file: name,
            bytes,
            generation: 0,
            used: SegmentUse::Spare,
            entries: 0,
            end: 0,
        };
        let parsed = Header::parse(&file.read_at(0, RECORDS_AT).await?);
        let header = match parsed {
            Ok(header) => header,
            Err(fault) => {
                self.findings.push(Finding::of(&fault, path, Remedy::Upgrade));
                None
            }
        };
        let Some(header) = header else {
            headless.push(file);
            self.segments.push(row);
            return Ok(None);
        };
        (row.generation, row.used) = (header.generation, SegmentUse::Retired);
        self.segments.push(row);
        if header.capacity > bytes {
            self.damaged(path, bytes, format!("it has {bytes} bytes of {}", header.capacity));
            return Ok(None);
        }
        Ok(Some(Segment { file, header }))
    }

    /// Reads all records that follow each other.
    async fn replay(
        &mut self,
        replay: &mut Replay,
        chain: &[Segment<D::File>],
    ) -> Result<(), Fault> {
        let mut end = (PathBuf::new(), RECORDS_AT);
        for (position, segment) in chain.iter().enumerate() {
            let Header { first_sequence, generation, capacity } = segment.header;
            if position == 0 {
                replay.sequence = first_sequence;
            } else if first_sequence != replay.sequence {
                let missing = replay.sequence;
                let detail = format!(
                    "record {missing} is not valid, and life {generation} begins with {first_sequence}"
                );
                self.damaged(&end.0, end.1 as u64, detail);
                return Ok(());
            }
            let bytes = segment.file.read_at(0, capacity as usize).await?;
            let offset = match replay.records(&bytes, segment, position == 0) {
                Ok(offset) => offset,
                Err(fault) => {
                    self.findings.push(Finding::of(&fault, segment.path(), Remedy::Rejoin));
                    return Ok(());
                }
            };
            end = (segment.path().to_path_buf(), offset);
            if let Some(row) = self.segments.iter_mut().find(|row| row.generation == generation) {
                (row.used, row.end) = (SegmentUse::Held, offset as u64);
            }
            if position + 1 == chain.len() {
                self.behind(&bytes, segment, (offset, replay.sequence));
            }
        }
        Ok(())
    }

    /// Judges what lies behind the last record.
    fn behind(&mut self, bytes: &Bytes, segment: &Segment<D::File>, (end, sequence): (usize, u64)) {
        let strays = record::strays(bytes, end, Some(segment.header.generation), sequence);
        if let Some((_, head)) = strays.iter().find(|(_, head)| head.watermark >= sequence) {
            let detail = format!(
                "record {sequence} is not valid, but record {} was written when it was durable",
                head.sequence
            );
            self.damaged(segment.path(), end as u64, detail);
        } else {
            self.unacknowledged = strays.len();
        }
    }

    fn count(&mut self) {
        let mut entries: BTreeMap<u32, u64> = BTreeMap::new();
        for index in self.first..self.next {
            if let Some(location) = self.held.location(index) {
                *entries.entry(location.generation).or_default() += 1;
            }
        }
        for row in &mut self.segments {
            row.entries = entries.get(&row.generation).copied().unwrap_or_default();
        }
    }

    /// Where an entry stands: its file and offset.
    pub fn place(&self, index: u64) -> Option<(PathBuf, u64)> {
        let Location { generation, offset, .. } = self.held.location(index)?;
        Some((self.files.get(&generation)?.path().to_owned(), u64::from(offset)))
    }

    /// The bytes of an entry that is held.
    ///
    /// # Errors
    /// [`Fault::Missing`] when it is not, [`Fault::Corrupt`] when it changed since it was looked at.
    pub async fn entry(&self, index: u64) -> Result<Bytes, Fault> {
        let missing = Fault::Missing { index, first: self.first, next: self.next };
        let location = self.held.location(index).ok_or_else(|| missing.clone())?;
        let file = self.files.get(&location.generation).ok_or(missing)?;
        let length = record::HEADER + location.length as usize;
        let bytes = file.read_at(u64::from(location.offset), length).await?;
        let valid = record::parse(&bytes).is_some_and(|found| found.head.index == index);
        if !valid {
            let offset = u64::from(location.offset);
            let detail = format!("entry {index} is not valid");
            return Err(Fault::corrupt(WHAT, file.path(), offset, detail));
        }
        Ok(bytes.slice(record::HEADER..))
    }
}

/// The segments that follow each other up to the newest, oldest first.
fn chain_of<F>(mut all: BTreeMap<u32, Segment<F>>) -> Vec<Segment<F>> {
    let mut chain = Vec::new();
    let mut expected = None;
    while let Some((generation, segment)) = all.pop_last() {
        if expected.is_some_and(|expected| expected != generation) {
            break;
        }
        expected = generation.checked_sub(1);
        chain.push(segment);
    }
    chain.reverse();
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::simulated::{SimulatedDisk, SimulatedDiskConfig};
    use crate::log::{Log, LogConfig};

    const DIR: &str = "/log";

    fn config() -> LogConfig {
        LogConfig { segment_bytes: 4096, idle_mark_ms: 10, ..LogConfig::new() }
    }

    /// A log of several segments, its last record vouched for by a mark.
    async fn written() -> SimulatedDisk {
        let disk = SimulatedDisk::new(SimulatedDiskConfig::default());
        Log::make(&disk, Path::new(DIR), &config()).await.unwrap();
        let log = Log::open(disk.clone(), Path::new(DIR), config()).await.unwrap();
        log.save_state(1, Bytes::from_static(b"vote")).await.unwrap();
        for index in 0..60 {
            log.append_durably(vec![(index, Bytes::from(vec![index as u8; 150]))]).await.unwrap();
        }
        log.purge_upto(20).unwrap();
        log.flush().await.unwrap();
        log.close().await.unwrap();
        disk
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_log_is_told_as_it_is_and_left_alone() {
        let disk = written().await;
        let before = disk.list(Path::new(DIR)).await.unwrap();
        let look = LogLook::at(&disk, Path::new(DIR)).await.unwrap();
        assert_eq!((look.first, look.next, look.findings.len()), (21, 60, 0));
        assert_eq!(look.states[&1], Bytes::from_static(b"vote"));
        assert_eq!(look.segments.iter().map(|row| row.entries).sum::<u64>(), 39);
        assert_eq!(look.entry(33).await.unwrap(), Bytes::from(vec![33; 150]));
        assert!(matches!(look.entry(20).await, Err(Fault::Missing { .. })));
        assert_eq!(disk.list(Path::new(DIR)).await.unwrap(), before);
    }

    #[tokio::test(start_paused = true)]
    async fn it_says_of_every_flipped_bit_what_recovery_says() {
        let disk = written().await;
        let (mut refused, mut accepted) = (0, 0);
        for name in disk.list(Path::new(DIR)).await.unwrap() {
            if segment_number(&name).is_none() {
                continue;
            }
            for offset in (0..4096).step_by(13) {
                let path = Path::new(DIR).join(&name);
                let disk = disk.fork_durable();
                if disk.flip_bit(&path, offset, (offset % 8) as u8).is_err() {
                    continue;
                }
                let look = LogLook::at(&disk, Path::new(DIR)).await.unwrap();
                let opened = Log::open(disk, Path::new(DIR), config()).await;
                assert_eq!(look.findings.is_empty(), opened.is_ok(), "{name} {offset}");
                match opened {
                    Ok(log) => {
                        accepted += 1;
                        assert_eq!((look.first, look.next), (log.first_index(), log.next_index()));
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > 100 && accepted > 20, "{refused} {accepted}");
    }
}
