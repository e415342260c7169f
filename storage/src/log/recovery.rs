//! Opens a log: finds its segments, reads the records again, cuts a torn tail, refuses damage.
//! A log without any segment is damage too; only `make` begins a new one.
//!
//! The segments of a log are those with the highest generations that follow each other without a
//! gap. Where the walk over their records ends, two things can be true. Either the rest was never
//! acknowledged (it was in flight when the power went): it is cut, and what survived of it is
//! erased, so that it can never be taken for a part of what is written next. Or something durable
//! is missing: a later segment began, a valid record further on has a watermark at or past the
//! hole, or a file without a valid header holds records that belong behind it. That is refused, for
//! a log with a hole must not vote. Damage to the very last records, before any mark or other
//! record vouched for them, looks like a torn tail and is cut.

pub(super) mod inspect;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{Disk, DiskFile};
use crate::fault::Fault;
use crate::log::held::{Held, Location};
use crate::log::record::{self, Kind, Record, Walk};
use crate::log::segment::{Header, RECORDS_AT, Segment, Spare};
use crate::log::view::View;
use crate::log::writer::{Writer, prepare};
use crate::log::{LogConfig, Shared, segment_name, segment_number};

const WHAT: &str = "log segment";

/// Makes an empty log in `dir`, unless one is there.
pub(super) async fn make<D: Disk>(disk: &D, dir: &Path, config: &LogConfig) -> Result<(), Fault> {
    disk.create_dir(dir).await?;
    let _lock = disk.lock_within(&dir.join("lock"), config.lock_wait_ms).await?;
    let mut exists = false;
    for name in disk.list(dir).await? {
        exists |= segment_number(&name).is_some();
        if name.ends_with(".new") {
            disk.remove(&dir.join(name)).await?;
        }
    }
    if exists { Ok(()) } else { create(disk, dir, config).await }
}

/// Opens the log in `dir`. The writer is not yet running.
pub(super) async fn open<D: Disk>(
    disk: D,
    dir: &Path,
    config: LogConfig,
) -> Result<Writer<D>, Fault> {
    if !disk.exists(dir).await? {
        return Err(Fault::corrupt("log", dir, 0, "its directory is gone"));
    }
    let directory_lock = disk.lock_within(&dir.join("lock"), config.lock_wait_ms).await?;
    let files = Files::find(&disk, dir).await?;
    let mut replay = Replay::new(config.cache_bytes_max);
    let (path, end) = replay.segments(&files.chain).await?;
    let sequence = replay.sequence;
    for file in &files.headless {
        refuse_orphans(file, sequence).await?;
    }
    if let Some(index) = replay.held.first_unknown() {
        let detail = format!("entry {index} and its segment are missing");
        return Err(Fault::corrupt("log", dir, 0, detail));
    }
    let Some((active, mut full)) = split(files.chain) else {
        return Err(Fault::corrupt("log", dir, 0, "it has no segment"));
    };
    tracing::debug!(path = %path.display(), end, sequence, "recovered the log");
    // A process that died left names of files that are visible and not yet durable.
    disk.sync_dir(dir).await?;

    // Whether such a file was ever zeroed to its end is not known.
    for file in files.headless {
        disk.remove(file.path()).await?;
    }
    let mut spares = VecDeque::new();
    let oldest = replay.held.oldest_generation().unwrap_or(active.header.generation);
    while full.front().is_some_and(|segment| segment.header.generation < oldest) {
        spares.extend(full.pop_front().map(spare_of));
    }
    spares.extend(files.retired.into_iter().map(spare_of));
    spares.retain(|spare| spare.capacity == config.segment_bytes);

    let mut view =
        View::new(replay.held.clone(), replay.tail, replay.states.clone(), config.cache_bytes_max);
    for segment in full.iter().chain([&active]) {
        view.files.insert(segment.header.generation, segment.file.clone());
    }
    Ok(Writer {
        shared: Arc::new(Shared::new(view, &config)),
        disk,
        dir: dir.to_path_buf(),
        config,
        full,
        active,
        offset: end,
        sequence,
        synced: sequence - 1,
        marked: 0,
        stream: replay.held,
        states: replay.states,
        spares,
        preparing: None,
        next_file: files.next_file,
        _lock: directory_lock,
    })
}

fn spare_of<F>(segment: Segment<F>) -> Spare<F> {
    Spare { capacity: segment.header.capacity, file: segment.file }
}

type Split<F> = (Segment<F>, VecDeque<Segment<F>>);

fn split<F>(mut chain: Vec<Segment<F>>) -> Option<Split<F>> {
    let active = chain.pop()?;
    Some((active, chain.into()))
}

