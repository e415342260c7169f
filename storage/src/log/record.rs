//! One record: a checksummed piece of a log, and how to walk a run of them.
//!
//! ```text
//!  0        4               8          16        24           28           32
//! +--------+---------------+----------+---------+------------+------------+---------+- - - -+
//! | crc32  | length | kind | sequence | index   | generation | unsynced   | payload | zeroes|
//! | 4..end | 28 bit | 4 bit| u64      | u64     | u32        | u32        | length  | to 8  |
//! +--------+---------------+----------+---------+------------+------------+---------+- - - -+
//! ```
//! Little-endian. `sequence` counts the records of a log and is never used twice; `generation`
//! is the life of the file the record was written for, so the bytes of an earlier life are never
//! taken for this one's. `sequence - unsynced` is the *watermark*: the newest record that was
//! durable when this one was written. It is what tells damage from a torn tail: a bad record that
//! some later, valid record knows to have been durable was damaged; one that nobody vouches for
//! was never acknowledged.

/// Bytes of a record before its payload.
pub(crate) const HEADER: usize = 32;

/// The largest payload, by the 28 bits of its length.
pub(crate) const PAYLOAD_MAX: usize = (1 << 28) - 1;

const ALIGN: usize = 8;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A log entry: `index` and its bytes. In a record file: one appended value.
    Entry,
    /// Hard state: `index` is the key.
    State,
    /// Entries from `index` on are gone.
    Truncate,
    /// Entries before `index` are gone.
    Purge,
    /// Begins a segment: entries from `index` up to the payload's index were held then.
    Checkpoint,
    /// Nothing but its watermark.
    Mark,
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Kind::Entry => 1,
            Kind::State => 2,
            Kind::Truncate => 3,
            Kind::Purge => 4,
            Kind::Checkpoint => 5,
            Kind::Mark => 6,
        }
    }

    fn of(number: u32) -> Option<Kind> {
        [Kind::Entry, Kind::State, Kind::Truncate, Kind::Purge, Kind::Checkpoint, Kind::Mark]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

/// A record without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) index: u64,
    pub(crate) sequence: u64,
    pub(crate) generation: u32,
    /// The newest record that was durable when this one was written.
    pub(crate) watermark: u64,
}

/// A valid record found in a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) head: Head,
    pub(crate) payload: &'a [u8],
}

/// Bytes that a record with a payload of `length` takes in a file.
pub(crate) fn size(length: usize) -> usize {
    (HEADER + length).next_multiple_of(ALIGN)
}

/// Appends a record. The payload must not be longer than [`PAYLOAD_MAX`].
pub(crate) fn put(buffer: &mut Vec<u8>, head: &Head, payload: &[u8]) {
    debug_assert!(payload.len() <= PAYLOAD_MAX, "the length has 28 bits");
    let start = buffer.len();
    let unsynced = u32::try_from(head.sequence - head.watermark).unwrap_or(u32::MAX);
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&(payload.len() as u32 | head.kind.number() << 28).to_le_bytes());
    buffer.extend_from_slice(&head.sequence.to_le_bytes());
    buffer.extend_from_slice(&head.index.to_le_bytes());
    buffer.extend_from_slice(&head.generation.to_le_bytes());
    buffer.extend_from_slice(&unsynced.to_le_bytes());
    buffer.extend_from_slice(payload);
    let checksum = crc32fast::hash(&buffer[start + 4..]);
    buffer[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
    buffer.resize(start + size(payload.len()), 0);
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..offset + 4)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let field = bytes.get(offset..offset + 8)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

/// The head at the start of `bytes` and its payload's length, unverified.
fn peek(bytes: &[u8]) -> Option<(Head, usize)> {
    let length_and_kind = u32_at(bytes, 4)?;
    let kind = Kind::of(length_and_kind >> 28)?;
    let length = (length_and_kind & PAYLOAD_MAX as u32) as usize;
    let sequence = u64_at(bytes, 8)?;
    let index = u64_at(bytes, 16)?;
    let generation = u32_at(bytes, 24)?;
    let watermark = sequence.checked_sub(u64::from(u32_at(bytes, 28)?))?;
    Some((Head { kind, index, sequence, generation, watermark }, length))
}

