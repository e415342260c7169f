//! Copies of images between control nodes. Who calls has judged what its own caller may.

use crate::{
    artifacts::{Artifacts as Images, Held, Item},
    service::artifacts::named,
};
use api::{
    BoxStream,
    v1::{self, peer_artifacts_server::PeerArtifacts as Service},
};
use consensus::Ledger;
use storage::Disk;
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct PeerArtifacts<L: Ledger, D: Disk>(pub(crate) Images<L, D>);

fn status(held: Held) -> Response<v1::PeerArtifactStatus> {
    let Held { complete, sent, size_bytes } = held;
    Response::new(v1::PeerArtifactStatus { complete, durable_offset: sent, size_bytes })
}

fn item<L: Ledger, D: Disk>(tenant: &str, digest: &str, size_bytes: u64) -> Result<Item, Status> {
    let (tenant, digest) = named(tenant, digest)?;
    Images::<L, D>::item(&tenant, digest, size_bytes)
}

#[tonic::async_trait]
impl<L: Ledger, D: Disk> Service for PeerArtifacts<L, D> {
    async fn has(
        &self,
        request: Request<v1::PeerArtifactRequest>,
    ) -> Result<Response<v1::PeerArtifactStatus>, Status> {
        let call = self.0.shared().granted(request)?;
        let v1::PeerArtifactRequest { tenant, digest, size_bytes } = &call.request;
        Ok(status(self.0.held(&item::<L, D>(tenant, digest, *size_bytes)?).await?))
    }

    async fn write_chunk(
        &self,
        request: Request<v1::PeerChunk>,
    ) -> Result<Response<v1::PeerArtifactStatus>, Status> {
        let v1::PeerChunk { tenant, digest, size_bytes, offset, data } =
            self.0.shared().granted(request)?.request;
        let item = item::<L, D>(&tenant, &digest, size_bytes)?;
        Ok(status(self.0.take(&item, offset, data).await?))
    }

    async fn finish(
        &self,
        request: Request<v1::PeerArtifactRequest>,
    ) -> Result<Response<v1::PeerArtifactStatus>, Status> {
        let call = self.0.shared().granted(request)?;
        let v1::PeerArtifactRequest { tenant, digest, size_bytes } = &call.request;
        let item = item::<L, D>(tenant, digest, *size_bytes)?;
        let complete = self.0.finish_for_node(&item).await?;
        let held = self.0.held(&item).await?;
        Ok(status(Held { complete: complete && held.complete, ..held }))
    }

    type FetchStream = BoxStream<'static, Result<v1::PeerChunk, Status>>;

    async fn fetch(
        &self,
        request: Request<v1::PeerFetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let v1::PeerFetchRequest { tenant, digest, offset } =
            self.0.shared().granted(request)?.request;
        let item = item::<L, D>(&tenant, &digest, 0)?;
        let slot = self.0.download_slot()?;
        let held = self.0.held(&item).await?;
        let size_bytes = held.size_bytes;
        let wrap = move |offset, data| v1::PeerChunk {
            tenant: tenant.clone(),
            digest: digest.clone(),
            size_bytes,
            offset,
            data,
        };
        let item = Item { size_bytes, ..item };
        Ok(Response::new(self.0.send(item, (offset, held.durable()), slot, wrap)))
    }
}
