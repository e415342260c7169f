//! The control nodes as a whole: who leads, who belongs, how far each is.

use crate::{
    Shared,
    members::Members,
    service::{Nouns, Terms},
};
use api::v1::{self, control_plane_server::ControlPlane as Service};
use consensus::Ledger;
use model::Command;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct ControlPlane<L: Ledger> {
    pub(crate) shared: Shared<L>,
    pub(crate) nouns: Nouns<L>,
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
                let known = state.nodes.get(&member.id);
                v1::Member {
                    id: member.id.0,
                    role: role.into(),
                    alive: known.is_some_and(|node| node.alive),
                    rules_max: known.map_or(0, |node| node.rules_max),
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

    async fn raise_rules(
        &self,
        request: Request<v1::RaiseRulesRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.shared.granted(request)?;
        let v1::RaiseRulesRequest { level, validate_only, request_id } = &call.request;
        self.shared.linearize(call.deadline).await?;
        let level = match level {
            0 => self.shared.ledger.read(|state| {
                let known = state.nodes.iter().map(|(_, node)| node.rules_max).min();
                known.unwrap_or_default().max(state.globals.rules)
            }),
            level => *level,
        };
        let terms = Terms { validate_only: *validate_only, request_id };
        self.nouns.changed(&call, Ok(Command::RaiseRules { level }), terms).await
    }
}
