//! The types by which Raft knows us. Nothing of this leaves the room but [`Peer`].

use crate::entry::Entry;
use model::Outcome;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a control node is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// `host:port` of its peer port.
    pub peer_addr: String,
    /// `host:port` of its client port.
    pub client_addr: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.peer_addr)
    }
}

/// What applying an entry answers: one outcome per command, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answers(pub(crate) Vec<Outcome>);

openraft::declare_raft_types!(
    /// Raft as this room uses it.
    pub(crate) Types:
        D = Entry,
        R = Answers,
        NodeId = u64,
        Node = Peer,
);

pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type LeaderId = openraft::alias::LeaderIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type RaftEntry = openraft::alias::EntryOf<Types>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