/// The files of a log's directory.
struct Files<F> {
    /// The segments that follow each other up to the newest, oldest first.
    chain: Vec<Segment<F>>,
    /// Older segments, with a gap behind them: retired.
    retired: Vec<Segment<F>>,
    /// Files without a valid header: never used, or torn when their new life began.
    headless: Vec<F>,
    next_file: u64,
}

impl<F: DiskFile> Files<F> {
    async fn find<D: Disk<File = F>>(disk: &D, dir: &Path) -> Result<Files<F>, Fault> {
        let mut numbers = Vec::new();
        for name in disk.list(dir).await? {
            match segment_number(&name) {
                Some(number) => numbers.push(number),
                None if name.ends_with(".new") => disk.remove(&dir.join(name)).await?,
                None => {}
            }
        }
        if numbers.is_empty() {
            return Err(Fault::corrupt("log", dir, 0, "it has no segment: it is gone"));
        }
        let next_file = numbers.iter().max().map_or(1, |last| last + 1);
        let mut segments: BTreeMap<u32, Segment<F>> = BTreeMap::new();
        let mut headless = Vec::new();
        for number in numbers {
            let path = dir.join(segment_name(number));
            let file = disk.open(&path).await?;
            let bytes = file.len().await?;
            let parsed = Header::parse(&file.read_at(0, RECORDS_AT).await?);
            let Some(header) = parsed.map_err(|fault| fault.met_in(&path))? else {
                headless.push(file);
                continue;
            };
            if header.capacity > bytes {
                let detail = format!("it has {bytes} bytes of {}", header.capacity);
                return Err(Fault::corrupt(WHAT, &path, bytes, detail));
            }
            if let Some(twin) = segments.insert(header.generation, Segment { file, header }) {
                let detail = format!("{} has the same generation", twin.path().display());
                return Err(Fault::corrupt(WHAT, &path, 0, detail));
            }
        }
        let mut chain: VecDeque<Segment<F>> = VecDeque::new();
        while let Some((generation, segment)) = segments.pop_last() {
            let follows = |next: &Segment<F>| next.header.generation == generation + 1;
            if chain.front().is_none_or(follows) {
                chain.push_front(segment);
            } else {
                segments.insert(generation, segment);
                break;
            }
        }
        if chain.is_empty() {
            // The first segment gets its name when its header is durable.
            return Err(Fault::corrupt("log", dir, 0, "no segment has a valid header"));
        }
        let retired = segments.into_values().collect();
        Ok(Files { chain: chain.into(), retired, headless, next_file })
    }
}

/// Makes the first segment of a new log. It gets its name only when it is whole, so a directory
/// with segments and none valid is a damaged log, never a new one.
async fn create<D: Disk>(disk: &D, dir: &Path, config: &LogConfig) -> Result<(), Fault> {
    let aside: PathBuf = dir.join("segment.new");
    let spare = prepare(disk.clone(), aside.clone(), config.segment_bytes).await?;
    spare.begin(1, 1).await?;
    disk.rename(&aside, &dir.join(segment_name(1))).await?;
    disk.sync_dir(dir).await
}

/// Refuses a file whose header is gone although records stand in it that belong behind the end:
/// a header is durable before its records are written, so it was damaged later.
async fn refuse_orphans<F: DiskFile>(file: &F, sequence: u64) -> Result<(), Fault> {
    let bytes = file.read_at(0, file.len().await? as usize).await?;
    match record::strays(&bytes, RECORDS_AT.min(bytes.len()), None, sequence).first() {
        None => Ok(()),
        Some((_, head)) => {
            let detail = format!(
                "its header is not valid, but it holds record {}, and the log ends before {sequence}",
                head.sequence
            );
            Err(Fault::corrupt(WHAT, file.path(), 0, detail))
        }
    }
}

/// What the records say, read one after the other.
struct Replay {
    held: Held,
    states: BTreeMap<u8, Bytes>,
    /// The last entries, for the cache.
    tail: VecDeque<Bytes>,
    tail_bytes: usize,
    tail_bytes_max: usize,
    sequence: u64,
}

impl Replay {
    fn new(tail_bytes_max: usize) -> Replay {
        Replay {
            held: Held::default(),
            states: BTreeMap::new(),
            tail: VecDeque::new(),
            tail_bytes: 0,
            tail_bytes_max,
            sequence: 0,
        }
    }

    /// Reads all segments; answers in which file the log ends and where.
    async fn segments<F: DiskFile>(
        &mut self,
        chain: &[Segment<F>],
    ) -> Result<(PathBuf, usize), Fault> {
        let mut end = (PathBuf::new(), RECORDS_AT);
        for (position, segment) in chain.iter().enumerate() {
            let Header { first_sequence, generation, capacity } = segment.header;
            if position == 0 {
                self.sequence = first_sequence;
            } else if first_sequence != self.sequence {
                let detail = format!(
                    "record {} is not valid, and generation {generation} begins with {first_sequence}",
                    self.sequence
                );
                return Err(Fault::corrupt(WHAT, &end.0, end.1 as u64, detail));
            }
            let bytes = segment.file.read_at(0, capacity as usize).await?;
            let offset = self.records(&bytes, segment, position == 0)?;
            end = (segment.path().to_path_buf(), offset);
            if position + 1 == chain.len() {
                self.cut(&bytes, segment, offset).await?;
            }
        }
        Ok(end)
    }

