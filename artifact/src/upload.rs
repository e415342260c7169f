//! Content on its way in: which of its bytes are durable, across restarts and power cuts.
//!
//! The bytes lie in a file of their own that becomes the blob at the end. Beside it, a small file
//! records each chunk with its checksum. A chunk is acknowledged when both files are synced; after a
//! restart the chunks are read again and the upload goes on behind the last one that is whole.
//! Which of the two files reached the disk first therefore does not matter.

use bytes::{Bytes, BytesMut};
use storage::{Disk, DiskFile, Fault};

use crate::{
    Digest,
    layout::Layout,
    store::{StoreError, UploadId},
};

/// What begins a progress file: a name and a version.
const MAGIC: &[u8; 4] = b"MUP1";
/// Magic, digest, size, checksum.
const HEADER_BYTES: usize = 4 + 32 + 8 + 4;
/// Offset, length, checksum of the chunk, checksum of the record.
const RECORD_BYTES: usize = 8 + 4 + 4 + 4;

/// What is arriving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
}

/// An upload whose durable bytes are known.
#[derive(Debug)]
pub(crate) struct Partial<F> {
    content: F,
    progress: F,
    /// The first byte that is not durable.
    pub(crate) offset: u64,
    /// Where the next record goes.
    progress_bytes: u64,
}

/// The bounds on chunks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkBounds {
    pub(crate) min: u32,
    pub(crate) max: u32,
}

impl ChunkBounds {
    /// How large the progress file of content of this size can be.
    fn progress_bytes_max(self, size_bytes: u64) -> u64 {
        let chunks = size_bytes / u64::from(self.min.max(1)) + 2;
        HEADER_BYTES as u64 + chunks * RECORD_BYTES as u64
    }
}

impl<F: DiskFile> Partial<F> {
    /// Begins an upload: its two files are durable, and empty but for the header, at return.
    pub(crate) async fn create<D: Disk<File = F>>(
        disk: &D,
        layout: &Layout,
        id: &UploadId,
        expected: &Expected,
    ) -> Result<Self, Fault> {
        remove(disk, layout, id).await?;
        let content = disk.create(&layout.upload(id)).await?;
        let progress = disk.create(&layout.progress(id)).await?;
        progress.write_at_synced(0, encode_header(expected)).await?;
        disk.sync_dir(&layout.uploads()).await?;
        Ok(Self { content, progress, offset: 0, progress_bytes: HEADER_BYTES as u64 })
    }

    /// Opens an upload that an earlier process began: reads what it has and cuts off what is not
    /// whole.
    pub(crate) async fn reopen<D: Disk<File = F>>(
        disk: &D,
        layout: &Layout,
        id: &UploadId,
        expected: &Expected,
        bounds: ChunkBounds,
    ) -> Result<Self, Fault> {
        let content = disk.open(&layout.upload(id)).await?;
        let progress = disk.open(&layout.progress(id)).await?;
        let bytes_max = bounds.progress_bytes_max(expected.size_bytes);
        let records_bytes = progress.len().await?.min(bytes_max);
        let records = progress.read_at(0, to_usize(records_bytes)).await?;
        let (mut offset, mut whole) = (0, HEADER_BYTES);
        while let Some(record) = records.get(whole..whole + RECORD_BYTES) {
            let Some((length, checksum)) = decode_record(record, offset) else { break };
            if length > bounds.max || offset + u64::from(length) > expected.size_bytes {
                break;
            }
            let chunk = content.read_at(offset, length as usize).await?;
            if chunk.len() != length as usize || crc32fast::hash(&chunk) != checksum {
                break;
            }
            offset += u64::from(length);
            whole += RECORD_BYTES;
        }
        let progress_bytes = whole as u64;
        content.set_len(offset).await?;
        progress.set_len(progress_bytes).await?;
        // What is read may have been in memory only: it is durable from here on.
        content.sync().await?;
        progress.sync().await?;
        Ok(Self { content, progress, offset, progress_bytes })
    }

    /// Adds a chunk at the offset; durable at return. After a fault the upload is of no more use:
    /// what was written is neither there nor not there.
    pub(crate) async fn append(&mut self, chunk: Bytes) -> Result<(), Fault> {
        let length = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        let record = encode_record(self.offset, length, crc32fast::hash(&chunk));
        let content = self.content.write_at_synced(self.offset, chunk);
        let progress = self.progress.write_at_synced(self.progress_bytes, record);
        tokio::try_join!(biased; content, progress)?;
        self.offset += u64::from(length);
        self.progress_bytes += RECORD_BYTES as u64;
        Ok(())
    }

