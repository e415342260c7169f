//! Which entries a stream of records leaves, and where each stands.
//!
//! The same few rules serve the writer, which has just written the records, and recovery, which
//! reads them again: so what is recovered is what was held.

use std::collections::VecDeque;

/// Where the record of an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    /// The generation of its segment.
    pub(crate) generation: u32,
    /// Where in the file the record begins.
    pub(crate) offset: u32,
    /// Bytes of its payload.
    pub(crate) length: u32,
}

/// The entries from `first` up to but without `next`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    pub(crate) first: u64,
    pub(crate) next: u64,
    /// The places of the last entries held. Of all of them, except while a recovery that began in
    /// the middle has not yet met the purge that makes the earlier ones dispensable.
    locations: VecDeque<Location>,
}

impl Held {
    /// Begins in the middle of a stream: entries are held, but their places are unknown.
    pub(crate) fn unknown(first: u64, next: u64) -> Held {
        Held { first, next, locations: VecDeque::new() }
    }

    /// The index of the first entry whose place is known.
    fn base(&self) -> u64 {
        self.next - self.locations.len() as u64
    }

    /// Adds the entry `next`.
    pub(crate) fn push(&mut self, location: Location) {
        self.locations.push_back(location);
        self.next += 1;
    }

    /// Drops the entries from `next` on.
    pub(crate) fn truncate(&mut self, next: u64) {
        let next = next.clamp(self.first, self.next);
        let known = next.saturating_sub(self.base()) as usize;
        self.locations.truncate(known);
        self.next = next;
    }

    /// Drops the entries before `first`; when that is past the last one, the log goes on there.
    pub(crate) fn purge(&mut self, first: u64) {
        let first = first.max(self.first);
        if first >= self.next {
            self.locations.clear();
            self.next = first;
        } else {
            let known = first.saturating_sub(self.base()) as usize;
            self.locations.drain(..known);
        }
        self.first = first;
    }

    /// Where entry `index` stands.
    pub(crate) fn location(&self, index: u64) -> Option<Location> {
        let position = index.checked_sub(self.base())?;
        self.locations.get(position as usize).copied()
    }

    /// The oldest generation that an entry stands in.
    pub(crate) fn oldest_generation(&self) -> Option<u32> {
        self.locations.front().map(|location| location.generation)
    }

    /// The first entry that is held and whose place is not known, if there is one.
    pub(crate) fn first_unknown(&self) -> Option<u64> {
        (self.first < self.base()).then_some(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u32) -> Location {
        Location { generation: 1, offset, length: 0 }
    }

    fn offsets(held: &Held) -> Vec<Option<u32>> {
        let entries = held.first..held.next;
        entries.map(|index| held.location(index).map(|found| found.offset)).collect()
    }

    #[test]
    fn truncating_and_purging_leave_the_entries_between() {
        let mut held = Held::default();
        (0..10).for_each(|index| held.push(at(index)));
        held.truncate(8);
        held.purge(3);
        held.push(at(80));
        assert_eq!(offsets(&held), [3, 4, 5, 6, 7, 80].map(Some));
        held.truncate(0);
        assert_eq!((held.first, held.next), (3, 3));
        held.purge(20);
        held.push(at(7));
        assert_eq!((held.first, held.next, offsets(&held)), (20, 21, vec![Some(7)]));
    }

    #[test]
    fn a_stream_read_from_its_middle_knows_what_it_misses() {
        let mut held = Held::unknown(5, 9);
        held.push(at(9));
        assert_eq!(held.first_unknown(), Some(5));
        held.purge(7);
        assert_eq!((held.first_unknown(), held.location(8)), (Some(7), None));
        held.truncate(8);
        assert_eq!((held.first_unknown(), held.next), (Some(7), 8));
        held.purge(8);
        assert_eq!(held.first_unknown(), None);
    }
}
