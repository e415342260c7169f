//! Why a store does not do what it is asked, and how uploads are named.

use std::{fmt, str::FromStr};

use storage::Fault;

use crate::Digest;

/// The name of an upload, chosen by whoever begins it: 1 to 128 of a-z, 0-9 and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(String);

impl UploadId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no upload id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an upload id is 1 to 128 of a-z, 0-9 and `-`")]
pub struct UploadIdError;

impl FromStr for UploadId {
    type Err = UploadIdError;

    fn from_str(text: &str) -> Result<Self, UploadIdError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=128).contains(&text.len()) && text.bytes().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err(UploadIdError)
    }
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such upload: never begun, finished, expired, or given up after a fault.
    #[error("there is no upload {0}")]
    UnknownUpload(UploadId),
    /// There is no such blob.
    #[error("there is no blob {0}")]
    UnknownBlob(Digest),
    /// The upload exists and is of other content.
    #[error("upload {id} is of {digest} with {size_bytes} bytes")]
    OtherContent {
        /// The upload.
        id: UploadId,
        /// The digest it was begun with.
        digest: Digest,
        /// The size it was begun with.
        size_bytes: u64,
    },
    /// The chunk does not begin where the durable bytes end.
    #[error("the next chunk begins at {expected}")]
    WrongOffset {
        /// Where it must begin.
        expected: u64,
    },
    /// The chunk is too large, or too small without being the last.
    #[error("a chunk has {min} to {max} bytes, this one has {found}")]
    ChunkSize {
        /// Its size.
        found: u64,
        /// The smallest size, except of the last chunk.
        min: u32,
        /// The largest size.
        max: u32,
    },
    /// The chunk goes beyond the announced size.
    #[error("the upload has {size_bytes} bytes, the chunk ends behind them")]
    BeyondEnd {
        /// The announced size.
        size_bytes: u64,
    },
    /// The announced size is beyond the limit.
    #[error("a blob has at most {max} bytes, {found} are announced")]
    BlobTooLarge {
        /// The announced size.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// As many uploads, or as many announced bytes, as are allowed are under way: try later.
    #[error("{uploads} uploads of {bytes} bytes are under way, which is all that is allowed")]
    Busy {
        /// How many.
        uploads: usize,
        /// Their announced sizes together.
        bytes: u64,
    },
    /// The upload cannot be finished: bytes are missing.
    #[error("the upload has {durable} of {size_bytes} bytes")]
    Incomplete {
        /// The bytes that are durable.
        durable: u64,
        /// The announced size.
        size_bytes: u64,
    },
    /// The content has another digest than announced; the upload was removed.
    #[error("the content is {found}, {expected} was announced")]
    DigestMismatch {
        /// The announced digest.
        expected: Digest,
        /// The digest of what arrived.
        found: Digest,
    },
    /// The disk failed. An upload that was being written was given up.
    #[error("the store's disk failed")]
    Fault(
        #[from]
        #[source]
        Fault,
    ),
    /// The task that did the work was ended with its runtime.
    #[error("the store is stopped")]
    Stopped,
}
