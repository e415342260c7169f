//! Images up and down, for operators and agents.

use crate::artifacts::{Artifacts as Images, Chunk, field};
use api::{
    BoxStream,
    v1::{self, artifacts_server::Artifacts as Service},
};
use artifact::Digest;
use consensus::Ledger;
use model::Name;
use storage::Disk;
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct Artifacts<L: Ledger, D: Disk>(pub(crate) Images<L, D>);

/// The tenant and the digest that a request names.
pub(crate) fn named(tenant: &str, digest: &str) -> Result<(Name, Digest), Status> {
    let tenant = Name::new(tenant)
        .map_err(|bad| field("tenant", &bad.to_string(), "name the tenant of the image"))?;
    let digest = digest.parse().map_err(|bad: artifact::DigestError| {
        field("digest", &bad.to_string(), "send the SHA-256 of all bytes")
    })?;
    Ok((tenant, digest))
}

fn check_id(id: &str, asked: &str) -> Result<(), Status> {
    match id == asked {
        true => Ok(()),
        false => {
            let message = "upload_id is not that of tenant and digest";
            Err(field("upload_id", message, "send the id that `BeginUpload` answered"))
        }
    }
}

#[tonic::async_trait]
impl<L: Ledger, D: Disk> Service for Artifacts<L, D> {
    async fn begin_upload(
        &self,
        request: Request<v1::BeginUploadRequest>,
    ) -> Result<Response<v1::Upload>, Status> {
        let call = self.0.shared().granted_in_tenant(request).await?;
        let v1::BeginUploadRequest { tenant, digest, size_bytes } = &call.request;
        let (tenant, digest) = named(tenant, digest)?;
        self.0.need_tenant(&tenant, call.deadline).await?;
        let upload = self.0.begin_upload(&tenant, (digest, *size_bytes), call.deadline).await?;
        Ok(Response::new(upload))
    }

    async fn get_upload(
        &self,
        request: Request<v1::GetUploadRequest>,
    ) -> Result<Response<v1::Upload>, Status> {
        let call = self.0.shared().granted_in_tenant(request).await?;
        let (tenant, digest) = named(&call.request.tenant, &call.request.digest)?;
        Ok(Response::new(self.0.get_upload(&tenant, digest, call.deadline).await?))
    }

    async fn write_chunk(
        &self,
        request: Request<v1::WriteChunkRequest>,
    ) -> Result<Response<v1::WriteChunkResponse>, Status> {
        let call = self.0.shared().granted_in_tenant(request).await?;
        let v1::WriteChunkRequest { tenant, upload_id, offset, data, digest } = call.request;
        let (tenant, digest) = named(&tenant, &digest)?;
        check_id(Images::<L, D>::item(&tenant, digest, 0)?.id.as_str(), &upload_id)?;
        let chunk = Chunk { tenant, digest, offset, data };
        let durable_offset = self.0.write_chunk(chunk, call.deadline).await?;
        Ok(Response::new(v1::WriteChunkResponse { durable_offset }))
    }

    async fn finish_upload(
        &self,
        request: Request<v1::FinishUploadRequest>,
    ) -> Result<Response<v1::FinishUploadResponse>, Status> {
        let call = self.0.shared().granted_in_tenant(request).await?;
        let v1::FinishUploadRequest { tenant, upload_id, digest, request_id } = &call.request;
        let (tenant, digest) = named(tenant, digest)?;
        let item = Images::<L, D>::item(&tenant, digest, 0)?;
        check_id(item.id.as_str(), upload_id)?;
        let request_id =
            api::request_id::parse(request_id).map_err(|bad| crate::refusal::of_rejection(&bad))?;
        let finished = self.0.finish_upload(item, request_id, call.deadline).await?;
        Ok(Response::new(finished))
    }

    type DownloadStream = BoxStream<'static, Result<v1::DownloadChunk, Status>>;

    async fn download(
        &self,
        request: Request<v1::DownloadRequest>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        let call = self.0.shared().granted_in_tenant(request).await?;
        let offset = call.request.offset;
        let (tenant, digest) = named(&call.request.tenant, &call.request.digest)?;
        let slot = self.0.download_slot()?;
        let item = self.0.for_download(&tenant, digest, call.deadline).await?;
        let size_bytes = item.size_bytes;
        if offset > size_bytes {
            let message = format!("the image has {size_bytes} bytes");
            return Err(field("offset", &message, "go on behind what you have"));
        }
        let wrap = move |offset, data| v1::DownloadChunk { offset, data, size_bytes };
        let chunks = self.0.send(item, (offset, size_bytes), slot, wrap);
        Ok(Response::new(self.0.shared().while_granted(&call, chunks)))
    }
}
