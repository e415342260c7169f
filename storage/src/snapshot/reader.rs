//! Reading a snapshot chunk by chunk, each checked as it comes.

use bytes::Bytes;

use crate::disk::DiskFile;
use crate::fault::Fault;
use crate::log::record::{self, Head, Kind};
use crate::snapshot::{MAGIC, PREAMBLE, SnapshotName, VERSION, WHAT};

/// A snapshot being read.
pub struct SnapshotReader<F> {
    file: F,
    name: SnapshotName,
    meta: Bytes,
    /// Where the first chunk begins.
    begin: u64,
    offset: u64,
    chunks: u64,
    bytes: u64,
    file_bytes: u64,
    chunk_bytes_max: usize,
    done: bool,
}

impl<F: DiskFile> SnapshotReader<F> {
    pub(super) async fn open(
        file: F,
        name: SnapshotName,
        chunk_bytes_max: usize,
    ) -> Result<Self, Fault> {
        let file_bytes = file.len().await?;
        let preamble = file.read_at(0, PREAMBLE).await?;
        let checked = preamble.split_last_chunk().is_some_and(|(body, checksum)| {
            body.starts_with(MAGIC) && crc32fast::hash(body) == u32::from_le_bytes(*checksum)
        });
        let corrupt = |offset, detail: &str| Fault::corrupt(WHAT, file.path(), offset, detail);
        if !checked {
            return Err(corrupt(0, "it does not begin like one"));
        }
        let version =
            preamble.slice(8..12).iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        if version != VERSION {
            return Err(Fault::version(WHAT, file.path(), version, VERSION));
        }
        let mut reader = SnapshotReader {
            file: file.clone(),
            name,
            meta: Bytes::new(),
            begin: 0,
            offset: PREAMBLE as u64,
            chunks: 0,
            bytes: 0,
            file_bytes,
            chunk_bytes_max,
            done: false,
        };
        let (head, meta) = reader.record(1).await?;
        if head.kind != Kind::Checkpoint || head.index != reader.name.order {
            return Err(corrupt(PREAMBLE as u64, "its first record belongs to another one"));
        }
        reader.meta = meta;
        reader.begin = reader.offset;
        Ok(reader)
    }

    /// Reads the record that comes next.
    async fn record(&mut self, sequence: u64) -> Result<(Head, Bytes), Fault> {
        let offset = self.offset;
        let corrupt = |detail: String| Fault::corrupt(WHAT, self.file.path(), offset, detail);
        let first = self.file.read_at(offset, record::HEADER).await?;
        let length = record::length(&first)
            .filter(|length| offset + (record::HEADER + length) as u64 <= self.file_bytes)
            .ok_or_else(|| corrupt("it ends before its last record".to_owned()))?;
        if length > self.chunk_bytes_max {
            return Err(corrupt(format!("a chunk claims {length} bytes")));
        }
        let bytes = self.file.read_at(offset, record::HEADER + length).await?;
        let found = record::parse(&bytes).filter(|found| found.head.sequence == sequence);
        let Some(found) = found else {
            return Err(corrupt(format!("record {sequence} is not valid")));
        };
        let head = found.head;
        self.offset += record::size(length) as u64;
        Ok((head, bytes.slice(record::HEADER..)))
    }

    /// Its name.
    pub fn name(&self) -> &SnapshotName {
        &self.name
    }

    /// What the caller stored beside the content.
    pub fn meta(&self) -> &Bytes {
        &self.meta
    }

    /// The size of the file, slightly more than that of the content.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The next chunk, `None` after the last. [`Fault::Corrupt`] when it is damaged or missing: the
    /// content is whole only once `None` was answered.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        if self.done {
            return Ok(None);
        }
        let offset = self.offset;
        let (head, payload) = self.record(self.chunks + 2).await?;
        if head.kind == Kind::Entry {
            self.chunks += 1;
            self.bytes += payload.len() as u64;
            return Ok(Some(payload));
        }
        let whole = head.kind == Kind::Mark
            && head.index == self.chunks
            && payload[..] == self.bytes.to_le_bytes();
        if !whole {
            let detail = format!("its end does not follow {} chunks", self.chunks);
            return Err(Fault::corrupt(WHAT, self.file.path(), offset, detail));
        }
        self.done = true;
        Ok(None)
    }

    /// Goes back to the first chunk.
    pub fn rewind(&mut self) {
        (self.offset, self.chunks, self.bytes, self.done) = (self.begin, 0, 0, false);
    }
}