    /// Reads the records of one segment; answers where they end.
    fn records<F: DiskFile>(
        &mut self,
        bytes: &[u8],
        segment: &Segment<F>,
        oldest: bool,
    ) -> Result<usize, Fault> {
        let generation = segment.header.generation;
        let mut walk = Walk::new(bytes, RECORDS_AT, generation, self.sequence);
        let mut begins = true;
        for (offset, found) in walk.by_ref() {
            let location =
                Location { generation, offset: offset as u32, length: found.payload.len() as u32 };
            let corrupt = |detail| Fault::corrupt(WHAT, segment.path(), offset as u64, detail);
            self.record(&found, location, begins && oldest).map_err(corrupt)?;
            begins = false;
        }
        self.sequence = walk.sequence;
        if begins && oldest && generation > 1 {
            // Its predecessor is only given up once this one has begun with a checkpoint.
            let detail = "its first record is not valid and the segment before it is gone";
            return Err(Fault::corrupt(WHAT, segment.path(), RECORDS_AT as u64, detail));
        }
        Ok(walk.offset)
    }

    fn record(
        &mut self,
        found: &Record<'_>,
        location: Location,
        begins: bool,
    ) -> Result<(), String> {
        let index = found.head.index;
        let middle = begins && location.generation > 1;
        if middle && found.head.kind != Kind::Checkpoint {
            return Err("it does not begin with a checkpoint".to_owned());
        }
        match found.head.kind {
            Kind::Entry if index != self.held.next => {
                return Err(format!("entry {index} stands where {} belongs", self.held.next));
            }
            Kind::Entry => self.push(found.payload, location),
            Kind::State => {
                self.states.insert(index as u8, Bytes::copy_from_slice(found.payload));
            }
            Kind::Truncate => {
                self.held.truncate(index);
                self.trim();
            }
            Kind::Purge => {
                self.held.purge(index);
                self.trim();
            }
            Kind::Checkpoint => {
                let next = found.payload.try_into().map(u64::from_le_bytes);
                let next = next.map_err(|_| "its checkpoint is not a number".to_owned())?;
                if middle {
                    self.held = Held::unknown(index, next);
                } else if (self.held.first, self.held.next) != (index, next) {
                    return Err(format!(
                        "its checkpoint holds {index}..{next}, the segments before it {}..{}",
                        self.held.first, self.held.next
                    ));
                }
            }
            Kind::Mark => {}
        }
        Ok(())
    }

    fn push(&mut self, payload: &[u8], location: Location) {
        self.held.push(location);
        self.tail_bytes += payload.len();
        // A copy, for a slice would keep the whole segment in memory.
        self.tail.push_back(Bytes::copy_from_slice(payload));
        while self.tail_bytes > self.tail_bytes_max {
            match self.tail.pop_front() {
                Some(bytes) => self.tail_bytes -= bytes.len(),
                None => break,
            }
        }
    }

    /// After a truncation or a purge the tail no longer lines up with what is held; it is begun
    /// anew, for both are rare.
    fn trim(&mut self) {
        self.tail.clear();
        self.tail_bytes = 0;
    }

    /// Decides whether what lies behind the end was ever durable, erases what was not, and makes sure
    /// of what lies before it.
    async fn cut<F: DiskFile>(
        &self,
        bytes: &Bytes,
        segment: &Segment<F>,
        end: usize,
    ) -> Result<(), Fault> {
        let generation = segment.header.generation;
        let strays = record::strays(bytes, end, Some(generation), self.sequence);
        if let Some((_, head)) = strays.iter().find(|(_, head)| head.watermark >= self.sequence) {
            let detail = format!(
                "record {} is not valid, but record {} was written when it was durable",
                self.sequence, head.sequence
            );
            return Err(Fault::corrupt(WHAT, segment.path(), end as u64, detail));
        }
        for (offset, head) in &strays {
            tracing::info!(
                path = %segment.path().display(), offset, sequence = head.sequence,
                "erased a record that was never acknowledged"
            );
            let zeroes = Bytes::from_static(&[0; record::HEADER]);
            segment.file.write_at(*offset as u64, zeroes).await?;
        }
        // What was read may be visible and not durable: a process died before its sync, or the sync
        // failed, after which another one would cover nothing. Written again, it is covered.
        segment.file.write_at_synced(0, bytes.slice(..end)).await
    }
}
