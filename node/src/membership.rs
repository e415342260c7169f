//! Seeing to it that this node belongs to the Raft group, under the addresses it has now.
//!
//! Level-triggered, until the group and the state say what is so: the first node of a cluster writes the
//! first rows, a newcomer asks to be taken in, a node that moved says where it is.

use crate::{Shared, bootstrap::FIRST_OPERATOR, members::Members, passport::NodeFile, refusal};
use api::{
    status::ClientError,
    v1::{self, join_client::JoinClient},
};
use consensus::{Ledger, MemberChange, Peer, StopReason};
use model::{Caller, Command, Name, Role, Scope, rejection::Code};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{Status, transport::Channel};

/// Opens a channel to the peer port at an address, whoever is there.
pub(crate) type DialPeer = Arc<dyn Fn(&str) -> Result<Channel, Status> + Send + Sync>;

/// The reason to stop, if the cluster refused this node for the rules levels it knows.
fn rules_unknown(status: &Status, known: u32) -> Option<StopReason> {
    let refused = api::status::ClientError::from(status.clone());
    let level = refused.metadata.get("rules").and_then(|level| level.parse().ok())?;
    (refused.reason == refusal::RULES_UNKNOWN).then_some(StopReason::RulesUnknown { level, known })
}

/// Sees to the membership of one node.
pub(crate) struct Membership<L: Ledger> {
    pub(crate) shared: Shared<L>,
    pub(crate) members: Arc<dyn Members>,
    pub(crate) node: NodeFile,
    /// Where this node is reached.
    pub(crate) here: Peer,
    pub(crate) dial: DialPeer,
}

impl<L: Ledger> Membership<L> {
    /// Works until all is as it should be, or the node stops.
    pub(crate) async fn run(self) {
        let pause = Duration::from_millis(self.shared.config.server.join_retry_ms);
        while !self.is_settled() {
            if let Err(status) = self.step().await {
                if let Some(reason) = rules_unknown(&status, self.shared.config.raft.rules_max) {
                    self.members.halt(reason);
                    return;
                }
                tracing::info!(error = %status, "this node is not settled in its cluster yet");
                if ClientError::from(status).reason == Code::NodeRemoved.as_str() {
                    return self.members.note_removed();
                }
            }
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
        tracing::info!(node = self.shared.node_id.0, "this node is settled in its cluster");
    }

    /// Whether the group and the state have this node where it is.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_member() && self.is_known()
    }

    /// Whether the group has this node here, as a voter unless it is to learn only.
    fn is_member(&self) -> bool {
        let (me, learner) = (self.shared.node_id, self.node.learner);
        let members = self.members.members();
        members.iter().any(|it| it.id == me && (it.voter || learner) && it.peer == self.here)
    }

    fn in_group(&self) -> MemberChange {
        let (id, peer) = (self.shared.node_id, self.here.clone());
        match self.node.learner {
            true => MemberChange::Learn { id, peer },
            false => MemberChange::Add { id, peer },
        }
    }

    fn is_known(&self) -> bool {
        self.shared.ledger.read(|state| {
            state.nodes.get(&self.shared.node_id).is_some_and(|node| {
                node.peer_addr == self.here.peer_addr
                    && node.client_addr == self.here.client_addr
                    && node.rules_max == self.shared.config.raft.rules_max
            })
        })
    }

    /// One step towards it.
    pub(crate) async fn step(&self) -> Result<(), Status> {
        let me = self.shared.node_id;
        let deadline = Instant::now() + Duration::from_millis(self.shared.config.server.join_ms);
        if !self.is_member() {
            let led = self.shared.ledger.leadership().borrow().leader.is_some();
            let members = self.members.members();
            let belongs = members.iter().any(|member| member.id == me);
            if led && belongs {
                let moved = self.members.change(self.in_group(), deadline).await;
                moved.map_err(|error| refusal::of_ledger(&error))?;
            } else if !self.node.bootstrap || members.iter().any(|member| member.id != me) {
                return self.ask_peers().await;
            }
        }
        if self.is_known() {
            return Ok(());
        }
        let deadline =
            Instant::now() + Duration::from_millis(self.shared.config.server.call_timeout_ms);
        self.shared.linearize(deadline).await?;
        let apply = Command::ApplyNode {
            id: me,
            peer_addr: self.here.peer_addr.clone(),
            client_addr: self.here.client_addr.clone(),
            rules_max: self.shared.config.raft.rules_max,
        };
        let is_new = self.shared.ledger.read(|state| state.nodes.is_empty());
        let command = match Name::new(FIRST_OPERATOR) {
            Ok(operator) if self.node.bootstrap && is_new => {
                let admin =
                    Command::BindRole { operator, scope: Scope::Cluster, role: Role::Admin };
                Command::Batch(vec![apply, admin])
            }
            _ => apply,
        };
        self.shared.decided(Caller::Node(me), None, command, deadline).await?;
        Ok(())
    }

    /// Asks the nodes known, one after the other, to be taken in.
    async fn ask_peers(&self) -> Result<(), Status> {
        let mut addrs = self.shared.ledger.read(|state| {
            let others = state.nodes.iter().filter(|(id, _)| **id != self.shared.node_id);
            others.map(|(_, node)| node.peer_addr.clone()).collect::<Vec<_>>()
        });
        addrs.extend(
            self.node
                .peers
                .iter()
                .filter(|addr| !addrs.contains(addr))
                .cloned()
                .collect::<Vec<_>>(),
        );
        let asked = v1::JoinRequest {
            node_id: self.shared.node_id.0,
            peer_addr: self.here.peer_addr.clone(),
            client_addr: self.here.client_addr.clone(),
            rules_max: self.shared.config.raft.rules_max,
            learner: self.node.learner,
        };
        let mut last = Status::unavailable("no other control node is known");
        for addr in addrs {
            let limit = Duration::from_millis(self.shared.config.server.join_ms);
            let asking = async { JoinClient::new((self.dial)(&addr)?).join(asked.clone()).await };
            match tokio::time::timeout(limit, asking).await {
                Ok(Ok(_taken_in)) => return Ok(()),
                Ok(Err(status)) => last = status,
                Err(_elapsed) => last = Status::deadline_exceeded("the node did not answer"),
            }
        }
        Err(last)
    }
}
