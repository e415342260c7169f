//! Bugs that tests plant to see that they are found.
//!
//! What is shipped has none: without the feature `planted-bugs` every question here has the answer "no"
//! before it is asked, and the compiler takes the bug out. With it one can be chosen when a node starts,
//! as the setting `raft.planted_bug` (`MUSTER_RAFT__PLANTED_BUG=ack-before-sync`). `tests/it/planted_bugs`
//! says which test finds which.

use serde::{Deserialize, Serialize};

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlantedBug {
    /// An entry counts as durable before it was synced.
    AckBeforeSync,
    /// A linearizable read is answered from the state as it is here.
    ReadWithoutReadIndex,
    /// A leader answers for its state without asking a majority whether it still leads.
    ReadWithoutQuorum,
    /// Some revisions are not in the journal.
    SkipJournalEntry,
    /// A node grants leases whether or not a majority confirmed that it may.
    LeaseWithoutQuorum,
}

/// What is planted in a node: nothing, mostly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Planted {
    #[cfg(feature = "planted-bugs")]
    bug: Option<PlantedBug>,
}

impl Planted {
    /// What the settings of a node say.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn of(config: &crate::Config) -> Self {
        Self { bug: config.planted_bug }
    }

    /// What the settings of a node say.
    #[cfg(not(feature = "planted-bugs"))]
    pub(crate) fn of(_config: &crate::Config) -> Self {
        Self {}
    }

    /// Whether it is this one.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn is(self, bug: PlantedBug) -> bool {
        self.bug == Some(bug)
    }

    /// Whether it is this one.
    #[cfg(not(feature = "planted-bugs"))]
    pub(crate) fn is(self, _bug: PlantedBug) -> bool {
        false
    }
}