    /// The digest of the first `offset` bytes, as they are read back.
    pub(crate) async fn digest(&self, step_bytes: u32) -> Result<Digest, Fault> {
        digest_of(&self.content, self.offset, step_bytes).await
    }
}

/// The digest of the first bytes of a file; of fewer, if it is shorter.
pub(crate) async fn digest_of<F: DiskFile>(
    file: &F,
    size_bytes: u64,
    step_bytes: u32,
) -> Result<Digest, Fault> {
    let mut hasher = crate::Hasher::new();
    while hasher.length_bytes() < size_bytes {
        let left = size_bytes - hasher.length_bytes();
        let step = to_usize(left.min(u64::from(step_bytes)));
        let bytes = file.read_at(hasher.length_bytes(), step).await?;
        if bytes.is_empty() {
            break;
        }
        hasher.update(&bytes);
        // Reading may never wait, hashing takes long: let others have their turn.
        tokio::task::yield_now().await;
    }
    Ok(hasher.finish())
}

/// What an upload's progress file says is arriving; `None` if it says nothing that can be trusted.
pub(crate) async fn expected<D: Disk>(
    disk: &D,
    layout: &Layout,
    id: &UploadId,
) -> Result<Option<Expected>, Fault> {
    let path = layout.progress(id);
    if !disk.exists(&path).await? || !disk.exists(&layout.upload(id)).await? {
        return Ok(None);
    }
    let header = disk.open(&path).await?.read_at(0, HEADER_BYTES).await?;
    Ok(decode_header(&header))
}

/// Removes what there is of an upload, the progress first: without it the rest means nothing.
pub(crate) async fn remove<D: Disk>(disk: &D, layout: &Layout, id: &UploadId) -> Result<(), Fault> {
    for path in [layout.progress(id), layout.upload(id)] {
        match disk.remove(&path).await {
            Err(fault) if !fault.is_not_found() => return Err(fault),
            _ => {}
        }
    }
    disk.sync_dir(&layout.uploads()).await
}

/// Makes a whole upload the blob; durable at return.
pub(crate) async fn promote<D: Disk>(
    disk: &D,
    layout: &Layout,
    id: &UploadId,
    digest: &Digest,
) -> Result<(), StoreError> {
    disk.rename(&layout.upload(id), &layout.blob(digest)).await?;
    disk.sync_dir(&layout.blobs()).await?;
    Ok(remove(disk, layout, id).await?)
}

/// A count of bytes that is known to fit, because it is bounded by a chunk or a progress file.
fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn sealed(mut bytes: BytesMut) -> Bytes {
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.freeze()
}

/// `bytes` without the checksum at their end, if it is right.
fn unsealed(bytes: &[u8]) -> Option<&[u8]> {
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    (crc32fast::hash(body) == u32::from_le_bytes(*checksum)).then_some(body)
}

fn encode_header(expected: &Expected) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(expected.digest.as_bytes());
    bytes.extend_from_slice(&expected.size_bytes.to_le_bytes());
    sealed(bytes)
}

fn decode_header(bytes: &[u8]) -> Option<Expected> {
    let body = unsealed(bytes)?.strip_prefix(MAGIC)?;
    let (digest, rest) = body.split_first_chunk::<32>()?;
    let size_bytes = u64::from_le_bytes(rest.try_into().ok()?);
    Some(Expected { digest: Digest::from_bytes(*digest), size_bytes })
}

fn encode_record(offset: u64, length: u32, checksum: u32) -> Bytes {
    let mut bytes = BytesMut::with_capacity(RECORD_BYTES);
    bytes.extend_from_slice(&offset.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&checksum.to_le_bytes());
    sealed(bytes)
}

/// The length and the checksum of the chunk at `offset`, if the record is whole and of that chunk.
fn decode_record(bytes: &[u8], offset: u64) -> Option<(u32, u32)> {
    let (found, rest) = unsealed(bytes)?.split_first_chunk::<8>()?;
    let (length, checksum) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    let whole = u64::from_le_bytes(*found) == offset && length > 0;
    whole.then_some((length, u32::from_le_bytes(checksum.try_into().ok()?)))
}
