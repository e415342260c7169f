//! The control nodes as a whole: who leads, who belongs, how far each is.

use crate::{Shared, members::Members};
use api::v1::{self, control_plane_server::ControlPlane as Service};
use consensus::Ledger;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct ControlPlane<L: Ledger> {
    pub(crate) shared: Shared<L>,
    pub(crate) members: Arc<dyn Members>,
}

#[tonic::async_trait]
impl<L: Ledger> Service for ControlPlane<L> {
    async fn get_status(
        &self,
        request: Request<v1::GetControlPlaneStatusRequest>,
    ) -> Result<Response<v1::ControlPlaneStatus>, Status> {
        let _call = self.shared.granted(request)?;
        let leadership = *self.shared.ledger.leadership().borrow();
        let mut members: Vec<_> = self.members.members();
        members.sort_by_key(|member| member.id);
        let answer = self.shared.ledger.read(|state| {
            let member = |member: consensus::Member| {
                let role = match member.voter {
                    _ if leadership.leader == Some(member.id) => v1::MemberRole::Leader,
                    true => v1::MemberRole::Voter,
                    false => v1::MemberRole::Learner,
                };
                v1::Member {
                    id: member.id.0,
                    role: role.into(),
                    alive: state.nodes.get(&member.id).is_some_and(|node| node.alive),
                    peer_addr: member.peer.peer_addr,
                    client_addr: member.peer.client_addr,
                    matched_index: None,
                }
            };
            v1::ControlPlaneStatus {
                cluster_id: self.shared.cluster_id.to_string(),
                leader: leadership.leader.map(|id| id.0),
                term: leadership.term,
                revision: state.globals.revision.0,
                rules: state.globals.rules,
                members: members.into_iter().map(member).collect(),
                answered_by: self.shared.node_id.0,
            }
        });
        Ok(Response::new(answer))
    }
}
