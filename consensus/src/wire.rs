//! What nodes say to each other: versioned bodies for the opaque bytes of [`Transport`].
//!
//! Raft's own messages are Raft's types behind the codec's version byte. What is forwarded to the
//! leader is ours. Enums are appended only: nodes of two releases talk during an upgrade.
//!
//! [`Transport`]: crate::Transport

use crate::{
    Error, MemberChange,
    entry::Blob,
    jury::Ballot,
    types::{SnapshotMeta, Types, Vote},
};
use bytes::Bytes;
use model::{NodeId, Outcome};
use openraft::raft::SnapshotResponse;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use storage::{Fault, codec};

/// What a node asks the leader.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ForwardRequest {
    /// Put a command into the log, and answer within so many milliseconds.
    Propose { queued: Blob, deadline_ms: u64 },
    /// Confirm leadership to a node whose leases last so long, and say which log index a state must have
    /// reached.
    Linearize { node: NodeId, lease_ttl_ms: Option<u64>, deadline_ms: u64 },
    /// Change the members.
    ChangeMembers { change: MemberChange, deadline_ms: u64 },
    /// Take note of a node's state hashes, and tell it those of the others.
    Ballots { node: NodeId, ballots: Vec<Ballot> },
}

/// The leader's answer to a forwarded request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ForwardAnswer {
    /// The command has an outcome.
    Outcome(Outcome),
    /// A state with this log index applied is up to date. Leases may rest on it for as long as is said;
    /// the leader supports none of a node that is lost.
    Index { index: Option<u64>, lease_ttl_ms: Option<u64> },
    /// The members are as asked.
    Changed,
    /// It failed.
    Failed(Error),
    /// What nodes said their states are.
    Ballots(Vec<(NodeId, Ballot)>),
}

/// One chunk of a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum SnapshotChunk {
    /// The first shape.
    V1 {
        /// The leader's vote.
        vote: Vote,
        /// Which snapshot.
        meta: SnapshotMeta,
        /// Position of the first byte.
        offset: u64,
        /// The bytes.
        bytes: Blob,
        /// Whether it is the last chunk.
        last: bool,
    },
}

/// What a follower says to a chunk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ChunkAnswer {
    /// Held; send the next.
    Received,
    /// Not the chunk that follows: begin again.
    Restart,
    /// That was the last one, and Raft took the snapshot or refused the leader.
    Installed(SnapshotResponse<Types>),
    /// Everything before this position is held already: go on there.
    At { next: u64 },
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Bytes, Fault> {
    codec::encode(message).map(Bytes::from)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    codec::decode(bytes)
}
