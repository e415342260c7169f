//! The ledger as every other room sees it: propose a command, read the state, watch it change.
//!
//! [`Ledger`] hides replication: a proposal through any node reaches the leader, a read lends the
//! state of this node, and [`Ledger::linearize`] says how new that state must be to hold every
//! write answered before. `RaftLedger` replicates; `MemoryLedger` is one process, for tests.

use crate::{Error, Leases, WatchError, WatchStream};
use model::{Caller, Change, Command, NodeId, Outcome, RequestId, Revision, State, Timestamp};
use std::{future::Future, sync::Arc};
use tokio::{sync::watch, time::Instant};

/// A command on its way into the log.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// What is asked.
    pub command: Command,
    /// Who asks, as authenticated by the node that took the request.
    pub caller: Caller,
    /// Names the request across retries. Without it an ambiguous try is never repeated.
    pub request_id: Option<RequestId>,
    /// When the caller stops waiting. Every retry inside the ledger ends by then.
    pub deadline: Instant,
}

/// One revision, as watchers see it. Refused commands have a revision too, mostly without changes.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// The revision.
    pub revision: Revision,
    /// Its time.
    pub time: Timestamp,
    /// Who asked for it.
    pub caller: Caller,
    /// The rows it touched in key order, each with the row before.
    pub changes: Arc<[Change]>,
}

/// What this node knows of leadership.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// Raft's term.
    pub term: u64,
    /// Whether this node is the leader.
    pub is_leader: bool,
    /// A moment since which a majority has followed the leader that this node follows: on the leader
    /// its last quorum confirmation, on a follower the start of its last request that the leader
    /// confirmed with a majority (each follower asks a few times a second). `None` when none is
    /// known. Leases of hosts need more than that: see [`Leases`].
    pub quorum_at: Option<Instant>,
}

/// The replicated ledger of one control cluster, seen from one node. Clones share it.
pub trait Ledger: Clone + Send + Sync + 'static {
    /// Puts a command into the log and answers once this cluster has committed and applied it. Any
    /// node takes it and forwards to the leader. With a request id an ambiguous try is repeated
    /// until the deadline.
    ///
    /// # Errors
    /// See [`Error`]; a refusal by the rules is an `Ok(Outcome)`.
    fn propose(&self, proposal: Proposal) -> impl Future<Output = Result<Outcome, Error>> + Send;

    /// Waits until the local state holds every write answered before this call, anywhere, and
    /// returns its revision then.
    ///
    /// # Errors
    /// [`Error::NotLeader`] when no leader confirmed in time.
    fn linearize(&self, deadline: Instant) -> impl Future<Output = Result<Revision, Error>> + Send;

    /// Waits until the local state is at least at `revision`.
    ///
    /// # Errors
    /// [`Error::Unknown`] at the deadline, [`Error::Stopped`] when the ledger stops first.
    fn wait_for(
        &self,
        revision: Revision,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Lends the local applied state. Applying waits while `reader` runs: keep it short, or clone the
    /// state (a fork costs a few pointers).
    fn read<R>(&self, reader: impl FnOnce(&State) -> R) -> R;

    /// Every revision above `after`, in order, none missing, none twice.
    ///
    /// # Errors
    /// [`WatchError::Compacted`] when this node no longer has the next revision.
    fn watch(&self, after: Revision) -> Result<WatchStream, WatchError>;

    /// The newest applied revision; moves after each applied entry.
    fn applied(&self) -> watch::Receiver<Revision>;

    /// Leadership as this node knows it.
    fn leadership(&self) -> watch::Receiver<Leadership>;

    /// What leases of hosts rest on here, and what the leader has heard of other nodes.
    fn leases(&self) -> &Leases;

    /// This node.
    fn node_id(&self) -> NodeId;
}
