//! Figures of a ledger for an operator.

use model::NodeId;

/// Where a ledger stands. Indexes are positions in Raft's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerStatus {
    /// Raft's term.
    pub term: u64,
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// Last entry in the log here.
    pub last_log_index: Option<u64>,
    /// Last entry known to be committed.
    pub committed_index: Option<u64>,
    /// Last entry applied here.
    pub applied_index: Option<u64>,
    /// Last entry in the newest snapshot here.
    pub snapshot_index: Option<u64>,
    /// Last entry purged from the log here.
    pub purged_index: Option<u64>,
    /// Last entry in the state that was in the store when this node started; what follows it was
    /// applied again.
    pub restored_index: Option<u64>,
}
