//! How content arrives in a store: begin, write, finish; resumed after restarts, given up after
//! faults, expired when idle.

use std::collections::BTreeMap;
use std::sync::{
    Arc, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use storage::Disk;

use crate::{
    Digest,
    store::{Blob, Inner, Store, StoreError, UploadId},
    upload::{self, ChunkBounds, Expected, Partial},
};

/// What `begin` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// The blob is there already: nothing is to be sent.
    Present,
    /// Chunks are expected from this offset on.
    Upload {
        /// The first byte that is not durable yet.
        offset: u64,
    },
}

/// An upload that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadStatus {
    /// Its name.
    pub id: UploadId,
    /// The announced digest.
    pub digest: Digest,
    /// The announced size.
    pub size_bytes: u64,
}

/// One upload, shared by those who work on it.
#[derive(Debug)]
pub(super) struct Slot<F> {
    expected: Expected,
    touched_ms: AtomicU64,
    state: Arc<tokio::sync::Mutex<State<F>>>,
}

#[derive(Debug)]
enum State<F> {
    /// Begun, or left by an earlier process: what is durable is not known yet.
    Cold { create: bool },
    /// What is durable is known.
    Warm(Partial<F>),
    /// Finished or removed while somebody waited for it.
    Gone,
}

impl<F> Slot<F> {
    /// A new upload, or one left by an earlier process.
    pub(super) fn new(expected: Expected, create: bool, now_ms: u64) -> Arc<Self> {
        let state = Arc::new(tokio::sync::Mutex::new(State::Cold { create }));
        Arc::new(Self { expected, touched_ms: AtomicU64::new(now_ms), state })
    }
}

impl<D: Disk> Store<D> {
    /// Announces content. An upload of this id and content that exists is resumed.
    ///
    /// # Errors
    /// `OtherContent`, `BlobTooLarge`, `Busy`, `Fault`.
    pub async fn begin(
        &self,
        id: &UploadId,
        digest: Digest,
        size_bytes: u64,
        now_ms: u64,
    ) -> Result<Begun, StoreError> {
        if let Some(blob) = self.blob(&digest).await?
            && blob.size_bytes == size_bytes
        {
            return Ok(Begun::Present);
        }
        self.reserve(id, Expected { digest, size_bytes }, now_ms)?;
        let offset = self.with_upload(id, now_ms, Work::Prepare).await?;
        Ok(Begun::Upload { offset })
    }

    /// Adds a chunk, which is durable at return. Answers where the next one begins.
    ///
    /// # Errors
    /// `UnknownUpload`, `WrongOffset`, `ChunkSize`, `BeyondEnd`: nothing changed. `Fault`: the
    /// upload was given up.
    pub async fn write(
        &self,
        id: &UploadId,
        offset: u64,
        chunk: Bytes,
        now_ms: u64,
    ) -> Result<u64, StoreError> {
        self.with_upload(id, now_ms, Work::Append { offset, chunk }).await
    }

