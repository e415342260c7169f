//! Judging and unpacking an application image that lies in a store.
//!
//! Validation and extraction read synchronously and may take seconds of processor time, which the
//! runtime, often a single thread, cannot spare. Small images are read into memory and judged in
//! place; large ones go to one blocking thread at a time, which reads the blob through the disk's
//! seam as it goes.

use std::{
    io::{self, Cursor, Read, Seek, SeekFrom},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use storage::{Disk, DiskFile};
use tokio::{runtime::Handle, sync::Semaphore};

use crate::{
    Digest, Limits,
    app_image::{self, ExtractError, Invalid, Validated},
    store::{Store, StoreError},
};

/// An image up to this size is judged in place.
const IN_PLACE_BYTES_MAX: u64 = 4 << 20;
/// How much of a blob is read at once.
const STEP_BYTES: usize = 256 * 1024;

/// Judges the images of stores.
#[derive(Debug, Clone)]
pub struct Inspector {
    limits: Arc<Limits>,
    /// One blocking thread: judging is bounded, but not cheap.
    turn: Arc<Semaphore>,
}

/// Why an image of a store was not judged, or not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The image is there and is not valid, or could not be read.
    #[error("the image was refused")]
    Invalid(
        #[from]
        #[source]
        Invalid,
    ),
    /// The image is valid and could not be written out.
    #[error("the image could not be unpacked")]
    Extract(
        #[from]
        #[source]
        ExtractError,
    ),
    /// The store did not have it, or its disk failed.
    #[error("the image could not be opened")]
    Store(
        #[from]
        #[source]
        StoreError,
    ),
}

impl Inspector {
    /// An inspector with these limits on images.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits: Arc::new(limits), turn: Arc::new(Semaphore::new(1)) }
    }

    /// Judges an image of a store.
    ///
    /// # Errors
    /// `Invalid` with all violations, `Store` if there is no such blob or the disk fails.
    pub async fn validate<D: Disk>(
        &self,
        store: &Store<D>,
        digest: &Digest,
    ) -> Result<Validated, InspectError> {
        let (file, length) = self.open(store, digest).await?;
        if length <= IN_PLACE_BYTES_MAX {
            let bytes = file.read_at(0, step(length)).await.map_err(StoreError::Fault)?;
            return Ok(app_image::validate(Cursor::new(bytes), &self.limits)?);
        }
        let limits = self.limits.clone();
        self.blocking(move |handle| {
            Ok(app_image::validate(BlobReader::new(handle, file, length), &limits)?)
        })
        .await
    }

    /// Judges an image of a store and writes it out below `destination`, which must not exist.
    ///
    /// # Errors
    /// As `validate`, and `Extract`; nothing is at the destination then.
    pub async fn unpack<D: Disk>(
        &self,
        store: &Store<D>,
        digest: &Digest,
        destination: PathBuf,
    ) -> Result<Validated, InspectError> {
        let (file, length) = self.open(store, digest).await?;
        let limits = self.limits.clone();
        self.blocking(move |handle| {
            let mut reader = BlobReader::new(handle, file, length);
            let image = app_image::validate(&mut reader, &limits)?;
            app_image::extract(&mut reader, &image, &destination)?;
            Ok(image)
        })
        .await
    }

    async fn open<D: Disk>(
        &self,
        store: &Store<D>,
        digest: &Digest,
    ) -> Result<(D::File, u64), StoreError> {
        let file = store.file(digest).await?.ok_or(StoreError::UnknownBlob(*digest))?;
        let length = file.len().await?;
        Ok((file, length))
    }

    /// Runs `work` on the blocking thread when it is its turn.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Handle) -> Result<T, InspectError> + Send + 'static,
    ) -> Result<T, InspectError> {
        let turn = self.turn.clone().acquire_owned().await.map_err(|_| StoreError::Stopped)?;
        let handle = Handle::current();
        #[expect(
            clippy::disallowed_methods,
            reason = "inflating and hashing a large image takes seconds; simulated images are small"
        )]
        let task = tokio::task::spawn_blocking(move || {
            let result = work(handle);
            drop(turn);
            result
        });
        task.await.map_err(|_| StoreError::Stopped)?
    }
}

/// A length that is read in one step.
fn step(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// A blob as a synchronous reader, for a thread that may block.
struct BlobReader<F> {
    handle: Handle,
    file: F,
    length: u64,
    position: u64,
    /// Bytes read ahead, and where they begin.
    ahead: Bytes,
    ahead_at: u64,
}

impl<F: DiskFile> BlobReader<F> {
    fn new(handle: Handle, file: F, length: u64) -> Self {
        Self { handle, file, length, position: 0, ahead: Bytes::new(), ahead_at: 0 }
    }
}

impl<F: DiskFile> Read for BlobReader<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let behind = self.ahead_at + self.ahead.len() as u64;
        if self.position < self.ahead_at || self.position >= behind {
            self.ahead = self.handle.block_on(self.file.read_at(self.position, STEP_BYTES))?;
            self.ahead_at = self.position;
        }
        let ahead = &self.ahead[step(self.position - self.ahead_at).min(self.ahead.len())..];
        let count = ahead.len().min(buffer.len());
        buffer[..count].copy_from_slice(&ahead[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl<F: DiskFile> Seek for BlobReader<F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
