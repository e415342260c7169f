//! Numbers that order and fence: revisions, uids, assignments, control node ids.
//!
//! Nothing here is random: an id is given by a user or follows from the position of a command in
//! the log, so every replica derives the same one.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Position in the state's history: one step per command. 0 is the empty state.
///
/// Users see revisions (watch, `if_revision`, time travel). A Raft index is something else: one Raft
/// entry carries many commands.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of a resource for its whole life: the revision that created it and its ordinal within
/// that command. A resource deleted and created again under the same name has another uid.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Uid {
    /// Revision of the command that created the resource.
    pub revision: Revision,
    /// Ordinal of the resource within that command, from 0.
    pub ordinal: u32,
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.revision, self.ordinal)
    }
}

/// The fence of a placement: the revision at which it got its host. Agents refuse orders below the
/// newest assignment they saw for a job; control refuses reports on one that is not in force.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Assignment(pub u64);

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of a control node. Never used again, even by the same machine after it lost its disk.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