    /// Makes the blob of an upload that has all its bytes: reads them back, compares the digest.
    /// The blob is durable at return.
    ///
    /// # Errors
    /// `UnknownUpload`, `Incomplete`: nothing changed. `DigestMismatch`, `Fault`: the upload is
    /// gone.
    pub async fn finish(&self, id: &UploadId, now_ms: u64) -> Result<Blob, StoreError> {
        let slot = self.inner.slot(id)?;
        let size_bytes = self.with_upload(id, now_ms, Work::Finish).await?;
        Ok(Blob { digest: slot.expected.digest, size_bytes })
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// `UnknownUpload`, `Fault`.
    pub async fn abort(&self, id: &UploadId) -> Result<(), StoreError> {
        let slot = self.inner.slot(id)?;
        self.remove_upload(id, slot.state.clone().lock_owned().await).await
    }

    /// The uploads under way, in order of id.
    #[must_use]
    pub fn uploads(&self) -> Vec<UploadStatus> {
        let uploads = self.inner.uploads();
        uploads
            .iter()
            .map(|(id, slot)| UploadStatus {
                id: id.clone(),
                digest: slot.expected.digest,
                size_bytes: slot.expected.size_bytes,
            })
            .collect()
    }

    /// Removes the uploads that nobody has touched for the configured time. Answers which.
    ///
    /// # Errors
    /// `Fault`; the uploads not reached yet remain.
    pub async fn expire(&self, now_ms: u64) -> Result<Vec<UploadId>, StoreError> {
        let idle = |slot: &Slot<D::File>| {
            let touched = slot.touched_ms.load(Ordering::Relaxed);
            now_ms.saturating_sub(touched) >= self.inner.config.upload_idle_ms
        };
        let found: Vec<_> = {
            let uploads = self.inner.uploads();
            let found = uploads.iter().filter(|(_, slot)| idle(slot));
            found.map(|(id, slot)| (id.clone(), slot.clone())).collect()
        };
        let mut expired = Vec::new();
        for (id, slot) in found {
            // Somebody who holds it is using it right now.
            let Ok(guard) = slot.state.clone().try_lock_owned() else { continue };
            if !idle(&slot) || matches!(*guard, State::Gone) {
                continue;
            }
            self.remove_upload(&id, guard).await?;
            tracing::info!(upload = %id, "an idle upload expired");
            expired.push(id);
        }
        Ok(expired)
    }

    /// Makes room for an upload, or finds the one of the same id and content.
    fn reserve(&self, id: &UploadId, expected: Expected, now_ms: u64) -> Result<(), StoreError> {
        let config = &self.inner.config;
        let Expected { digest, size_bytes } = expected;
        if size_bytes > config.blob_bytes_max {
            return Err(StoreError::BlobTooLarge { found: size_bytes, max: config.blob_bytes_max });
        }
        let mut uploads = self.inner.uploads();
        if let Some(slot) = uploads.get(id) {
            if slot.expected == expected {
                return Ok(());
            }
            let Expected { digest, size_bytes } = slot.expected;
            return Err(StoreError::OtherContent { id: id.clone(), digest, size_bytes });
        }
        let bytes: u64 = uploads.values().map(|slot| slot.expected.size_bytes).sum();
        let room = config.uploads_bytes_max.saturating_sub(bytes);
        if uploads.len() >= config.uploads_max || size_bytes > room {
            return Err(StoreError::Busy { uploads: uploads.len(), bytes });
        }
        tracing::debug!(upload = %id, %digest, size_bytes, "an upload begins");
        uploads.insert(id.clone(), Slot::new(expected, true, now_ms));
        Ok(())
    }

    /// Does `work` on an upload, alone and to its end even if the caller goes away. An upload is
    /// given up after a fault and after a digest that is not the announced one.
    async fn with_upload(&self, id: &UploadId, now_ms: u64, work: Work) -> Result<u64, StoreError> {
        let slot = self.inner.slot(id)?;
        slot.touched_ms.fetch_max(now_ms, Ordering::Relaxed);
        let store = self.clone();
        let id = id.clone();
        let task = tokio::spawn(async move {
            let mut guard = slot.state.clone().lock_owned().await;
            let result = store.inner.perform(&id, &slot.expected, &mut guard, work).await;
            if matches!(&result, Err(StoreError::Fault(_) | StoreError::DigestMismatch { .. }))
                && let Err(error) = store.remove_upload(&id, guard).await
            {
                // The first error is the one to tell.
                tracing::warn!(upload = %id, %error, "could not remove an upload");
            }
            result
        });
        task.await.map_err(|_| StoreError::Stopped)?
    }

    /// Removes an upload's files and its place among the uploads.
    async fn remove_upload(
        &self,
        id: &UploadId,
        mut guard: tokio::sync::OwnedMutexGuard<State<D::File>>,
    ) -> Result<(), StoreError> {
        if matches!(*guard, State::Gone) {
            return Err(StoreError::UnknownUpload(id.clone()));
        }
        *guard = State::Gone;
        let removed = upload::remove(&self.inner.disk, &self.inner.layout, id).await;
        self.inner.forget(id);
        Ok(removed?)
    }
}

/// What is done on an upload. Each answers with the first byte that is not durable.
enum Work {
    /// Finds out what is durable.
    Prepare,
    /// Adds a chunk.
    Append { offset: u64, chunk: Bytes },
    /// Makes the blob.
    Finish,
}

impl<D: Disk> Inner<D> {
    fn uploads(&self) -> MutexGuard<'_, BTreeMap<UploadId, Arc<Slot<D::File>>>> {
        // Every critical section leaves the map whole.
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, id: &UploadId) -> Result<Arc<Slot<D::File>>, StoreError> {
        self.uploads().get(id).cloned().ok_or_else(|| StoreError::UnknownUpload(id.clone()))
    }

    fn forget(&self, id: &UploadId) {
        self.uploads().remove(id);
    }

    fn bounds(&self) -> ChunkBounds {
        ChunkBounds { min: self.config.chunk_bytes_min, max: self.config.chunk_bytes_max }
    }

    async fn perform(
        &self,
        id: &UploadId,
        expected: &Expected,
        state: &mut State<D::File>,
        work: Work,
    ) -> Result<u64, StoreError> {
        if let State::Cold { create } = state {
            let (disk, layout) = (&self.disk, &self.layout);
            let partial = if *create {
                Partial::create(disk, layout, id, expected).await?
            } else {
                Partial::reopen(disk, layout, id, expected, self.bounds()).await?
            };
            *state = State::Warm(partial);
        }
        let State::Warm(partial) = state else {
            return Err(StoreError::UnknownUpload(id.clone()));
        };
        match work {
            Work::Prepare => Ok(partial.offset),
            Work::Append { offset, chunk } => {
                self.check_chunk(expected, partial.offset, offset, chunk.len() as u64)?;
                if !chunk.is_empty() {
                    partial.append(chunk).await?;
                }
                Ok(partial.offset)
            }
            Work::Finish => {
                let Expected { digest, size_bytes } = *expected;
                if partial.offset != size_bytes {
                    return Err(StoreError::Incomplete { durable: partial.offset, size_bytes });
                }
                let found = partial.digest(self.config.chunk_bytes_max).await?;
                if found != digest {
                    return Err(StoreError::DigestMismatch { expected: digest, found });
                }
                upload::promote(&self.disk, &self.layout, id, &digest).await?;
                *state = State::Gone;
                self.forget(id);
                Ok(size_bytes)
            }
        }
    }

    /// Whether a chunk of `found` bytes at `offset` may be added at `durable`.
    fn check_chunk(
        &self,
        expected: &Expected,
        durable: u64,
        offset: u64,
        found: u64,
    ) -> Result<(), StoreError> {
        if offset != durable {
            return Err(StoreError::WrongOffset { expected: durable });
        }
        let left = expected.size_bytes - offset;
        if found > left {
            return Err(StoreError::BeyondEnd { size_bytes: expected.size_bytes });
        }
        let ChunkBounds { min, max } = self.bounds();
        let too_small = found < u64::from(min) && found < left && found > 0;
        if found > u64::from(max) || too_small {
            return Err(StoreError::ChunkSize { found, min, max });
        }
        Ok(())
    }
}
