//! The gRPC face of [`PeerService`]: what the peer port serves for consensus.
//!
//! Whoever mounts it lets only control nodes of this cluster in.

use super::{Method, grpc::REFUSED};
use crate::PeerService;
use api::v1::{PeerPayload, SnapshotPart, forward_server::Forward, raft_server::Raft};
use bytes::Bytes;
use tonic::{Request, Response, Status, Streaming};

type Answer = Result<Response<PeerPayload>, Status>;

impl PeerService {
    async fn answer(&self, method: Method, body: Bytes) -> Answer {
        match self.handle(method, body).await {
            Ok(payload) => Ok(Response::new(PeerPayload { payload })),
            Err(error) => Err(Status::new(REFUSED, error.to_string())),
        }
    }
}

#[tonic::async_trait]
impl Raft for PeerService {
    async fn append(&self, request: Request<PeerPayload>) -> Answer {
        self.answer(Method::Append, request.into_inner().payload).await
    }

    async fn vote(&self, request: Request<PeerPayload>) -> Answer {
        self.answer(Method::Vote, request.into_inner().payload).await
    }

    async fn pre_vote(&self, request: Request<PeerPayload>) -> Answer {
        self.answer(Method::PreVote, request.into_inner().payload).await
    }

    async fn snapshot(&self, request: Request<Streaming<SnapshotPart>>) -> Answer {
        let mut parts = request.into_inner();
        let mut answer = Err(Status::new(REFUSED, "no part was sent"));
        while let Some(part) = parts.message().await? {
            answer = Ok(self.answer(Method::Snapshot, part.header).await?);
        }
        answer
    }

    async fn transfer_leader(&self, request: Request<PeerPayload>) -> Answer {
        self.answer(Method::TransferLeader, request.into_inner().payload).await
    }
}

#[tonic::async_trait]
impl Forward for PeerService {
    async fn propose(&self, request: Request<PeerPayload>) -> Answer {
        self.answer(Method::Propose, request.into_inner().payload).await
    }

    async fn linearize(&self, request: Request<PeerPayload>) -> Answer {
        self.answer(Method::Linearize, request.into_inner().payload).await
    }
}
