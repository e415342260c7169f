//! Reading entries: recent ones from memory, the others from their segments.
//!
//! Entries that stand close together are read in one go. Nothing keeps a segment from being used
//! again while it is being read: the record tells, for it has another generation then, and the
//! entry is reported as gone.

use std::path::Path;

use bytes::Bytes;

use crate::disk::{Disk, DiskFile};
use crate::fault::Fault;
use crate::lock;
use crate::log::Log;
use crate::log::held::Location;
use crate::log::record;
use crate::log::view::Place;

/// Bytes that one read from the disk spans at most, unless an entry is larger.
const READ_BYTES_MAX: usize = 1 << 20;

/// Entries and where each is read from.
type Places<F> = Vec<(u64, Place<F>)>;

impl<D: Disk> Log<D> {
    /// The entries from `from` up to but without `to`, in order; fewer when their payloads exceed
    /// `bytes_max`, but at least one. [`Fault::Missing`] when one of them is not held.
    pub async fn read(
        &self,
        from: u64,
        to: u64,
        bytes_max: u64,
    ) -> Result<Vec<(u64, Bytes)>, Fault> {
        let places = self.places(from, to, bytes_max)?;
        let mut entries = Vec::with_capacity(places.len());
        let mut places = places.into_iter().peekable();
        while let Some((index, place)) = places.next() {
            let (file, location) = match place {
                Place::Memory(bytes) => {
                    entries.push((index, bytes));
                    continue;
                }
                Place::Disk(file, location) => (file, location),
            };
            let mut run = vec![(index, location)];
            while let Some((_, Place::Disk(_, next))) = places.peek()
                && next.generation == location.generation
                && span(location, *next) <= READ_BYTES_MAX
            {
                if let Some((index, Place::Disk(_, next))) = places.next() {
                    run.push((index, next));
                }
            }
            self.read_run(&file, &run, &mut entries).await?;
        }
        Ok(entries)
    }

    fn places(&self, from: u64, to: u64, bytes_max: u64) -> Result<Places<D::File>, Fault> {
        let view = lock(&self.handle.shared.view);
        let mut places = Vec::new();
        let mut bytes = 0;
        for index in from..to {
            let missing = Fault::Missing { index, first: view.first, next: view.next };
            if index < view.first || index >= view.next {
                return Err(missing);
            }
            let place = view.place(index).ok_or(missing)?;
            bytes += match &place {
                Place::Memory(bytes) => bytes.len() as u64,
                Place::Disk(_, location) => u64::from(location.length),
            };
            if bytes > bytes_max && !places.is_empty() {
                break;
            }
            places.push((index, place));
        }
        Ok(places)
    }

    /// Reads entries that stand close together in one file.
    async fn read_run(
        &self,
        file: &D::File,
        run: &[(u64, Location)],
        entries: &mut Vec<(u64, Bytes)>,
    ) -> Result<(), Fault> {
        let (Some((_, first)), Some((_, last))) = (run.first(), run.last()) else {
            return Ok(());
        };
        let bytes = file.read_at(u64::from(first.offset), span(*first, *last)).await?;
        for (index, location) in run {
            let from = (location.offset - first.offset) as usize;
            let found = bytes.get(from..).and_then(record::parse).filter(|found| {
                found.head.index == *index && found.head.generation == location.generation
            });
            let Some(found) = found else {
                return Err(self.unreadable(*index, *location, file.path()));
            };
            let payload = from + record::HEADER;
            entries.push((*index, bytes.slice(payload..payload + found.payload.len())));
        }
        Ok(())
    }

    /// An entry that cannot be read was purged meanwhile, or it is damaged.
    fn unreadable(&self, index: u64, location: Location, path: &Path) -> Fault {
        let view = lock(&self.handle.shared.view);
        if index < view.first || index >= view.next {
            return Fault::Missing { index, first: view.first, next: view.next };
        }
        let detail = format!("entry {index} is not valid");
        Fault::corrupt("log segment", path, u64::from(location.offset), detail)
    }
}

/// Bytes from the record at `first` to the end of the one at `last`.
fn span(first: Location, last: Location) -> usize {
    let end = last.offset as usize + record::size(last.length as usize);
    end.saturating_sub(first.offset as usize)
}
