//! What callers see of a log, and what its writer still has to write.
//!
//! Everything a caller does is visible at once: it changes `first`, `next`, the cache and the
//! states here and joins the queue. The writer takes the queue in order and, when a batch is
//! durable, moves `written` forward. Entries that are not yet written are always in the cache; an
//! entry that has left the cache is held and written, so `written` knows its place.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::fault::Fault;
use crate::log::held::{Held, Location};

/// Called once with what became of an operation.
pub(super) type Done = Box<dyn FnOnce(Result<(), Fault>) + Send>;

/// What is to be written, in order.
pub(super) enum Operation {
    Entry {
        index: u64,
        bytes: Bytes,
    },
    State {
        key: u8,
        bytes: Bytes,
    },
    Truncate {
        next: u64,
    },
    Purge {
        first: u64,
    },
    /// Writes nothing; done when everything before it is.
    Barrier,
}

impl Operation {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Operation::Entry { bytes, .. } | Operation::State { bytes, .. } => bytes.len(),
            Operation::Truncate { .. } | Operation::Purge { .. } | Operation::Barrier => 0,
        }
    }
}

/// An operation in the queue.
struct Pending {
    ticket: u64,
    operation: Operation,
    done: Option<Done>,
    /// Its share of the queue's bytes, given back when it is written.
    room: Option<OwnedSemaphorePermit>,
}

/// Operations that are written and synced together.
#[derive(Default)]
pub(super) struct Work {
    pub(super) operations: Vec<Operation>,
    last_ticket: u64,
    done: Vec<Done>,
    room: Vec<OwnedSemaphorePermit>,
}

impl Work {
    pub(super) fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    fn add(&mut self, pending: Pending) {
        self.operations.push(pending.operation);
        self.last_ticket = pending.ticket;
        self.done.extend(pending.done);
        self.room.extend(pending.room);
    }
}

/// Where an entry is read from.
pub(super) enum Place<F> {
    Memory(Bytes),
    Disk(F, Location),
}

/// The state that callers and the writer share, under a lock that is never held across a wait.
pub(super) struct View<F> {
    pub(super) first: u64,
    pub(super) next: u64,
    /// The last entries, with the ticket of the operation that brought each.
    cache: VecDeque<(u64, Bytes)>,
    cache_bytes: usize,
    cache_bytes_max: usize,
    pub(super) states: BTreeMap<u8, Bytes>,
    /// States that may wait for the next batch.
    lazy: BTreeMap<u8, Bytes>,
    queue: VecDeque<Pending>,
    last_ticket: u64,
    written_ticket: u64,
    pub(super) written: Held,
    /// The files that `written` points into, by generation.
    pub(super) files: BTreeMap<u32, F>,
    pub(super) closed: bool,
    pub(super) fault: Option<Fault>,
    /// Batches made durable so far.
    pub(super) syncs: u64,
}

impl<F: Clone> View<F> {
    pub(super) fn new(
        held: Held,
        tail: VecDeque<Bytes>,
        states: BTreeMap<u8, Bytes>,
        cache_bytes_max: usize,
    ) -> View<F> {
        View {
            first: held.first,
            next: held.next,
            cache_bytes: tail.iter().map(Bytes::len).sum(),
            cache: tail.into_iter().map(|bytes| (0, bytes)).collect(),
            cache_bytes_max,
            states,
            lazy: BTreeMap::new(),
            queue: VecDeque::new(),
            last_ticket: 0,
            written_ticket: 0,
            written: held,
            files: BTreeMap::new(),
            closed: false,
            fault: None,
            syncs: 0,
        }
    }

    /// Refuses when the log has stopped.
    pub(super) fn check(&self) -> Result<(), Fault> {
        match (&self.fault, self.closed) {
            (Some(fault), _) => Err(fault.clone()),
            (None, true) => Err(Fault::stopped("log", "it was closed")),
            (None, false) => Ok(()),
        }
    }

    pub(super) fn enqueue(
        &mut self,
        operation: Operation,
        done: Option<Done>,
        room: Option<OwnedSemaphorePermit>,
    ) {
        self.last_ticket += 1;
        self.queue.push_back(Pending { ticket: self.last_ticket, operation, done, room });
    }