/// The length of the payload that the record at the start of `bytes` claims.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    peek(bytes).map(|(_, length)| length)
}

/// The valid record at the start of `bytes`.
pub(crate) fn parse(bytes: &[u8]) -> Option<Record<'_>> {
    let (head, length) = peek(bytes)?;
    let checked = bytes.get(4..HEADER + length)?;
    (crc32fast::hash(checked) == u32_at(bytes, 0)?)
        .then(|| Record { head, payload: &checked[HEADER - 4..] })
}

/// Walks the valid records that follow each other without a gap; stops before the first that does
/// not belong.
pub(crate) struct Walk<'a> {
    bytes: &'a [u8],
    generation: u32,
    /// Where the next record would begin.
    pub(crate) offset: usize,
    /// The sequence number it would have.
    pub(crate) sequence: u64,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(bytes: &'a [u8], offset: usize, generation: u32, sequence: u64) -> Walk<'a> {
        Walk { bytes, generation, offset, sequence }
    }
}

impl<'a> Iterator for Walk<'a> {
    /// Where it begins, and the record.
    type Item = (usize, Record<'a>);

    fn next(&mut self) -> Option<(usize, Record<'a>)> {
        let rest = self.bytes.get(self.offset..)?;
        let (head, _) = peek(rest)?;
        if head.generation != self.generation || head.sequence != self.sequence {
            return None;
        }
        let record = parse(rest)?;
        let found = (self.offset, record);
        self.offset += size(record.payload.len());
        self.sequence += 1;
        Some(found)
    }
}

/// Valid records at or after `offset` that a walk expecting `sequence` did not reach, of one
/// generation or of any: where each begins, and its head.
pub(crate) fn strays(
    bytes: &[u8],
    offset: usize,
    generation: Option<u32>,
    sequence: u64,
) -> Vec<(usize, Head)> {
    let mut found = Vec::new();
    for offset in (offset..bytes.len().saturating_sub(HEADER - 1)).step_by(ALIGN) {
        let rest = &bytes[offset..];
        let Some((head, _)) = peek(rest) else {
            continue;
        };
        let ours = generation.is_none_or(|generation| head.generation == generation);
        if ours && head.sequence >= sequence && parse(rest).is_some() {
            found.push((offset, head));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(sequence: u64, watermark: u64) -> Head {
        Head { kind: Kind::Entry, index: sequence + 100, sequence, generation: 3, watermark }
    }

    #[test]
    fn the_bytes_of_a_record_are_as_drawn() {
        let mut bytes = Vec::new();
        put(&mut bytes, &head(5, 4), b"abc");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "93c68c2e\
             03000010\
             0500000000000000\
             6900000000000000\
             03000000\
             01000000\
             6162630000000000"
        );
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut bytes = Vec::new();
        put(&mut bytes, &head(5, 4), b"abcdefgh");
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&damaged).is_none(), "bit {bit}");
        }
        assert_eq!(parse(&bytes).unwrap().payload, b"abcdefgh");
    }

    #[test]
    fn a_walk_ends_at_a_hole_and_strays_lie_behind_it() {
        let mut bytes = Vec::new();
        for sequence in 1..=4 {
            put(&mut bytes, &head(sequence, 0), &[sequence as u8; 5]);
        }
        let record = size(5);
        bytes[record + 20] ^= 1;
        let mut walk = Walk::new(&bytes, 0, 3, 1);
        assert_eq!(walk.by_ref().count(), 1);
        assert_eq!((walk.offset, walk.sequence), (record, 2));
        let found: Vec<_> = strays(&bytes, walk.offset, Some(3), 2);
        assert_eq!(found.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [2 * record, 3 * record]);
        assert!(strays(&bytes, walk.offset, Some(4), 2).is_empty());
    }
}
