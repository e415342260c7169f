//! What is registered is here and whole; what nobody has registered goes.
//!
//! Level-triggered: each look compares the state with the disk, whatever was missed before. A change of
//! the state is followed by a quick look for what is missing; a sweep reads back what has not been read
//! for long, and removes what has been without use for longer than an upload takes.

use super::{Artifacts, Item, answer, lock};
use artifact::Digest;
use consensus::Ledger;
use model::Name;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use storage::Disk;
use tokio::time::Instant;
use tonic::Status;

impl<L: Ledger, D: Disk> Artifacts<L, D> {
    /// Runs until it is dropped.
    pub(super) async fn repair(&self) {
        let sweep = Duration::from_millis(self.inner.config.sweep_ms);
        let settle = Duration::from_millis(self.inner.config.settle_ms);
        let mut applied = self.inner.shared.ledger.applied();
        let mut present = BTreeSet::new();
        let mut sweep_at = Instant::now();
        loop {
            if sweep_at <= Instant::now() {
                present = self.sweep().await;
                sweep_at = Instant::now() + sweep;
            }
            let wanted = self.wanted();
            present.retain(|digest| wanted.contains_key(digest));
            for (digest, (tenant, size_bytes)) in wanted {
                if present.contains(&digest) {
                    continue;
                }
                let Some(item) = Item::copy(&tenant, digest, size_bytes) else { continue };
                match self.ensure(&item).await {
                    Ok(()) => drop(present.insert(digest)),
                    Err(error) => tracing::debug!(%digest, %error, "an image is still missing"),
                }
            }
            let changed = async {
                if applied.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                () = changed => tokio::time::sleep(settle).await,
                () = tokio::time::sleep_until(sweep_at) => {}
            }
        }
    }

    /// Every image that is registered, with a tenant that has it.
    fn wanted(&self) -> BTreeMap<Digest, (Name, u64)> {
        self.inner.shared.ledger.read(|state| {
            let images = state.images.iter();
            images
                .map(|((tenant, digest), image)| {
                    (Digest::from_bytes(digest.0), (tenant.clone(), image.size_bytes))
                })
                .collect()
        })
    }

    /// Compares the whole disk with the state. Answers what is here and good.
    pub(super) async fn sweep(&self) -> BTreeSet<Digest> {
        let depot = &self.inner.depot;
        if let Err(error) = depot.expire().await {
            tracing::warn!(%error, "could not remove idle uploads");
        }
        let blobs = match depot.store.list().await {
            Ok(blobs) => blobs,
            Err(fault) => {
                tracing::error!(%fault, "could not list the images on the disk");
                return BTreeSet::new();
            }
        };
        let wanted = self.wanted();
        let mut good = BTreeSet::new();
        for blob in &blobs {
            if !wanted.contains_key(&blob.digest) {
                self.retire(blob.digest).await;
            } else if self.is_good(&blob.digest).await.unwrap_or(false) {
                good.insert(blob.digest);
            }
        }
        let here: BTreeSet<Digest> = blobs.iter().map(|blob| blob.digest).collect();
        lock(&self.inner.verified).retain(|digest, _| here.contains(digest));
        let unused = |digest: &Digest| here.contains(digest) && !wanted.contains_key(digest);
        lock(&self.inner.unused).retain(|digest, _| unused(digest));
        good
    }

    /// Removes content that has been without use for long enough.
    async fn retire(&self, digest: Digest) {
        let grace = Duration::from_millis(self.inner.config.unused_grace_ms);
        let since = *lock(&self.inner.unused).entry(digest).or_insert_with(Instant::now);
        let busy = self.inner.depot.under_way().contains(&digest);
        if busy || since.elapsed() < grace || self.is_used(&digest) {
            return;
        }
        match self.inner.depot.store.delete(&digest).await {
            Ok(_) => tracing::info!(%digest, "removed an image that nobody uses"),
            Err(error) => tracing::warn!(%digest, %error, "could not remove an image"),
        }
    }

    /// Whether content is here and was, lately, as its digest says.
    async fn is_good(&self, digest: &Digest) -> Result<bool, Status> {
        let age = Duration::from_millis(self.inner.config.verify_every_ms);
        let last = lock(&self.inner.verified).get(digest).copied();
        let depot = &self.inner.depot;
        if last.is_some_and(|last| last.elapsed() < age) {
            let blob = depot.store.blob(digest).await;
            return Ok(blob.map_err(|fault| answer::of_store(fault.into()))?.is_some());
        }
        let good = depot.verify(digest).await.map_err(answer::of_store)?;
        match good {
            true => drop(lock(&self.inner.verified).insert(*digest, Instant::now())),
            false => drop(lock(&self.inner.verified).remove(digest)),
        }
        Ok(good)
    }

    /// Makes sure that registered content is here and good: gets it from another node if need be.
    pub(super) async fn ensure(&self, item: &Item) -> Result<(), Status> {
        let lane = self.inner.fetching.of(&item.digest);
        let _turn = lane.lock().await;
        if self.is_good(&item.digest).await? {
            return Ok(());
        }
        let from = self.holders(item).await;
        self.pull(item, &from, item.size_bytes).await?;
        self.inner.depot.store_copy(item).await.map_err(answer::of_store)?;
        lock(&self.inner.verified).insert(item.digest, Instant::now());
        tracing::info!(digest = %item.digest, "fetched an image from another node");
        Ok(())
    }
}