    /// Makes `entries` visible and queues them; they follow what is there. Without any, `done`
    /// waits for what was queued before.
    pub(super) fn append(
        &mut self,
        entries: Vec<(u64, Bytes)>,
        done: Done,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<(), Fault> {
        for (expected, (found, _)) in (self.next..).zip(&entries) {
            if expected != *found {
                return Err(Fault::Gap { expected, found: *found });
            }
        }
        for (index, bytes) in entries {
            self.next += 1;
            self.enqueue(Operation::Entry { index, bytes: bytes.clone() }, None, None);
            self.cache_bytes += bytes.len();
            self.cache.push_back((self.last_ticket, bytes));
        }
        self.enqueue(Operation::Barrier, Some(done), room);
        self.evict();
        Ok(())
    }

    pub(super) fn save_state(&mut self, key: u8, bytes: Bytes, done: Done) {
        self.lazy.remove(&key);
        self.states.insert(key, bytes.clone());
        self.enqueue(Operation::State { key, bytes }, Some(done), None);
    }

    pub(super) fn save_state_later(&mut self, key: u8, bytes: Bytes) {
        self.states.insert(key, bytes.clone());
        self.lazy.insert(key, bytes);
    }

    /// Drops the entries from `next` on.
    pub(super) fn truncate(&mut self, next: u64) {
        let next = next.max(self.first);
        if next >= self.next {
            return;
        }
        for _ in next..self.next {
            match self.cache.pop_back() {
                Some((_, bytes)) => self.cache_bytes -= bytes.len(),
                None => break,
            }
        }
        self.next = next;
        self.enqueue(Operation::Truncate { next }, None, None);
    }

    /// Drops the entries before `first`.
    pub(super) fn purge(&mut self, first: u64) {
        if first <= self.first {
            return;
        }
        self.next = self.next.max(first);
        let keep = self.next - first;
        while self.cache.len() as u64 > keep {
            if let Some((_, bytes)) = self.cache.pop_front() {
                self.cache_bytes -= bytes.len();
            }
        }
        self.first = first;
        self.enqueue(Operation::Purge { first }, None, None);
    }

    /// Where entry `index`, which must be held, is read from.
    pub(super) fn place(&self, index: u64) -> Option<Place<F>> {
        let cached_from = self.next - self.cache.len() as u64;
        if index >= cached_from {
            let (_, bytes) = self.cache.get((index - cached_from) as usize)?;
            return Some(Place::Memory(bytes.clone()));
        }
        let location = self.written.location(index)?;
        Some(Place::Disk(self.files.get(&location.generation)?.clone(), location))
    }

    /// Bytes of entry `index`, if it is held.
    pub(super) fn length(&self, index: u64) -> Option<usize> {
        let cached_from = self.next - self.cache.len() as u64;
        match index.checked_sub(cached_from) {
            Some(position) => self.cache.get(position as usize).map(|(_, bytes)| bytes.len()),
            None => self.written.location(index).map(|location| location.length as usize),
        }
    }

    /// Lets the oldest entries leave the cache, as far as they can be read from the disk.
    fn evict(&mut self) {
        while self.cache_bytes > self.cache_bytes_max {
            match self.cache.front() {
                Some((ticket, bytes)) if *ticket <= self.written_ticket => {
                    self.cache_bytes -= bytes.len();
                    self.cache.pop_front();
                }
                _ => return,
            }
        }
    }

    /// The next operations to write, together about `bytes_max` payload bytes at most. States that
    /// could wait go along when nothing queued is left behind, so that an older value never follows
    /// a newer one.
    pub(super) fn take(&mut self, bytes_max: usize) -> Work {
        let mut work = Work::default();
        let mut bytes = 0;
        while let Some(pending) = self.queue.front() {
            bytes += pending.operation.bytes();
            if bytes > bytes_max && !work.is_empty() {
                return work;
            }
            self.queue.pop_front().into_iter().for_each(|pending| work.add(pending));
        }
        if !work.is_empty() || self.closed {
            for (key, bytes) in std::mem::take(&mut self.lazy) {
                self.enqueue(Operation::State { key, bytes }, None, None);
            }
            self.queue.drain(..).for_each(|pending| work.add(pending));
        }
        work
    }

    /// Takes note that `work` is durable, its entries at `locations`. Answers whom to tell.
    pub(super) fn finish(&mut self, work: Work, locations: Vec<Location>) -> Vec<Done> {
        let mut locations = locations.into_iter();
        for operation in work.operations {
            match operation {
                Operation::Entry { .. } => locations.next().into_iter().for_each(|location| {
                    self.written.push(location);
                }),
                Operation::Truncate { next } => self.written.truncate(next),
                Operation::Purge { first } => self.written.purge(first),
                Operation::State { .. } | Operation::Barrier => {}
            }
        }
        self.written_ticket = work.last_ticket;
        self.evict();
        work.done
    }

    /// Takes note that nothing will be written any more. Answers whom to tell.
    pub(super) fn fail(&mut self, fault: &Fault, mut work: Work) -> Vec<Done> {
        self.fault.get_or_insert_with(|| fault.clone());
        self.queue.drain(..).for_each(|pending| work.add(pending));
        work.done
    }
}
