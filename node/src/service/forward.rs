//! Requests that only the leader can serve, from peers: opaque bytes, passed on to consensus.

use super::raft::pass_on;
use crate::{Shared, members::Members};
use api::v1::{self, forward_server::Forward as Service};
use consensus::{Ledger, Method};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct Forward<L: Ledger> {
    pub(crate) shared: Shared<L>,
    pub(crate) members: Arc<dyn Members>,
}

#[tonic::async_trait]
impl<L: Ledger> Service for Forward<L> {
    async fn propose(
        &self,
        request: Request<v1::PeerPayload>,
    ) -> Result<Response<v1::PeerPayload>, Status> {
        let call = self.shared.granted(request)?;
        pass_on(&*self.members, Method::Propose, call.request.payload).await
    }

    async fn linearize(
        &self,
        request: Request<v1::PeerPayload>,
    ) -> Result<Response<v1::PeerPayload>, Status> {
        let call = self.shared.granted(request)?;
        pass_on(&*self.members, Method::Linearize, call.request.payload).await
    }
}
