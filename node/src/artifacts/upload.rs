//! Uploads: begun, asked after and fed through any node.

use super::{Artifacts, Item, Source, answer, peers::Survey};
use api::v1;
use artifact::Digest;
use bytes::Bytes;
use consensus::Ledger;
use model::{Key, Name};
use std::collections::BTreeMap;
use storage::Disk;
use tokio::time::Instant;
use tonic::Status;

/// One chunk of a tenant's upload.
pub(crate) struct Chunk {
    pub(crate) tenant: Name,
    pub(crate) digest: Digest,
    pub(crate) offset: u64,
    pub(crate) data: Bytes,
}

impl<L: Ledger, D: Disk> Artifacts<L, D> {
    /// The item of a tenant's upload.
    pub(crate) fn item(tenant: &Name, digest: Digest, size_bytes: u64) -> Result<Item, Status> {
        let item = Item::upload(tenant, digest, size_bytes);
        item.ok_or_else(|| answer::field("tenant", "the tenant's name is too long", "shorten it"))
    }

    /// Refuses a tenant that does not exist, even to those who may do anything anywhere.
    pub(crate) async fn need_tenant(&self, tenant: &Name, deadline: Instant) -> Result<(), Status> {
        let ledger = &self.inner.shared.ledger;
        let exists = || ledger.read(|state| state.tenants.contains(tenant));
        if !exists() {
            self.inner.shared.linearize(deadline).await?;
        }
        match exists() {
            true => Ok(()),
            false => {
                let unknown = crate::service::unknown(&Key::Tenant(tenant.clone()));
                Err(crate::refusal::of_rejection(&unknown))
            }
        }
    }

    /// Starts an upload, or finds the one under way.
    pub(crate) async fn begin_upload(
        &self,
        tenant: &Name,
        (digest, size_bytes): (Digest, u64),
        deadline: Instant,
    ) -> Result<v1::Upload, Status> {
        self.inner.shared.linearize(deadline).await?;
        let item = Self::item(tenant, digest, size_bytes)?;
        if let Some(size_bytes) = self.registered(tenant, &digest) {
            return Ok(self.upload(&item, size_bytes, (size_bytes, true)));
        }
        let max = self.inner.config.image_bytes_max;
        if size_bytes == 0 || size_bytes > max {
            let message = format!("an image has 1 to {max} bytes");
            return Err(answer::field("size_bytes", &message, "state the size of the file"));
        }
        self.touch(&digest);
        self.inner.depot.begin(&item).await.map_err(answer::of_store)?;
        let sent = self.resumed(&item, deadline).await?.sent;
        Ok(self.upload(&item, size_bytes, (sent, false)))
    }

    /// Says how far an upload is.
    pub(crate) async fn get_upload(
        &self,
        tenant: &Name,
        digest: Digest,
        deadline: Instant,
    ) -> Result<v1::Upload, Status> {
        self.inner.shared.linearize(deadline).await?;
        let item = Self::item(tenant, digest, 0)?;
        if let Some(size_bytes) = self.registered(tenant, &digest) {
            return Ok(self.upload(&item, size_bytes, (size_bytes, true)));
        }
        let Survey { sent, size_bytes, .. } = self.resumed(&item, deadline).await?;
        Ok(self.upload(&item, size_bytes, (sent, false)))
    }

    /// Adds a chunk. Answers how many bytes a majority holds.
    pub(crate) async fn write_chunk(&self, chunk: Chunk, deadline: Instant) -> Result<u64, Status> {
        let Chunk { tenant, digest, offset, data } = chunk;
        if let Some(size_bytes) = self.registered(&tenant, &digest) {
            return Ok(size_bytes);
        }
        self.touch(&digest);
        let mut item = Self::item(&tenant, digest, 0)?;
        let held = self.held(&item).await?;
        item.size_bytes = held.size_bytes;
        if held.size_bytes == 0 || offset > held.sent {
            // It was begun, or went on, elsewhere.
            item.size_bytes = self.resumed(&item, deadline).await?.size_bytes;
        }
        self.check_chunk(&item, offset, data.len())?;
        let taken = self.inner.depot.take(&item, offset, data, Source::Tenant).await;
        let sent = taken.map_err(answer::of_take)?;
        // What was here before the call was not acknowledged for sure: others are asked in any case.
        self.spread(&item, (offset, sent), &BTreeMap::new(), deadline).await?;
        Ok(sent)
    }

    fn check_chunk(&self, item: &Item, offset: u64, bytes: usize) -> Result<(), Status> {
        let config = &self.inner.config;
        let (bytes, max) = (bytes as u64, u64::from(config.chunk_bytes()));
        let left = item.size_bytes.saturating_sub(offset);
        let min = u64::from(config.chunk_bytes_min).min(max).min(left).max(1);
        if bytes < min || bytes > max {
            let message = format!("a chunk here has {min} to {max} bytes");
            return Err(answer::field("data", &message, "send chunks of the size `Upload` says"));
        }
        if bytes > left {
            let message = format!("the upload has {} bytes in all", item.size_bytes);
            return Err(answer::field("data", &message, "begin an upload of the right size"));
        }
        Ok(())
    }

    /// Finds out how far an upload is anywhere, and sees to it that a majority is as far.
    pub(super) async fn resumed(&self, item: &Item, deadline: Instant) -> Result<Survey, Status> {
        let survey = tokio::time::timeout_at(deadline, self.survey(item)).await;
        let survey = survey.map_err(|_| answer::no_majority("say what they hold"))??;
        if survey.size_bytes == 0 {
            return Err(answer::unknown_upload());
        }
        let item = Item { size_bytes: survey.size_bytes, ..item.clone() };
        self.spread(&item, (0, survey.sent), &survey.known, deadline).await?;
        Ok(survey)
    }

    fn upload(&self, item: &Item, size_bytes: u64, (offset, finished): (u64, bool)) -> v1::Upload {
        v1::Upload {
            id: item.id.to_string(),
            offset,
            chunk_bytes: self.inner.config.chunk_bytes(),
            size_bytes,
            finished,
        }
    }
}
