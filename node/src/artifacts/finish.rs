//! The end of an upload: verified, judged, on a majority, registered.
//!
//! Every node judges for itself: one that is asked to finish a bad image finds it bad and removes what
//! it has, so nothing of it stays anywhere.

use super::{Artifacts, Item, answer};
use api::v1;
use artifact::{
    InspectError, StoreError,
    app_image::{Invalid, Validated},
};
use consensus::Ledger;
use futures::{StreamExt, stream::FuturesUnordered};
use model::{Caller, Command, RequestId};
use std::time::Duration;
use storage::Disk;
use tokio::time::Instant;
use tonic::Status;

impl<L: Ledger, D: Disk> Artifacts<L, D> {
    /// Finishes a tenant's upload, whether or not its caller stays to hear of it.
    pub(crate) async fn finish_upload(
        &self,
        item: Item,
        request_id: Option<RequestId>,
        deadline: Instant,
    ) -> Result<v1::FinishUploadResponse, Status> {
        self.inner.shared.linearize(deadline).await?;
        if let Some(image) = self.image(&item) {
            return Ok(v1::FinishUploadResponse { image: Some(image), warnings: Vec::new() });
        }
        let limit = Duration::from_millis(self.inner.config.finish_ms);
        let all = self.clone();
        let work = self.spawn(async move {
            let work = all.finish(item, request_id, Instant::now() + limit);
            tokio::time::timeout(limit, work).await
        });
        match work.await {
            Ok(Some(Ok(finished))) => finished,
            Ok(Some(Err(_elapsed))) => Err(answer::no_majority("finish the upload")),
            Ok(None) | Err(_) => Err(api::status::stopped()),
        }
    }

    async fn finish(
        &self,
        item: Item,
        request_id: Option<RequestId>,
        deadline: Instant,
    ) -> Result<v1::FinishUploadResponse, Status> {
        let survey = self.resumed(&item, deadline).await?;
        let item = Item { size_bytes: survey.size_bytes, ..item };
        if survey.sent < survey.size_bytes {
            return Err(api::status::upload_offset(survey.sent));
        }
        self.touch(&item.digest);
        let valid = match self.judge(&item).await {
            Ok(valid) => valid,
            Err(Judged::Bad(status)) => {
                self.remove_everywhere(&item).await;
                return Err(status);
            }
            Err(Judged::Unknown(status)) => return Err(status),
        };
        let application = Box::new(answer::application(&valid.manifest, item.digest)?);
        self.keep_at_majority(&item).await?;
        let (tenant, size_bytes) = (item.tenant.clone(), item.size_bytes);
        let digest = model::Digest(*item.digest.as_bytes());
        let command = Command::RegisterImage { tenant, digest, size_bytes, application };
        let shared = &self.inner.shared;
        let caller = Caller::Node(shared.node_id);
        let (revision, _) = shared.decided(caller, request_id, command, deadline).await?;
        let applied = shared.ledger.wait_for(revision, deadline).await;
        applied.map_err(|error| crate::refusal::of_ledger(&error))?;
        let image = self.image(&item);
        let image = image.ok_or_else(|| Status::aborted("the image was removed meanwhile"))?;
        let warnings = valid.warnings.iter().map(answer::warning).collect();
        Ok(v1::FinishUploadResponse { image: Some(image), warnings })
    }

    fn image(&self, item: &Item) -> Option<v1::Image> {
        let key = (item.tenant.clone(), model::Digest(*item.digest.as_bytes()));
        self.inner.shared.ledger.read(|state| {
            let image = state.images.get(&key)?;
            Some(api::convert::package::image_to_proto(&item.tenant, image))
        })
    }

