//! Raft messages of peers: opaque bytes, passed on to consensus.

use crate::{Shared, members::Members};
use api::{
    limits::PEER_BYTES_MAX,
    v1::{self, raft_server::Raft as Service},
};
use bytes::{Bytes, BytesMut};
use consensus::{Ledger, Method};
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

/// The service.
pub(crate) struct Raft<L: Ledger> {
    pub(crate) shared: Shared<L>,
    pub(crate) members: Arc<dyn Members>,
}

/// Passes the bytes of a peer on, and a refusal back.
pub(crate) async fn pass_on(
    members: &dyn Members,
    method: Method,
    body: Bytes,
) -> Result<Response<v1::PeerPayload>, Status> {
    match members.handle(method, body).await {
        Ok(payload) => Ok(Response::new(v1::PeerPayload { payload })),
        Err(refused) => Err(Status::failed_precondition(refused.to_string())),
    }
}

#[tonic::async_trait]
impl<L: Ledger> Service for Raft<L> {
    async fn append(
        &self,
        request: Request<v1::PeerPayload>,
    ) -> Result<Response<v1::PeerPayload>, Status> {
        let call = self.shared.granted(request)?;
        pass_on(&*self.members, Method::Append, call.request.payload).await
    }

    async fn vote(
        &self,
        request: Request<v1::PeerPayload>,
    ) -> Result<Response<v1::PeerPayload>, Status> {
        let call = self.shared.granted(request)?;
        pass_on(&*self.members, Method::Vote, call.request.payload).await
    }

    async fn pre_vote(
        &self,
        request: Request<v1::PeerPayload>,
    ) -> Result<Response<v1::PeerPayload>, Status> {
        let call = self.shared.granted(request)?;
        pass_on(&*self.members, Method::PreVote, call.request.payload).await
    }

    /// One call carries one chunk of a snapshot, in as many parts as the sender likes.
    async fn snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotPart>>,
    ) -> Result<Response<v1::PeerPayload>, Status> {
        let mut parts = self.shared.granted(request)?.request;
        let mut body = BytesMut::new();
        while let Some(part) = parts.message().await? {
            if body.len() + part.data.len() > PEER_BYTES_MAX {
                return Err(Status::resource_exhausted("the chunk is too large"));
            }
            body.extend_from_slice(&part.data);
            if part.last {
                break;
            }
        }
        pass_on(&*self.members, Method::Snapshot, body.freeze()).await
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::PeerPayload>,
    ) -> Result<Response<v1::PeerPayload>, Status> {
        let call = self.shared.granted(request)?;
        pass_on(&*self.members, Method::TransferLeader, call.request.payload).await
    }
}
