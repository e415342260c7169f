//! The one task that writes a log: takes what is queued, writes it, syncs once, tells everybody.
//!
//! While a sync is under way the queue grows, and the next batch is larger: group commit. A batch
//! is written and synced before the next one is begun, and within a batch a full segment is synced
//! before the next one's header is written; so only the newest segment can have a torn tail. The
//! first fault ends the task: after a failed sync nobody knows what the disk holds.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::disk::{Disk, DiskFile};
use crate::fault::Fault;
use crate::lock;
use crate::log::held::{Held, Location};
use crate::log::record::{self, Head, Kind};
use crate::log::segment::{RECORDS_AT, Segment, Spare};
use crate::log::view::{Operation, Work};
use crate::log::{LogConfig, Shared, segment_name};

pub(super) struct Writer<D: Disk> {
    pub(super) disk: D,
    pub(super) dir: PathBuf,
    pub(super) config: LogConfig,
    pub(super) shared: Arc<Shared<D::File>>,
    /// Full segments that are still needed, oldest first.
    pub(super) full: VecDeque<Segment<D::File>>,
    pub(super) active: Segment<D::File>,
    /// Where the next record goes in the active segment.
    pub(super) offset: usize,
    /// The sequence number of the next record.
    pub(super) sequence: u64,
    /// The newest durable record.
    pub(super) synced: u64,
    /// The newest record that a durable or at least written watermark covers.
    pub(super) marked: u64,
    /// What the stream of records written so far leaves.
    pub(super) stream: Held,
    pub(super) states: BTreeMap<u8, Bytes>,
    pub(super) spares: VecDeque<Spare<D::File>>,
    pub(super) preparing: Option<JoinHandle<Result<Spare<D::File>, Fault>>>,
    /// The number in the name of the next new file.
    pub(super) next_file: u64,
    /// Keeps others out of the directory while the task lives.
    pub(super) _lock: D::Lock,
}

impl<D: Disk> Writer<D> {
    /// Runs until the log is closed or broken.
    pub(super) async fn run(mut self) {
        loop {
            let (work, closed) = {
                let mut view = lock(&self.shared.view);
                (view.take(self.config.batch_bytes_max), view.closed)
            };
            if !work.is_empty() {
                match self.write(&work.operations).await {
                    Ok(locations) => self.finish(work, locations),
                    Err(fault) => return self.fail(&fault, work),
                }
            } else if closed {
                // The mark only spares the next opening a doubt: a fault here changes nothing.
                drop(self.mark().await);
                return;
            } else if let Err(fault) = self.wait().await {
                return self.fail(&fault, Work::default());
            }
        }
    }

    /// Waits for work. A log that has been quiet for a while gets a mark, so that damage to its
    /// last records is told from a torn tail.
    async fn wait(&mut self) -> Result<(), Fault> {
        let work = self.shared.work.notified();
        if self.marked >= self.synced {
            work.await;
            return Ok(());
        }
        let quiet = Duration::from_millis(self.config.idle_mark_ms);
        match tokio::time::timeout(quiet, work).await {
            Ok(()) => Ok(()),
            Err(_) => self.mark().await,
        }
    }

    fn finish(&mut self, work: Work, locations: Vec<Location>) {
        let done = {
            let mut view = lock(&self.shared.view);
            view.syncs += 1;
            let done = view.finish(work, locations);
            let oldest = view.written.oldest_generation();
            let oldest = oldest.unwrap_or(self.active.header.generation);
            while self.full.front().is_some_and(|full| full.header.generation < oldest) {
                if let Some(retired) = self.full.pop_front() {
                    view.files.remove(&retired.header.generation);
                    let capacity = retired.header.capacity;
                    self.spares.push_back(Spare { file: retired.file, capacity });
                }
            }
            done
        };
        for done in done {
            done(Ok(()));
        }
    }

    fn fail(self, fault: &Fault, work: Work) {
        tracing::error!(%fault, dir = %self.dir.display(), "the log stopped");
        let done = lock(&self.shared.view).fail(fault, work);
        self.shared.room.close();
        for done in done {
            done(Err(fault.clone()));
        }
    }

    /// Writes and syncs a batch; answers where its entries stand.
    async fn write(&mut self, batch: &[Operation]) -> Result<Vec<Location>, Fault> {
        let bytes = batch.iter().map(|operation| record::size(operation.bytes())).sum();
        let mut buffer = Vec::with_capacity(bytes);
        let mut locations = Vec::new();
        for operation in batch {
            let payload = match operation {
                Operation::Entry { bytes, .. } | Operation::State { bytes, .. } => bytes.clone(),
                Operation::Truncate { .. } | Operation::Purge { .. } => Bytes::new(),
                Operation::Barrier => continue,
            };
            self.begin_segment(&mut buffer);
            let size = record::size(payload.len());
            if self.offset + buffer.len() + size > self.active.header.capacity as usize {
                self.flush(&mut buffer).await?;
                self.roll(size).await?;
                self.begin_segment(&mut buffer);
            }
            let location = Location {
                generation: self.active.header.generation,
                offset: (self.offset + buffer.len()) as u32,
                length: payload.len() as u32,
            };
            let (kind, index) = self.follow(operation, location, &mut locations);
            self.put(&mut buffer, kind, index, &payload);
        }
        self.flush(&mut buffer).await?;
        Ok(locations)
    }

