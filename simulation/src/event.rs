//! What can happen in the world, and when.

use crate::{ledger::Proposal, link::Down, link::Up};
use agent::reconcile::Step;
use model::{JobKey, Outcome};
use std::cmp::Ordering;

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// A proposal reaches the leader.
    Propose(Box<Proposal>),
    /// The leader's queue is held by a majority now.
    Commit { term: u64 },
    /// A node applies what is committed.
    Apply { node: usize, incarnation: u64 },
    /// Whoever proposed gets the answer.
    Answer { ticket: u64, outcome: Box<Outcome> },
    /// Heartbeats, elections, duties of leader and nodes.
    Beat,
    /// A node's planners look at what they own.
    Plan { node: usize, incarnation: u64 },
    /// A message of a host reaches a node.
    Up { connection: u64, message: Box<Up> },
    /// A message of a node reaches a host.
    Down { connection: u64, message: Box<Down> },
    /// An agent looks at its guards and its link.
    Tick { host: usize, incarnation: u64 },
    /// An agent asked to be woken.
    Wake { host: usize, incarnation: u64 },
    /// A step of a round takes effect.
    Step { host: usize, incarnation: u64, step: Box<Step>, stage: Stage },
    /// A crashed or rebooting agent comes back.
    AgentBack { host: usize, incarnation: u64 },
    /// A crashed node comes back.
    NodeBack { node: usize, incarnation: u64 },
    /// A guard dies without a word.
    KillGuard { host: usize, key: Box<JobKey> },
    /// A user does something.
    User,
    /// A user who got no answer asks again.
    Retry { request: usize },
    /// Something goes wrong.
    Fault,
    /// A broken link works again.
    Mend { link: crate::network::Link },
}

/// How far a step is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It begins.
    Begin,
    /// What ran before is gone: the new one starts.
    Second,
    /// It is over.
    Done(Result<bool, agent::reconcile::Failure>),
}

/// An event in the queue. Earlier is greater, so that a max-heap gives the earliest first; events of
/// one moment come in the order in which they were put in.
#[derive(Debug)]
pub(crate) struct Timed {
    pub(crate) at: u64,
    pub(crate) sequence: u64,
    pub(crate) event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}
