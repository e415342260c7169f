//! What can go wrong with a proposal, a linearizable read or a watch.
//!
//! The one question a caller has after an error is "may it have happened?". The variants of
//! [`Error`] answer it: all but [`Error::Unknown`] mean certainly not. A refusal by the rules is no
//! error: it is an `Outcome` that every replica agrees on.

use model::{NodeId, Revision};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Why a proposal or a linearizable read has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Error {
    /// Certainly not done: no leader could be reached, or the one asked is none.
    #[error("no leader took the request")]
    NotLeader {
        /// Who may be the leader.
        hint: Option<NodeId>,
    },
    /// Certainly not done: a bounded queue is full. Retry later.
    #[error("the ledger's queue is full")]
    Overloaded,
    /// Certainly not done: this ledger has stopped.
    #[error("the ledger has stopped")]
    Stopped,
    /// May be done: the deadline passed or contact was lost after it was handed over. Retry only with
    /// the same request id.
    #[error("the outcome of the request is not known")]
    Unknown,
    /// Certainly not done, and never will be: the command is larger than a log entry may be.
    #[error("the command has {bytes} bytes, at most {max} are taken")]
    TooLarge {
        /// Its size as it would stand in the log, in bytes.
        bytes: u64,
        /// The largest size taken, in bytes.
        max: u64,
    },
    /// Certainly not done: replicas differ, and no majority says which of them is right.
    #[error("control nodes differ in their state, and no majority says which is right")]
    Disputed,
    /// Certainly not done: the members stay as they are.
    #[error(transparent)]
    Members(#[from] MemberRefusal),
}

/// Why the members, or the leader, stay as they are. Appended only: nodes send it to each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum MemberRefusal {
    /// There is no such member.
    #[error("node {node} is no member of the cluster")]
    Unknown {
        /// The node.
        node: NodeId,
    },
    /// It was a member once and never will be again.
    #[error("node {node} was removed from the cluster")]
    Removed {
        /// The node.
        node: NodeId,
    },
    /// Only a voter can lead.
    #[error("node {node} is a learner, and only a voter can lead")]
    Learner {
        /// The node.
        node: NodeId,
    },
    /// The leader does not hear it.
    #[error("node {node} is out of contact with the leader")]
    Silent {
        /// The node.
        node: NodeId,
    },
    /// It has not caught up.
    #[error("node {node} is {lag} entries behind, at most {max} are allowed")]
    Lagging {
        /// The node.
        node: NodeId,
        /// How many entries it lacks.
        lag: u64,
        /// How many it may lack.
        max: u64,
    },
    /// Somebody must vote.
    #[error("node {node} is the only voter")]
    LastVoter {
        /// The node.
        node: NodeId,
    },
    /// Without it nothing could be written any more.
    #[error(
        "without node {node} there are {voters} voters, of which {up} are in contact and {needed} are needed"
    )]
    NoQuorum {
        /// The node.
        node: NodeId,
        /// Voters that would remain.
        voters: u64,
        /// How many of those are in contact.
        up: u64,
        /// How many must be.
        needed: u64,
    },
    /// Leadership was offered; another election decides.
    #[error("node {node} did not take leadership over in time")]
    NotTakenOver {
        /// The node.
        node: NodeId,
    },
    /// No other voter is in contact.
    #[error("no other voter is in contact that could lead")]
    NobodyElse,
}

impl Error {
    /// Whether the request certainly had no effect, so that repeating it is safe without a request
    /// id.
    pub fn certainly_not_done(&self) -> bool {
        match self {
            Self::NotLeader { .. }
            | Self::Overloaded
            | Self::Stopped
            | Self::TooLarge { .. }
            | Self::Disputed
            | Self::Members(_) => true,
            Self::Unknown => false,
        }
    }
}

/// Why a watch cannot start, or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The revisions asked for are gone from this node's journal: read the state again.
    #[error("the revisions asked for are compacted, the oldest kept is {oldest}")]
    Compacted {
        /// The oldest revision this node can still show.
        oldest: Revision,
    },
    /// The watcher was slower than the log and was cut: watch again after `resume_revision`.
    #[error("the watcher was too slow and was cut, resume after {resume_revision}")]
    Lagged {
        /// The last revision the watcher has seen.
        resume_revision: Revision,
    },
    /// The journal could not be read, or this ledger stopped.
    #[error("the ledger has stopped")]
    Stopped,
}

/// Why a ledger stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// It was asked to.
    #[error("the ledger was shut down")]
    Shutdown,
    /// Raft ended: a disk or codec failed. The node must start anew.
    #[error("raft ended: {0}")]
    Fatal(String),
    /// The rules in force are beyond this build, so that it could not decide as the others do.
    #[error(
        "rules level {level} is in force in this cluster, and this release of muster knows levels up \
         to {known} only; start the node with the release that the other control nodes run"
    )]
    RulesUnknown {
        /// The level in force.
        level: u32,
        /// The newest level known here.
        known: u32,
    },
    /// The state of this replica is not that of the majority.
    #[error(
        "at log index {index} the state of this node is not the one that a majority of the control \
         nodes agrees on ({} has the hash of each of its rows); start the node again: it sets its \
         state aside and rebuilds it from snapshot and log", rows.display()
    )]
    Diverged {
        /// Where it was found.
        index: u64,
        /// A file for comparison with those of other nodes; empty if it could not be written.
        rows: PathBuf,
    },
    /// This node was removed from its cluster: it must not start again.
    #[error("node {} was removed from its cluster", node.0)]
    Removed {
        /// Its id.
        node: NodeId,
    },
}