    /// Keeps `stream` and `states` level with the records.
    fn follow(
        &mut self,
        operation: &Operation,
        location: Location,
        locations: &mut Vec<Location>,
    ) -> (Kind, u64) {
        match operation {
            Operation::Entry { index, .. } => {
                debug_assert_eq!(*index, self.stream.next, "the view keeps entries in order");
                self.stream.push(location);
                locations.push(location);
                (Kind::Entry, *index)
            }
            Operation::State { key, bytes } => {
                self.states.insert(*key, bytes.clone());
                (Kind::State, u64::from(*key))
            }
            Operation::Truncate { next } => {
                self.stream.truncate(*next);
                (Kind::Truncate, *next)
            }
            Operation::Purge { first } => {
                self.stream.purge(*first);
                (Kind::Purge, *first)
            }
            Operation::Barrier => (Kind::Mark, 0),
        }
    }

    fn put(&mut self, buffer: &mut Vec<u8>, kind: Kind, index: u64, payload: &[u8]) {
        let (sequence, watermark) = (self.sequence, self.synced);
        let generation = self.active.header.generation;
        record::put(buffer, &Head { kind, index, sequence, generation, watermark }, payload);
        self.sequence += 1;
    }

    /// Writes and syncs what is in the buffer.
    async fn flush(&mut self, buffer: &mut Vec<u8>) -> Result<(), Fault> {
        if buffer.is_empty() {
            return Ok(());
        }
        let bytes = Bytes::from(std::mem::take(buffer));
        let (offset, length) = (self.offset, bytes.len());
        self.active.file.write_at_synced(offset as u64, bytes).await?;
        self.offset += length;
        self.marked = self.synced;
        self.synced = self.sequence - 1;
        Ok(())
    }

    /// Writes a record that only says how far the log is durable. Not synced: whether it survives
    /// does not matter to any promise.
    async fn mark(&mut self) -> Result<(), Fault> {
        if self.marked >= self.synced
            || self.offset == RECORDS_AT
            || self.offset + record::size(0) > self.active.header.capacity as usize
        {
            self.marked = self.synced;
            return Ok(());
        }
        let mut buffer = Vec::new();
        self.put(&mut buffer, Kind::Mark, 0, &[]);
        let length = buffer.len();
        self.active.file.write_at(self.offset as u64, Bytes::from(buffer)).await?;
        self.offset += length;
        self.marked = self.synced;
        Ok(())
    }

    /// Goes on in another file, in which a record of `size` bytes fits.
    async fn roll(&mut self, size: usize) -> Result<(), Fault> {
        if self.synced + 1 < self.sequence {
            // A mark may still be on its way; the next header claims everything before it.
            self.active.file.sync().await?;
            self.synced = self.sequence - 1;
        }
        let states = self.states.values().map(|state| record::size(state.len())).sum::<usize>();
        let needed = (RECORDS_AT + record::size(8) + states + size) as u64;
        let spare = self.spare(needed.max(self.config.segment_bytes)).await?;
        let generation = self.active.header.generation + 1;
        let segment = spare.begin(generation, self.sequence).await?;
        lock(&self.shared.view).files.insert(generation, segment.file.clone());
        self.full.push_back(std::mem::replace(&mut self.active, segment));
        self.offset = RECORDS_AT;
        self.shed_spares().await?;
        self.prepare();
        Ok(())
    }

    /// Begins a segment that has no record yet (be it new, or found like that by recovery) with all
    /// that is still true, so that no earlier file is needed for anything but its entries.
    fn begin_segment(&mut self, buffer: &mut Vec<u8>) {
        if self.offset + buffer.len() > RECORDS_AT {
            return;
        }
        let Held { first, next, .. } = self.stream;
        self.put(buffer, Kind::Checkpoint, first, &next.to_le_bytes());
        for (key, state) in self.states.clone() {
            self.put(buffer, Kind::State, u64::from(key), &state);
        }
    }

    /// A file of at least `needed` bytes: one used before, one prepared, or a new one.
    async fn spare(&mut self, needed: u64) -> Result<Spare<D::File>, Fault> {
        let fitting = |spares: &VecDeque<Spare<D::File>>| {
            spares.iter().position(|spare| spare.capacity >= needed)
        };
        if fitting(&self.spares).is_none()
            && let Some(preparing) = self.preparing.take()
        {
            let gone = |_| Fault::stopped("log", "the preparation of a segment was cancelled");
            self.spares.push_back(preparing.await.map_err(gone)??);
        }
        if let Some(spare) = fitting(&self.spares).and_then(|found| self.spares.remove(found)) {
            return Ok(spare);
        }
        let path = self.dir.join(segment_name(self.next_file));
        self.next_file += 1;
        prepare(self.disk.clone(), path, needed).await
    }

    /// Removes spare files beyond what is kept. Only ever right after a new segment's header is
    /// durable, and only files whose entries were purged before.
    async fn shed_spares(&mut self) -> Result<(), Fault> {
        let regular = self.config.segment_bytes;
        let mut kept = VecDeque::new();
        for spare in std::mem::take(&mut self.spares) {
            if spare.capacity == regular && kept.len() < self.config.spare_segments_max {
                kept.push_back(spare);
            } else {
                self.disk.remove(spare.file.path()).await?;
            }
        }
        self.spares = kept;
        Ok(())
    }

    /// Begins to zero a file for the next roll, when there is none.
    pub(super) fn prepare(&mut self) {
        if self.spares.is_empty() && self.preparing.is_none() {
            let path = self.dir.join(segment_name(self.next_file));
            self.next_file += 1;
            let work = prepare(self.disk.clone(), path, self.config.segment_bytes);
            self.preparing = Some(tokio::spawn(work));
        }
    }
}

/// A new file of zeroes whose name is durable.
pub(super) async fn prepare<D: Disk>(
    disk: D,
    path: PathBuf,
    capacity: u64,
) -> Result<Spare<D::File>, Fault> {
    let file = disk.create(&path).await?;
    file.preallocate(capacity).await?;
    disk.sync_dir(crate::disk::parent(&path)).await?;
    Ok(Spare { file, capacity })
}
