//! How nodes reach each other: one request with bytes, one answer with bytes, always a deadline.
//!
//! Raft and forwarding stand on [`Transport`] alone, so a simulation can put its own wire below
//! them; [`GrpcTransport`](crate::GrpcTransport) is the real one. A snapshot travels as a row of
//! ordinary calls, one per chunk, so that each has its own deadline.

pub(crate) mod grpc;
mod grpc_server;

use crate::Peer;
use bytes::Bytes;
use futures::future::BoxFuture;
use model::NodeId;
use tokio::time::Instant;

/// What is asked of a peer. The answer is opaque too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Raft: append entries, or a heartbeat.
    Append,
    /// Raft: vote.
    Vote,
    /// Raft: would you vote?
    PreVote,
    /// Raft: one chunk of a snapshot.
    Snapshot,
    /// Raft: become leader.
    TransferLeader,
    /// Forward: put a command into the log, or change the members.
    Propose,
    /// Forward: how new must a state be to be up to date?
    Linearize,
}

impl Method {
    /// The method's word in logs and traces.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Vote => "vote",
            Self::PreVote => "pre_vote",
            Self::Snapshot => "snapshot",
            Self::TransferLeader => "transfer_leader",
            Self::Propose => "propose",
            Self::Linearize => "linearize",
        }
    }
}

/// Calls of different lanes must not wait for each other: a transport whose connections can be
/// blocked by a large message keeps one per lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Replication of entries, votes.
    Replication,
    /// Heartbeats and lease confirmation.
    Heartbeat,
    /// Snapshots.
    Snapshot,
    /// Forwarded requests.
    Forward,
}

/// Whom to call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The node; the transport must make sure that it is the one that answers.
    pub id: NodeId,
    /// Where it is.
    pub peer: Peer,
    /// By which lane.
    pub lane: Lane,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Certainly not delivered: no connection.
    #[error("could not reach node {}: {reason}", to.0)]
    Unreachable {
        /// The node.
        to: NodeId,
        /// Why.
        reason: String,
    },
    /// May have been delivered: the deadline passed or the connection broke.
    #[error("lost the answer of node {}: {reason}", to.0)]
    Lost {
        /// The node.
        to: NodeId,
        /// Why.
        reason: String,
    },
    /// Delivered, and answered with word that the caller was removed from the cluster. Certainly not
    /// carried out.
    #[error("node {} says that this node was removed from the cluster", to.0)]
    Removed {
        /// The node.
        to: NodeId,
    },
    /// Delivered, and the node cannot serve it (stopping, or it does not understand it). Certainly
    /// not carried out.
    #[error("node {} refused: {reason}", to.0)]
    Refused {
        /// The node.
        to: NodeId,
        /// Why.
        reason: String,
    },
}

/// A wire between nodes.
pub trait Transport: Send + Sync + 'static {
    /// Sends `body` and waits for the answer until `deadline`, at which the transport gives up by
    /// itself and drops the connection that did not answer. Dropping the future cancels the call.
    fn call(
        &self,
        to: &Target,
        method: Method,
        body: Bytes,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>>;
}