    /// Verifies and keeps an item of which everything is here, and judges it.
    async fn judge(&self, item: &Item) -> Result<Validated, Judged> {
        let depot = &self.inner.depot;
        let blob = depot.finish(item).await.map_err(|error| match error {
            StoreError::DigestMismatch { .. } => Judged::Bad(answer::of_store(error)),
            error => Judged::Unknown(answer::of_store(error)),
        })?;
        super::lock(&self.inner.verified).insert(item.digest, Instant::now());
        if blob.size_bytes != item.size_bytes {
            return Err(Judged::Unknown(answer::unknown_upload()));
        }
        match self.inner.inspector.validate(&depot.store, &item.digest).await {
            Ok(valid) => Ok(valid),
            Err(InspectError::Invalid(Invalid::Violations(violations))) => {
                Err(Judged::Bad(answer::layout(&violations)))
            }
            Err(InspectError::Store(error)) => Err(Judged::Unknown(answer::of_store(error))),
            Err(error) => {
                tracing::error!(%error, digest = %item.digest, "could not read an image");
                Err(Judged::Unknown(api::status::fault()))
            }
        }
    }

    /// Has the other voters verify and keep an item; returns when a majority has it.
    async fn keep_at_majority(&self, item: &Item) -> Result<(), Status> {
        let voters = self.voters();
        let mut there = voters.own;
        let mut finishing = FuturesUnordered::new();
        for id in voters.others {
            let (all, item) = (self.clone(), item.clone());
            finishing.push(self.spawn(async move { all.finish_at(id, &item).await }));
        }
        while there < voters.majority {
            match finishing.next().await {
                Some(Ok(Some(Ok(true)))) => there += 1,
                Some(Ok(Some(Err(error)))) => {
                    tracing::debug!(%error, "a node did not keep an image");
                }
                Some(_) => {}
                None => return Err(answer::no_majority("keep the image")),
            }
        }
        Ok(())
    }

    /// Removes a bad item here, and has every other node find out that it is bad.
    async fn remove_everywhere(&self, item: &Item) {
        self.remove(item).await;
        let voters = self.voters();
        let limit = Duration::from_millis(self.inner.config.ask_ms);
        let mut telling: FuturesUnordered<_> =
            voters.others.iter().map(|id| self.finish_at(*id, item)).collect();
        let told = async { while telling.next().await.is_some() {} };
        // Who cannot be told lets the upload expire.
        if tokio::time::timeout(limit, told).await.is_err() {
            tracing::warn!(digest = %item.digest, "a refused upload lies on until it expires");
        }
    }

    async fn remove(&self, item: &Item) {
        let needed = self.is_used(&item.digest);
        if let Err(error) = self.inner.depot.remove(item, needed).await {
            tracing::warn!(%error, digest = %item.digest, "could not remove a refused upload");
        }
    }

    /// Finishes an item for another node. Answers whether all of it is here and good; what is bad is
    /// removed.
    pub(crate) async fn finish_for_node(&self, item: &Item) -> Result<bool, Status> {
        self.touch(&item.digest);
        let held = self.held(item).await?;
        if !held.complete && held.sent < item.size_bytes {
            let from: Vec<_> = match held.size_bytes {
                // It never came here, or was removed: a refused image must not be fetched again.
                0 => self.holders(item).await,
                _ => self.voters().others.into_iter().collect(),
            };
            if let Err(error) = self.pull(item, &from, item.size_bytes).await {
                // A majority without this node has all of it, or has refused it: what is here
                // counts for nothing any more. A registered image comes by repair.
                tracing::debug!(digest = %item.digest, %error, "gave an upload up");
                self.remove(item).await;
                return Ok(false);
            }
        }
        match self.judge(item).await {
            Ok(_valid) => {
                self.inner.depot.prove(item, item.size_bytes);
                Ok(true)
            }
            Err(Judged::Bad(_)) => {
                self.remove(item).await;
                Ok(false)
            }
            Err(Judged::Unknown(status)) => Err(status),
        }
    }
}

/// Why an upload is no image.
enum Judged {
    /// It never will be.
    Bad(Status),
    /// It could not be found out.
    Unknown(Status),
}
