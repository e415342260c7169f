//! The images and uploads on this node's own disk, seen by tenant.
//!
//! Content is stored once, whoever sent it. A tenant may still register only what it has sent itself:
//! where another tenant's upload has brought the bytes already, what is sent is compared with them, and
//! how far that got is remembered as the tenant's proof. A proof is lost with the process; the upload
//! then begins anew.

use crate::artifacts::ArtifactsConfig;
use artifact::{Begun, Blob, Digest, Store, StoreError, UploadId, Verdict};
use bytes::Bytes;
use model::{Clock, Name};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use storage::{Disk, DiskFile, Fault};

/// Content that comes or is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// The upload by which it comes.
    pub(crate) id: UploadId,
    pub(crate) tenant: Name,
    pub(crate) digest: Digest,
    /// Number of bytes; 0 if it is not known yet.
    pub(crate) size_bytes: u64,
}

impl Item {
    /// That of a tenant's upload.
    pub(crate) fn upload(tenant: &Name, digest: Digest, size_bytes: u64) -> Option<Self> {
        // A name has 63 characters at most: with dash and digest these are the 128 of an id.
        let id = format!("{tenant}-{}", digest.to_hex()).parse().ok()?;
        Some(Self { id, tenant: tenant.clone(), digest, size_bytes })
    }

    /// That of a copy of a registered image: an id that no upload has.
    pub(crate) fn copy(tenant: &Name, digest: Digest, size_bytes: u64) -> Option<Self> {
        let id = digest.to_hex().parse().ok()?;
        Some(Self { id, tenant: tenant.clone(), digest, size_bytes })
    }
}

/// How much of an item a node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Whether all of it is there, verified.
    pub(crate) complete: bool,
    /// How much of it the tenant has sent, from the start.
    pub(crate) sent: u64,
    /// Number of bytes in all; 0 if unknown.
    pub(crate) size_bytes: u64,
}

impl Held {
    /// Durable bytes from the start.
    pub(crate) fn durable(&self) -> u64 {
        if self.complete { self.size_bytes } else { self.sent }
    }
}

/// Why bytes were not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was sent is not what has the digest.
    #[error("the chunk is not part of the content announced")]
    OtherBytes,
}

/// Who says that the tenant has sent the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The tenant, now.
    Tenant,
    /// Another control node.
    Node,
}

struct Proof {
    digest: Digest,
    sent: u64,
    touched_ms: u64,
}

/// The content of one node.
pub(crate) struct Depot<D: Disk> {
    disk: D,
    pub(crate) store: Store<D>,
    root: PathBuf,
    clock: Arc<dyn Clock>,
    config: ArtifactsConfig,
    proofs: Mutex<BTreeMap<UploadId, Proof>>,
}

