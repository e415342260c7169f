//! One file of a log: a header in a sector of its own, then records.
//!
//! ```text
//!  0          8         12           16               24         32        60     64    512
//! +----------+---------+------------+----------------+----------+---------+-------+- - -+------
//! | magic    | version | generation | first sequence | capacity | zeroes  | crc32 |     | records
//! | mustrlog | u32     | u32        | u64            | u64      |         | 0..60 |     |
//! +----------+---------+------------+----------------+----------+---------+-------+- - -+------
//! ```
//! A file is used again and again: a new generation overwrites the header and then, little by
//! little, the records. What is left of the former life has another generation and so is nothing.

use std::path::Path;

use bytes::Bytes;

use crate::disk::DiskFile;
use crate::fault::Fault;

/// Where the first record begins.
pub(crate) const RECORDS_AT: usize = 512;

const MAGIC: &[u8; 8] = b"mustrlog";
/// The format of a segment that is written.
pub(crate) const VERSION: u32 = 1;
const HEADER: usize = 64;

/// What a segment's first sector says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The life of the file; one more for each new segment of a log.
    pub(crate) generation: u32,
    /// The sequence number of its first record.
    pub(crate) first_sequence: u64,
    /// Its size in bytes, all of it written once.
    pub(crate) capacity: u64,
}

impl Header {
    pub(crate) fn to_bytes(self) -> Bytes {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&self.first_sequence.to_le_bytes());
        bytes.extend_from_slice(&self.capacity.to_le_bytes());
        bytes.resize(HEADER - 4, 0);
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        Bytes::from(bytes)
    }

    /// The header in the first bytes of a file; `None` when there is no valid one.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Header>, Fault> {
        let Some((body, checksum)) = bytes.get(..HEADER).and_then(|all| all.split_last_chunk())
        else {
            return Ok(None);
        };
        if !body.starts_with(MAGIC) || crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return Ok(None);
        }
        let number = |from: usize, bytes: usize| {
            body[from..from + bytes].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let version = number(8, 4) as u32;
        if version != VERSION {
            return Err(Fault::version("log segment", Path::new(""), version, VERSION));
        }
        Ok(Some(Header {
            generation: number(12, 4) as u32,
            first_sequence: number(16, 8),
            capacity: number(24, 8),
        }))
    }
}

/// A file of the log in its present life.
#[derive(Clone)]
pub(crate) struct Segment<F> {
    pub(crate) file: F,
    pub(crate) header: Header,
}

/// A file that holds nothing the log needs.
pub(crate) struct Spare<F> {
    pub(crate) file: F,
    pub(crate) capacity: u64,
}

impl<F: DiskFile> Spare<F> {
    /// Begins a new life: the header is durable before any record is written, so that records
    /// never stand in a file whose header does not know them.
    pub(crate) async fn begin(
        self,
        generation: u32,
        first_sequence: u64,
    ) -> Result<Segment<F>, Fault> {
        let header = Header { generation, first_sequence, capacity: self.capacity };
        self.file.write_at_synced(0, header.to_bytes()).await?;
        Ok(Segment { file: self.file, header })
    }
}

impl<F: DiskFile> Segment<F> {
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_notices_every_flipped_bit() {
        let header = Header { generation: 7, first_sequence: 1 << 40, capacity: 16 << 20 };
        let bytes = header.to_bytes();
        let first = [&b"mustrlog\x01\0\0\0\x07\0\0\0"[..], &[0, 0, 0, 0, 0, 1, 0, 0]].concat();
        assert!(bytes.starts_with(&first), "the first format: {bytes:02x?}");
        assert_eq!(Header::parse(&bytes).unwrap(), Some(header));
        assert_eq!(Header::parse(&[0; 4096]).unwrap(), None);
        for bit in 0..HEADER * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::parse(&damaged).unwrap(), None, "bit {bit}");
        }
    }
}
