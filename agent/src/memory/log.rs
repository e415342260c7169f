//! The memory on disk: records in a small synced file, rewritten when it has grown.

use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use storage::codec::{Versioned, decode_latest, encode};
use storage::record_file::{RecordFile, RecordFileConfig};
use storage::{Disk, Fault};

use super::{Bounds, Memory, Record};

/// Records as they lie on disk. Versions are appended, never changed.
#[derive(Serialize, Deserialize)]
enum Stored {
    /// The first.
    V1(Record),
}

impl Versioned for Stored {
    type Latest = Record;

    fn upgrade(self) -> Record {
        match self {
            Self::V1(record) => record,
        }
    }
}

/// How large the file may become.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Bounds of the memory itself.
    pub bounds: Bounds,
    /// The file is rewritten when it has more bytes than this and twice what the last rewrite left.
    pub rewrite_at_bytes: u64,
    /// Bytes of the file at most.
    pub file_bytes_max: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            bounds: Bounds::default(),
            rewrite_at_bytes: 1 << 20,
            file_bytes_max: RecordFileConfig::default().bytes_max,
        }
    }
}

/// A memory with its file. What it shows is on disk.
pub struct MemoryLog<D: Disk> {
    file: RecordFile<D>,
    memory: Memory,
    config: LogConfig,
    rewritten_bytes: u64,
}

impl<D: Disk> MemoryLog<D> {
    /// Opens the file, or makes it, and replays it. The directory must exist.
    ///
    /// # Errors
    /// A [`Fault`] when the disk fails or something acknowledged is damaged.
    pub async fn open(disk: D, path: &Path, config: LogConfig) -> Result<Self, Fault> {
        let bounds = RecordFileConfig { bytes_max: config.file_bytes_max };
        let (file, values) = RecordFile::open(disk, path, bounds).await?;
        let mut memory = Memory::new(config.bounds);
        for value in &values {
            memory.apply(&decode_latest::<Stored>(value)?);
        }
        memory.wake();
        let rewritten_bytes = 0;
        Ok(Self { file, memory, config, rewritten_bytes })
    }

    /// What is remembered.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Writes records, with one sync, and applies them. At return they are durable: what they allow
    /// may be done.
    ///
    /// # Errors
    /// A [`Fault`] when the disk fails. The memory is unchanged, the file may hold some of the
    /// records: the agent has to stop acting on orders and open the log anew.
    pub async fn remember(&mut self, records: &[Record]) -> Result<(), Fault> {
        if records.is_empty() {
            return Ok(());
        }
        if self.file.bytes() > self.config.rewrite_at_bytes.max(2 * self.rewritten_bytes) {
            self.file.rewrite(encoded(&self.memory.records())?).await?;
            self.rewritten_bytes = self.file.bytes();
        }
        self.file.append_all(encoded(records)?).await?;
        for record in records {
            self.memory.apply(record);
        }
        Ok(())
    }
}

fn encoded(records: &[Record]) -> Result<Vec<Bytes>, Fault> {
    let stored = |record: &Record| encode(&Stored::V1(record.clone())).map(Bytes::from);
    records.iter().map(stored).collect()
}
