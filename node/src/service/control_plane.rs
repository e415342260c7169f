//! The control nodes as a whole: who leads, who belongs, how far each is; and changing that.
//!
//! A node goes in three steps: it loses its vote, the state notes that it was removed and with its row
//! goes its work, and Raft lets it go. Each is safe to repeat, so asking again ends what was begun; what
//! nobody asks for again the leader ends by itself.

mod status;

use crate::{
    Shared,
    members::Members,
    refusal,
    service::{Nouns, Terms},
};
use api::v1::{self, control_plane_server::ControlPlane as Service};
use consensus::{Error, Ledger, MemberChange, MemberRefusal};
use model::{Caller, Command, NodeId, Outcome, rejection::Code};
use std::sync::Arc;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct ControlPlane<L: Ledger> {
    pub(crate) shared: Shared<L>,
    pub(crate) nouns: Nouns<L>,
    pub(crate) members: Arc<dyn Members>,
}

type Changed = Result<Response<v1::MembersChanged>, Status>;

#[tonic::async_trait]
impl<L: Ledger> Service for ControlPlane<L> {
    async fn get_status(
        &self,
        request: Request<v1::GetControlPlaneStatusRequest>,
    ) -> Result<Response<v1::ControlPlaneStatus>, Status> {
        let call = self.shared.granted(request)?;
        Ok(Response::new(self.status(call.deadline).await))
    }

    async fn promote(&self, request: Request<v1::PromoteNodeRequest>) -> Changed {
        let call = self.shared.granted(request)?;
        let id = NodeId(call.request.node);
        self.shared.linearize(call.deadline).await?;
        self.refuse_removed(id)?;
        let voted = self.members.members().iter().any(|member| member.id == id && member.voter);
        self.change(MemberChange::Promote { id }, call.deadline).await?;
        Ok(self.changed(id, !voted))
    }

    async fn remove(&self, request: Request<v1::RemoveNodeRequest>) -> Changed {
        let call = self.shared.granted(request)?;
        let v1::RemoveNodeRequest { node, force } = call.request;
        let id = NodeId(node);
        self.shared.linearize(call.deadline).await?;
        let is_member = self.members.members().iter().any(|member| member.id == id);
        let (known, gone) =
            (self.shared.ledger).read(|state| (state.nodes.contains(&id), state.was_removed(id)));
        if !is_member && !known {
            return match gone {
                true => Ok(self.changed(id, false)),
                false => Err(unknown(id)),
            };
        }
        self.change(MemberChange::Demote { id, force }, call.deadline).await?;
        self.note_removed(id, call.caller.clone(), call.deadline).await?;
        self.change(MemberChange::Remove { id }, call.deadline).await?;
        Ok(self.changed(id, true))
    }

    async fn transfer_leader(&self, request: Request<v1::TransferLeaderRequest>) -> Changed {
        let call = self.shared.granted(request)?;
        let to = call.request.node.map(NodeId);
        self.shared.linearize(call.deadline).await?;
        let mut leadership = self.shared.ledger.leadership();
        let Some(from) = leadership.borrow().leader else {
            return Err(refusal::of_ledger(&Error::NotLeader { hint: None }));
        };
        if let Some(to) = to {
            self.refuse_removed(to)?;
        }
        self.change(MemberChange::Transfer { from, to }, call.deadline).await?;
        let leads = |leader: Option<NodeId>| match to {
            Some(to) => leader == Some(to),
            None => leader.is_some_and(|leader| leader != from),
        };
        let heard = leadership.wait_for(|now| leads(now.leader));
        let heard = tokio::time::timeout_at(call.deadline, heard).await;
        let Ok(Ok(leader)) = heard.map(|now| now.map(|now| now.leader.unwrap_or(from))) else {
            return Err(refusal::of_ledger(&Error::Unknown));
        };
        Ok(self.changed(leader, leader != from))
    }

    async fn raise_rules(
        &self,
        request: Request<v1::RaiseRulesRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let call = self.shared.granted(request)?;
        let v1::RaiseRulesRequest { level, validate_only, request_id } = &call.request;
        self.shared.linearize(call.deadline).await?;
        let (in_force, known) = self.shared.ledger.read(|state| {
            let known = state.nodes.iter().map(|(_, node)| node.rules_max).min();
            (state.globals.rules, known.unwrap_or_default())
        });
        let level = if *level == 0 { known.max(in_force) } else { *level };
        // Releases before level 2 leave this to the leader alone, so they would remember another answer:
        // what cannot raise anything is not proposed.
        if level == in_force {
            let revision = self.shared.ledger.read(|state| state.globals.revision.0);
            return Ok(Response::new(v1::Outcome { revision, ..v1::Outcome::default() }));
        }
        if level > known {
            let message = format!("a control node knows rules levels up to {known} only");
            let refused = Code::RulesUnknown.reject(message).at("level").with("rules", level);
            return Err(refusal::of_rejection(&refused));
        }
        let terms = Terms { validate_only: *validate_only, request_id };
        self.nouns.changed(&call, Ok(Command::RaiseRules { level }), terms).await
    }
}

impl<L: Ledger> ControlPlane<L> {
    async fn change(&self, change: MemberChange, deadline: Instant) -> Result<(), Status> {
        let changed = self.members.change(change, deadline).await;
        changed.map_err(|error| refusal::of_ledger(&error))
    }

    /// Has the state note that a node was removed, in the name of who asks.
    async fn note_removed(
        &self,
        id: NodeId,
        caller: Caller,
        deadline: Instant,
    ) -> Result<(), Status> {
        let shared = &self.shared;
        let remove = || Command::RemoveNode { id };
        let mut outcome = shared.propose(caller, None, remove(), deadline).await?;
        if is_unknown(&outcome) {
            // It belongs to the group and never got a row: this node says so.
            outcome =
                shared.propose(Caller::Node(shared.node_id), None, remove(), deadline).await?;
        }
        match outcome.result {
            // Before the rules level that remembers removed nodes.
            Err(_) if is_unknown(&outcome) => Ok(()),
            Err(rejection) => Err(refusal::of_rejection(&rejection)),
            Ok(_) => Ok(()),
        }
    }

    fn refuse_removed(&self, id: NodeId) -> Result<(), Status> {
        match self.shared.ledger.read(|state| state.was_removed(id)) {
            true => Err(refusal::of_ledger(&MemberRefusal::Removed { node: id }.into())),
            false => Ok(()),
        }
    }

    fn changed(&self, id: NodeId, changed: bool) -> Response<v1::MembersChanged> {
        let leader = self.shared.ledger.leadership().borrow().leader;
        Response::new(v1::MembersChanged { node: id.0, changed, leader: leader.map(|id| id.0) })
    }
}

fn is_unknown(outcome: &Outcome) -> bool {
    let code = Code::UnknownNode.as_str();
    outcome.result.as_ref().is_err_and(|rejection| rejection.code == code)
}

fn unknown(id: NodeId) -> Status {
    refusal::of_ledger(&MemberRefusal::Unknown { node: id }.into())
}
