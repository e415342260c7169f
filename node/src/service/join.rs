//! Taking a node in, on the peer port.
//!
//! A node that has its certificate asks twice. First without an address: it gets the authority, which it
//! needs before it can serve. Then, once it serves Raft, with its addresses: it becomes a learner, a
//! voter when it has caught up unless it is to learn only, and the state learns where it is. Both are
//! safe to repeat.

use super::enrol::peers_of;
use crate::{Shared, members::Members, refusal};
use api::v1::{self, join_server::Join as Service};
use consensus::{Ledger, MemberChange, Peer};
use model::{Caller, Class, Command, NodeId};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct Join<L: Ledger> {
    pub(crate) shared: Shared<L>,
    pub(crate) members: Arc<dyn Members>,
}

#[tonic::async_trait]
impl<L: Ledger> Service for Join<L> {
    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let call = self.shared.granted(request)?;
        let asked = &call.request;
        let id = NodeId(asked.node_id);
        if call.caller != Caller::Node(id) {
            let message = "a node joins for itself only";
            let remedy = "name the node of the certificate";
            let other = refusal::refusal(Class::PermissionDenied, refusal::CALLER, message, remedy);
            return Err(refusal::of_rejection(&other));
        }
        self.shared.linearize(call.deadline).await?;
        need_rules(&self.shared, asked.rules_max)?;
        if !asked.peer_addr.is_empty() {
            self.take_in(id, asked, call.caller.clone()).await?;
        }
        Ok(Response::new(v1::JoinResponse {
            cluster_id: self.shared.cluster_id.to_string(),
            ca_pem: self.shared.authority.certificate_pem(),
            ca_key_pem: self.shared.authority.export_key().expose().clone(),
            peers: peers_of(&self.shared),
        }))
    }
}

/// Refuses a node that cannot decide by the rules in force, before it belongs to the group and gets
/// entries that it cannot apply. One that does not say what it knows is judged by the state.
pub(crate) fn need_rules<L: Ledger>(shared: &Shared<L>, rules_max: u32) -> Result<(), Status> {
    let level = shared.ledger.read(|state| state.globals.rules);
    if rules_max == 0 || rules_max >= level {
        return Ok(());
    }
    let message = format!(
        "rules level {level} is in force, and this release knows levels up to {rules_max} only"
    );
    let remedy = "start the node with the release that the other control nodes run";
    let refused =
        refusal::refusal(Class::FailedPrecondition, refusal::RULES_UNKNOWN, &message, remedy);
    let (field, details) = ("rules_max".to_owned(), [("rules".to_owned(), level.to_string())]);
    Err(refusal::of_rejection(&model::Rejection { field, details: details.into(), ..refused }))
}

impl<L: Ledger> Join<L> {
    async fn take_in(
        &self,
        id: NodeId,
        asked: &v1::JoinRequest,
        caller: Caller,
    ) -> Result<(), Status> {
        let deadline = Instant::now() + Duration::from_millis(self.shared.config.server.join_ms);
        let peer =
            Peer { peer_addr: asked.peer_addr.clone(), client_addr: asked.client_addr.clone() };
        tracing::info!(node = id.0, peer_addr = peer.peer_addr, "taking a node in");
        let change = match asked.learner {
            true => MemberChange::Learn { id, peer: peer.clone() },
            false => MemberChange::Add { id, peer: peer.clone() },
        };
        let added = self.members.change(change, deadline).await;
        added.map_err(|error| refusal::of_ledger(&error))?;
        let Peer { peer_addr, client_addr } = peer;
        let rules_max = asked.rules_max;
        let command = Command::ApplyNode { id, peer_addr, client_addr, rules_max };
        self.shared.decided(caller, None, command, deadline).await?;
        Ok(())
    }
}
