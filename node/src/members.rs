//! The seam to the Raft group as such: who belongs to it, and the calls of peers.
//!
//! Services need little of it, so it stands behind a trait: the real one is a `RaftLedger`, a node
//! without a group has [`Alone`].

use api::BoxFuture;
use bytes::Bytes;
use consensus::{
    Error, Ledger, LedgerStatus, Member, MemberChange, MemberRefusal, Method, Peer, PeerService,
    RaftLedger, ServiceError, StopReason,
};
use tokio::time::Instant;

/// What services ask of the Raft group.
pub trait Members: Send + Sync + 'static {
    /// The members as this node knows them, by id.
    fn members(&self) -> Vec<Member>;

    /// Figures for an operator.
    fn status(&self) -> LedgerStatus;

    /// Changes the members or the leader, through whichever node leads; safe to repeat.
    fn change(&self, change: MemberChange, deadline: Instant) -> BoxFuture<'_, Result<(), Error>>;

    /// Says that this node was removed, as a peer told it: its ledger ends.
    fn note_removed(&self);

    /// Stops this node's part in the group for good: the cluster will not have it as it is.
    fn halt(&self, reason: StopReason);

    /// Answers a peer's call.
    fn handle(&self, method: Method, body: Bytes) -> BoxFuture<'_, Result<Bytes, ServiceError>>;
}

/// The Raft group of a replicated ledger.
pub struct RaftMembers {
    ledger: RaftLedger,
    /// One for the life of the node: it holds the snapshot that is being received.
    peers: PeerService,
}

impl RaftMembers {
    /// That of `ledger`.
    pub fn new(ledger: RaftLedger) -> Self {
        let peers = ledger.peer_service();
        Self { ledger, peers }
    }
}

impl Members for RaftMembers {
    fn members(&self) -> Vec<Member> {
        self.ledger.members()
    }

    fn status(&self) -> LedgerStatus {
        self.ledger.status()
    }

    fn change(&self, change: MemberChange, deadline: Instant) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.ledger.change_members(change, deadline))
    }

    fn note_removed(&self) {
        self.ledger.note_removed();
    }

    fn halt(&self, reason: StopReason) {
        self.ledger.halt(reason);
    }

    fn handle(&self, method: Method, body: Bytes) -> BoxFuture<'_, Result<Bytes, ServiceError>> {
        Box::pin(self.peers.handle(method, body))
    }
}

/// No group: one node over a ledger that does not replicate.
pub struct Alone<L: Ledger>(pub L);

impl<L: Ledger> Members for Alone<L> {
    fn members(&self) -> Vec<Member> {
        let id = self.0.node_id();
        let known = self.0.read(|state| state.nodes.get(&id).cloned());
        let peer = known.map_or_else(Peer::default, |node| Peer {
            peer_addr: node.peer_addr,
            client_addr: node.client_addr,
        });
        vec![Member { id, peer, voter: true }]
    }

    fn status(&self) -> LedgerStatus {
        let leader = Some(self.0.node_id());
        LedgerStatus { term: 1, leader, ..LedgerStatus::default() }
    }

    fn change(&self, change: MemberChange, _: Instant) -> BoxFuture<'_, Result<(), Error>> {
        let me = self.0.node_id();
        let refused = match change {
            MemberChange::Add { .. } | MemberChange::Learn { .. } => None,
            MemberChange::Demote { id, .. } | MemberChange::Remove { id } if id == me => {
                Some(MemberRefusal::LastVoter { node: id })
            }
            MemberChange::Demote { .. } | MemberChange::Remove { .. } => None,
            MemberChange::Promote { id } | MemberChange::Transfer { to: Some(id), .. } => {
                (id != me).then_some(MemberRefusal::Unknown { node: id })
            }
            MemberChange::Transfer { to: None, .. } => Some(MemberRefusal::NobodyElse),
        };
        let answer = refused.map_or(Ok(()), |refused| Err(refused.into()));
        Box::pin(std::future::ready(answer))
    }

    fn halt(&self, _reason: StopReason) {}

    fn note_removed(&self) {}

    fn handle(&self, _method: Method, _body: Bytes) -> BoxFuture<'_, Result<Bytes, ServiceError>> {
        let alone = ServiceError::Stopped("this node has no peers".to_owned());
        Box::pin(std::future::ready(Err(alone)))
    }
}
