//! Content by digest on one disk: a control node's artifacts, an agent's cache.
//!
//! Content arrives as an upload, chunk by chunk; each chunk is durable before it is acknowledged,
//! and after a restart an upload goes on where it was durable. It becomes a blob only when all of
//! it is there and, read back, has the digest it was announced by. The store bounds what it takes
//! in, knows nothing of tenants or deployments, and reads no clock: callers pass milliseconds of
//! whatever clock they use.
//!
//! A handle is cheap to clone. Work on an upload runs in a task of its own, because a caller that
//! goes away (a lost connection) must not leave it half done.

mod error;
mod uploads;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use storage::{Disk, DiskFile, Fault};

use self::uploads::Slot;
pub use self::{
    error::{StoreError, UploadId, UploadIdError},
    uploads::{Begun, UploadStatus},
};
use crate::{
    Digest,
    layout::{EMPTY_INDEX, Layout, OCI_LAYOUT},
    upload,
};

/// The bounds of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The largest chunk that is written or read at once, in bytes.
    pub chunk_bytes_max: u32,
    /// The smallest chunk that is not the last, in bytes: it bounds the bookkeeping.
    pub chunk_bytes_min: u32,
    /// The largest blob, in bytes.
    pub blob_bytes_max: u64,
    /// Uploads at once.
    pub uploads_max: usize,
    /// The announced sizes of all uploads together, in bytes.
    pub uploads_bytes_max: u64,
    /// An upload that nobody has touched for this long may expire, in milliseconds.
    pub upload_idle_ms: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            chunk_bytes_max: 1 << 20,
            chunk_bytes_min: 1 << 16,
            blob_bytes_max: 1 << 30,
            uploads_max: 32,
            uploads_bytes_max: 1 << 32,
            upload_idle_ms: 3_600_000,
        }
    }
}

/// A blob of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub size_bytes: u64,
}

/// What reading a blob back showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The content has the digest that it is named by.
    Good,
    /// The content has another digest: delete it and get it again.
    Bad,
    /// There is no such blob.
    Absent,
}

struct Inner<D: Disk> {
    disk: D,
    layout: Layout,
    config: StoreConfig,
    uploads: Mutex<BTreeMap<UploadId, Arc<Slot<D::File>>>>,
    _lock: D::Lock,
}

/// A store of content. See the module.
pub struct Store<D: Disk> {
    inner: Arc<Inner<D>>,
}

impl<D: Disk> Clone for Store<D> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<D: Disk> fmt::Debug for Store<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("layout", &self.inner.layout).finish_non_exhaustive()
    }
}

impl<D: Disk> Store<D> {
    /// Opens the store in the folder `root`, making it if needed. Uploads of an earlier process
    /// are found again; `now_ms` is when they count as touched.
    ///
    /// # Errors
    /// A fault of the disk, `Fault::Locked` if another process uses the store.
    pub async fn open(
        disk: D,
        root: &Path,
        config: StoreConfig,
        now_ms: u64,
    ) -> Result<Self, Fault> {
        let layout = Layout::new(root);
        disk.create_dir(&layout.blobs()).await?;
        disk.create_dir(&layout.uploads()).await?;
        let lock = disk.lock(&layout.lock()).await?;
        for (path, content) in [(layout.marker(), OCI_LAYOUT), (layout.index(), EMPTY_INDEX)] {
            if !disk.exists(&path).await? {
                disk.replace_file(&path, Bytes::from_static(content.as_bytes())).await?;
            }
        }
        // Names that an earlier process made may be in memory only: durable from here on.
        disk.sync_dir(&layout.blobs()).await?;
        disk.sync_dir(&layout.uploads()).await?;
        let names = disk.list(&layout.uploads()).await?;
        let ids: BTreeSet<_> = names.iter().filter_map(|name| Layout::upload_of(name)).collect();
        let mut uploads = BTreeMap::new();
        for id in ids {
            match upload::expected(&disk, &layout, &id).await? {
                Some(expected) => {
                    tracing::info!(upload = %id, digest = %expected.digest, "found an upload");
                    uploads.insert(id, Slot::new(expected, false, now_ms));
                }
                None => upload::remove(&disk, &layout, &id).await?,
            }
        }
        let uploads = Mutex::new(uploads);
        Ok(Self { inner: Arc::new(Inner { disk, layout, config, uploads, _lock: lock }) })
    }

    /// Whether a blob is there, and its size. Its content is not read.
    ///
    /// # Errors
    /// A fault of the disk.
    pub async fn blob(&self, digest: &Digest) -> Result<Option<Blob>, Fault> {
        match self.file(digest).await? {
            Some(file) => Ok(Some(Blob { digest: *digest, size_bytes: file.len().await? })),
            None => Ok(None),
        }
    }

    /// Up to `bytes` bytes of a blob from `offset` on, at most a chunk; fewer only at its end.
    ///
    /// # Errors
    /// `UnknownBlob`, `Fault`.
    pub async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        bytes: u32,
    ) -> Result<Bytes, StoreError> {
        let file = self.file(digest).await?.ok_or(StoreError::UnknownBlob(*digest))?;
        let bytes = bytes.min(self.inner.config.chunk_bytes_max);
        Ok(file.read_at(offset, bytes as usize).await?)
    }

    /// Reads a blob back and compares its digest.
    ///
    /// # Errors
    /// `Fault`.
    pub async fn verify(&self, digest: &Digest) -> Result<Verdict, StoreError> {
        let Some(file) = self.file(digest).await? else { return Ok(Verdict::Absent) };
        let length = file.len().await?;
        let found = upload::digest_of(&file, length, self.inner.config.chunk_bytes_max).await?;
        Ok(if found == *digest { Verdict::Good } else { Verdict::Bad })
    }

    /// Removes a blob, durably at return. False if it was not there. Whoever is reading it goes on.
    ///
    /// # Errors
    /// `Fault`.
    pub async fn delete(&self, digest: &Digest) -> Result<bool, StoreError> {
        match self.inner.disk.remove(&self.inner.layout.blob(digest)).await {
            Ok(()) => {}
            Err(fault) if fault.is_not_found() => return Ok(false),
            Err(fault) => return Err(fault.into()),
        }
        self.inner.disk.sync_dir(&self.inner.layout.blobs()).await?;
        Ok(true)
    }

    /// All blobs, in order of digest.
    ///
    /// # Errors
    /// A fault of the disk.
    pub async fn list(&self) -> Result<Vec<Blob>, Fault> {
        let mut blobs = Vec::new();
        for name in self.inner.disk.list(&self.inner.layout.blobs()).await? {
            // Other names are not ours.
            let Ok(digest) = Digest::from_hex(&name) else { continue };
            blobs.extend(self.blob(&digest).await?);
        }
        Ok(blobs)
    }

    /// Removes every blob that is not to be kept. Answers which were removed.
    ///
    /// # Errors
    /// `Fault`; the blobs not reached yet remain.
    pub async fn evict(&self, keep: &BTreeSet<Digest>) -> Result<Vec<Digest>, StoreError> {
        let mut removed = Vec::new();
        for blob in self.list().await? {
            if !keep.contains(&blob.digest) && self.delete(&blob.digest).await? {
                removed.push(blob.digest);
            }
        }
        Ok(removed)
    }

    /// The file of a blob, if it is there.
    pub(crate) async fn file(&self, digest: &Digest) -> Result<Option<D::File>, Fault> {
        match self.inner.disk.open(&self.inner.layout.blob(digest)).await {
            Ok(file) => Ok(Some(file)),
            Err(fault) if fault.is_not_found() => Ok(None),
            Err(fault) => Err(fault),
        }
    }
}