impl<D: Disk> Depot<D> {
    pub(crate) async fn open(
        disk: D,
        root: &Path,
        config: ArtifactsConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Fault> {
        let store = Store::open(disk.clone(), root, config.store(), clock.now().0).await?;
        let proofs = Mutex::default();
        Ok(Self { disk, store, root: root.to_owned(), clock, config, proofs })
    }

    fn now_ms(&self) -> u64 {
        self.clock.now().0
    }

    fn proofs(&self) -> MutexGuard<'_, BTreeMap<UploadId, Proof>> {
        // Every critical section leaves the map whole.
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much of an item is here.
    pub(crate) async fn held(&self, item: &Item) -> Result<Held, StoreError> {
        if let Some(Blob { size_bytes, .. }) = self.store.blob(&item.digest).await? {
            let sent = self.proofs().get(&item.id).map_or(0, |proof| proof.sent);
            return Ok(Held { complete: true, sent: sent.min(size_bytes), size_bytes });
        }
        let known = self.store.uploads().into_iter().find(|upload| upload.id == item.id);
        let Some(known) = known else { return Ok(Held::default()) };
        let size_bytes = known.size_bytes;
        match self.store.begin(&item.id, known.digest, size_bytes, self.now_ms()).await? {
            Begun::Present => Ok(Held { complete: true, sent: 0, size_bytes }),
            Begun::Upload { offset } => Ok(Held { complete: false, sent: offset, size_bytes }),
        }
    }

    /// Makes room for an item, or finds what there is of it.
    pub(crate) async fn begin(&self, item: &Item) -> Result<Begun, StoreError> {
        let is_copy = |id: &UploadId| !id.as_str().contains('-');
        let uploads = self.store.uploads();
        let others = || uploads.iter().filter(|one| !is_copy(&one.id) && one.id != item.id);
        let (number, bytes) = (others().count(), others().map(|one| one.size_bytes).sum::<u64>());
        let room = self.config.uploads_bytes_max.saturating_sub(bytes);
        if !is_copy(&item.id) && (number >= self.config.uploads_max || item.size_bytes > room) {
            return Err(StoreError::Busy { uploads: number, bytes });
        }
        self.store.begin(&item.id, item.digest, item.size_bytes, self.now_ms()).await
    }

    /// Takes bytes in, durably; those that are here already are passed over. Answers how much the
    /// tenant has sent.
    pub(crate) async fn take(
        &self,
        item: &Item,
        offset: u64,
        data: Bytes,
        source: Source,
    ) -> Result<u64, TakeError> {
        let end = offset.saturating_add(data.len() as u64);
        if offset > 0 && self.held(item).await?.size_bytes == 0 {
            // A chunk that comes late must not bring back an upload that was removed.
            return Err(StoreError::WrongOffset { expected: 0 }.into());
        }
        match self.begin(item).await? {
            Begun::Upload { offset: held } => {
                let Some(rest) = rest_of(offset, &data, held)? else { return Ok(held) };
                Ok(self.store.write(&item.id, held, rest, self.now_ms()).await?)
            }
            Begun::Present if source == Source::Node => {
                Ok(self.prove(item, end.min(item.size_bytes)))
            }
            Begun::Present => {
                let sent = self.prove(item, 0);
                let Some(rest) = rest_of(offset, &data, sent)? else { return Ok(sent) };
                let bytes = u32::try_from(rest.len()).unwrap_or(u32::MAX);
                let stored = self.store.read(&item.digest, sent, bytes).await?;
                match stored == rest {
                    true => Ok(self.prove(item, end)),
                    false => Err(TakeError::OtherBytes),
                }
            }
        }
    }

    /// Remembers that the tenant has sent the first `sent` bytes of content that is here. Answers
    /// how much it has sent in all.
    pub(crate) fn prove(&self, item: &Item, sent: u64) -> u64 {
        let now = self.now_ms();
        let mut proofs = self.proofs();
        if !proofs.contains_key(&item.id) && proofs.len() >= self.config.uploads_max {
            let oldest = proofs.iter().min_by_key(|(_, proof)| proof.touched_ms);
            if let Some(id) = oldest.map(|(id, _)| id.clone()) {
                proofs.remove(&id);
            }
        }
        let begun = Proof { digest: item.digest, sent: 0, touched_ms: now };
        let proof = proofs.entry(item.id.clone()).or_insert(begun);
        proof.touched_ms = now;
        proof.sent = proof.sent.max(sent);
        proof.sent
    }

    /// Bytes of an item from `offset` on, at most a chunk: of the whole content, or of what is
    /// durable of its upload.
    pub(crate) async fn bytes(
        &self,
        item: &Item,
        offset: u64,
        bytes_max: u64,
    ) -> Result<Bytes, StoreError> {
        let chunk = bytes_max.min(u64::from(self.config.chunk_bytes()));
        let bytes = u32::try_from(chunk).unwrap_or(u32::MAX);
        let held = self.held(item).await?;
        if !held.complete {
            let left = held.sent.saturating_sub(offset).min(u64::from(bytes));
            let file = self.disk.open(&self.root.join("uploads").join(item.id.as_str())).await;
            match file {
                Ok(file) => {
                    let left = usize::try_from(left).unwrap_or(usize::MAX);
                    return Ok(file.read_at(offset, left).await?);
                }
                // It became a blob just now.
                Err(fault) if fault.is_not_found() => {}
                Err(fault) => return Err(fault.into()),
            }
        }
        self.store.read(&item.digest, offset, bytes).await
    }

    /// Verifies an upload that is whole and keeps it.
    pub(crate) async fn finish(&self, item: &Item) -> Result<Blob, StoreError> {
        match self.store.finish(&item.id, self.now_ms()).await {
            Ok(blob) => {
                self.prove(item, blob.size_bytes);
                Ok(blob)
            }
            Err(StoreError::UnknownUpload(id)) => {
                let blob = self.store.blob(&item.digest).await?;
                blob.ok_or(StoreError::UnknownUpload(id))
            }
            Err(error) => Err(error),
        }
    }

    /// Verifies a copy that is whole and keeps it. It proves nothing of its tenant.
    pub(crate) async fn store_copy(&self, item: &Item) -> Result<(), StoreError> {
        match self.store.finish(&item.id, self.now_ms()).await {
            Ok(_) => Ok(()),
            // An upload has brought it meanwhile.
            Err(StoreError::UnknownUpload(_)) if self.store.blob(&item.digest).await?.is_some() => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Removes what there is of an item; the content itself unless it is `needed` by others.
    pub(crate) async fn remove(&self, item: &Item, needed: bool) -> Result<(), StoreError> {
        self.proofs().remove(&item.id);
        match self.store.abort(&item.id).await {
            Ok(()) | Err(StoreError::UnknownUpload(_)) => {}
            Err(error) => return Err(error),
        }
        if !needed {
            self.store.delete(&item.digest).await?;
        }
        Ok(())
    }

    /// Whether content is here and as its digest says. What is not is put aside.
    pub(crate) async fn verify(&self, digest: &Digest) -> Result<bool, StoreError> {
        match self.store.verify(digest).await? {
            Verdict::Good => Ok(true),
            Verdict::Absent => Ok(false),
            Verdict::Bad => {
                tracing::error!(%digest, "an image on the disk is damaged, put it aside");
                self.set_aside(digest).await?;
                Ok(false)
            }
        }
    }

    async fn set_aside(&self, digest: &Digest) -> Result<(), Fault> {
        let (blobs, aside) = (self.root.join("blobs/sha256"), self.root.join("aside"));
        self.disk.create_dir(&aside).await?;
        let kept = self.disk.list(&aside).await?;
        let surplus = (kept.len() + 1).saturating_sub(self.config.aside_max.max(1));
        for name in kept.iter().take(surplus) {
            self.disk.remove(&aside.join(name)).await?;
        }
        let name = digest.to_hex();
        self.disk.rename(&blobs.join(&name), &aside.join(&name)).await?;
        self.disk.sync_dir(&aside).await?;
        self.disk.sync_dir(&blobs).await
    }

    /// Removes uploads that nobody goes on with, and forgets proofs of such.
    pub(crate) async fn expire(&self) -> Result<(), StoreError> {
        let (now, idle) = (self.now_ms(), self.config.upload_idle_ms);
        self.proofs().retain(|_, proof| now.saturating_sub(proof.touched_ms) < idle);
        self.store.expire(now).await.map(drop)
    }

    /// Content that an upload or a proof is about.
    pub(crate) fn under_way(&self) -> BTreeSet<Digest> {
        let proofs: Vec<Digest> = self.proofs().values().map(|proof| proof.digest).collect();
        self.store.uploads().iter().map(|upload| upload.digest).chain(proofs).collect()
    }
}

/// What of a chunk is behind the `held` bytes; `None` if all of it is held.
fn rest_of(offset: u64, data: &Bytes, held: u64) -> Result<Option<Bytes>, StoreError> {
    let Some(known) = held.checked_sub(offset) else {
        return Err(StoreError::WrongOffset { expected: held });
    };
    match usize::try_from(known) {
        Ok(known) if known < data.len() => Ok(Some(data.slice(known..))),
        _ => Ok(None),
    }
}
