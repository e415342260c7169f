//! Which replica is wrong: the word of a majority on the hash of the state.
//!
//! Every node remembers the hash of its state at fixed log indexes and tells it to the others through
//! the leader. A hash that a majority of the voters has at an index is right there; who has another
//! one is odd and must stop, be it the leader. Where voters differ and no majority agrees, nobody is
//! stopped by guess: the state is disputed, no write is taken and no snapshot made, and every node
//! also votes on the state it has now, until a majority agrees on one index again. So a voter that
//! was away settles it when it is back, and with an even split the operator does: see docs/upgrades.md.
//!
//! Hashes of builds that hash rows otherwise are not compared: they would differ without a difference.

use model::{HASH_FORMAT, NodeId, Revision, State};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Indexes remembered.
const INDEXES_MAX: usize = 64;
/// Own states kept for a dump, of the newest indexes that are not settled. A fork costs what is
/// written after it.
const FORKS_MAX: usize = 2;
/// Ballots in one message.
pub(crate) const BALLOTS_MAX: usize = 16;

/// What a node says its state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ballot {
    /// The log index applied.
    pub(crate) index: u64,
    /// What the hash is made of.
    pub(crate) format: u32,
    /// The hash of the state.
    pub(crate) hash: u128,
}

/// The newest entry applied here, and the state after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) index: u64,
    pub(crate) revision: Revision,
    pub(crate) hash: u128,
}

/// This node is odd.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    /// Where it differs.
    pub(crate) index: u64,
    /// The hash of its state there.
    pub(crate) own: u128,
    /// The hash that a majority has.
    pub(crate) agreed: u128,
    /// Who has which.
    pub(crate) ballots: Vec<(NodeId, u128)>,
}

#[derive(Default)]
struct At {
    ballots: BTreeMap<NodeId, Ballot>,
    /// This node's state there.
    fork: Option<State>,
}

impl At {
    /// The ballot that a majority of the voters agrees on.
    fn agreed(&self, voters: &BTreeSet<NodeId>) -> Option<Ballot> {
        let of_voters = || self.of_voters(voters);
        let agree = |ballot: &&Ballot| of_voters().filter(|other| other == ballot).count();
        of_voters().find(|ballot| agree(ballot) > voters.len() / 2).copied()
    }

    fn differs(&self, voters: &BTreeSet<NodeId>) -> bool {
        let of_voters = || self.of_voters(voters);
        of_voters().any(|one| of_voters().any(|other| one.differs(other)))
    }

    fn of_voters(&self, voters: &BTreeSet<NodeId>) -> impl Iterator<Item = &Ballot> {
        self.ballots.iter().filter(|(id, _)| voters.contains(id)).map(|(_, ballot)| ballot)
    }
}

impl Ballot {
    fn differs(&self, other: &Self) -> bool {
        self.format == other.format && self.hash != other.hash
    }
}

/// What this node knows of the states of all.
pub(crate) struct Jury {
    me: NodeId,
    newest: Option<Applied>,
    at: BTreeMap<u64, At>,
    /// A majority agreed at this index: what was open before does not matter any more.
    settled: Option<u64>,
    disputed: bool,
    /// The others hold a ballot that an earlier life of this node gave, and none of this one.
    outlived: bool,
}

impl Jury {
    pub(crate) fn new(me: NodeId) -> Self {
        Self {
            me,
            newest: None,
            at: BTreeMap::new(),
            settled: None,
            disputed: false,
            outlived: false,
        }
    }

    /// Takes note of every entry applied; `fork` where its state is to be voted on.
    pub(crate) fn applied(&mut self, applied: Applied, fork: Option<State>) {
        self.newest = Some(applied);
        if fork.is_some() {
            self.vote(applied, fork);
        }
    }

    /// The state was replaced as a whole: what this node said of the one before is void.
    pub(crate) fn replaced(&mut self, applied: Option<Applied>) {
        for at in self.at.values_mut() {
            at.ballots.remove(&self.me);
            at.fork = None;
        }
        self.newest = applied;
    }

    /// The newest entry, to be voted on because that may end a dispute, and it was not yet.
    pub(crate) fn open_vote(&self) -> Option<Applied> {
        let newest = self.newest.filter(|_| self.disputed || self.outlived)?;
        let voted = self.at.get(&newest.index).is_some_and(|at| at.ballots.contains_key(&self.me));
        (!voted).then_some(newest)
    }

    /// Votes on the state after `applied`; `fork` is that state if it is at hand.
    pub(crate) fn vote(&mut self, applied: Applied, fork: Option<State>) {
        let Applied { index, hash, .. } = applied;
        let (me, ballot) = (self.me, Ballot { index, format: HASH_FORMAT, hash });
        self.take(me, [ballot]);
        if let Some(at) = self.at.get_mut(&index) {
            at.fork = fork;
        }
        let forks = self.at.values_mut().rev().filter(|at| at.fork.is_some());
        forks.skip(FORKS_MAX).for_each(|at| at.fork = None);
    }

    /// Takes note of what a node says.
    pub(crate) fn take(&mut self, node: NodeId, ballots: impl IntoIterator<Item = Ballot>) {
        for ballot in ballots.into_iter().take(BALLOTS_MAX) {
            self.at.entry(ballot.index).or_default().ballots.insert(node, ballot);
            if self.at.len() > INDEXES_MAX {
                self.at.pop_first();
            }
        }
    }

    /// Takes note of what the leader knows.
    pub(crate) fn hear(&mut self, all: impl IntoIterator<Item = (NodeId, Ballot)>) {
        self.outlived = false;
        for (node, ballot) in all {
            if node != self.me {
                self.take(node, [ballot]);
                continue;
            }
            let at = self.at.get(&ballot.index);
            self.outlived |= !at.is_some_and(|at| at.ballots.contains_key(&self.me));
        }
    }

    /// What this node has to say to the others: its newest ballots that are not settled.
    pub(crate) fn own(&self) -> Vec<Ballot> {
        let open = self.open().filter_map(|(_, at)| at.ballots.get(&self.me).copied());
        open.take(BALLOTS_MAX).collect()
    }

    /// What all said at the indexes asked for, and wherever it is not settled; newest first.
    pub(crate) fn of_all(&self, asked: &[Ballot]) -> Vec<(NodeId, Ballot)> {
        let is_asked = |index: &u64| asked.iter().any(|ballot| ballot.index == *index);
        let open = |index: &u64| self.settled.is_none_or(|settled| *index > settled);
        let shown = self.at.iter().rev().filter(|(index, _)| is_asked(index) || open(index));
        let shown = shown.take(BALLOTS_MAX);
        shown.flat_map(|(_, at)| at.ballots.iter().map(|(id, ballot)| (*id, *ballot))).collect()
    }

    /// Whether voters differ and no majority says who is right.
    pub(crate) fn is_disputed(&self) -> bool {
        self.disputed
    }

    /// Counts. Answers if this node turns out to be odd.
    pub(crate) fn judge(&mut self, voters: &BTreeSet<NodeId>) -> Option<Verdict> {
        let agreed = |(index, at): (&u64, &At)| at.agreed(voters).map(|ballot| (*index, ballot));
        let newest = self.at.iter().rev().find_map(agreed);
        self.settled = self.settled.max(newest.map(|(index, _)| index));
        let disputed = self.open().any(|(_, at)| at.differs(voters));
        self.disputed = disputed;
        for (index, at) in &mut self.at {
            if self.settled.is_some_and(|settled| *index < settled) && !at.differs(voters) {
                at.fork = None;
            }
        }
        self.at.iter().rev().find_map(|(index, at)| {
            let (agreed, own) = (at.agreed(voters)?, at.ballots.get(&self.me)?);
            own.differs(&agreed).then(|| Verdict {
                index: *index,
                own: own.hash,
                agreed: agreed.hash,
                ballots: at.ballots.iter().map(|(id, ballot)| (*id, ballot.hash)).collect(),
            })
        })
    }

    /// The newest index at which somebody differs from this node, and this node's state there.
    pub(crate) fn compared(&self) -> Option<(u64, State)> {
        self.at.iter().rev().find_map(|(index, at)| {
            let own = at.ballots.get(&self.me)?;
            let differs = at.ballots.values().any(|other| other.differs(own));
            Some((*index, at.fork.clone().filter(|_| differs)?))
        })
    }

    fn open(&self) -> impl Iterator<Item = (&u64, &At)> {
        let open = |index: &u64| self.settled.is_none_or(|settled| *index > settled);
        self.at.iter().rev().filter(move |(index, _)| open(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(nodes: u64) -> BTreeSet<NodeId> {
        (1..=nodes).map(NodeId).collect()
    }

    fn ballot(index: u64, hash: u128) -> Ballot {
        Ballot { index, format: HASH_FORMAT, hash }
    }

    fn jury(own: &[(u64, u128)]) -> Jury {
        let mut jury = Jury::new(NodeId(1));
        for (index, hash) in own {
            let applied = Applied { index: *index, revision: Revision(*index), hash: *hash };
            jury.applied(applied, Some(State::default()));
        }
        jury
    }

    #[test]
    fn a_majority_says_who_is_odd_and_one_voice_says_nothing() {
        let mut one = jury(&[(8, 5)]);
        one.take(NodeId(2), [ballot(8, 6)]);
        assert!(one.judge(&voters(3)).is_none(), "one against one");
        assert!(one.is_disputed());
        assert_eq!(one.compared().map(|(index, _)| index), Some(8));
        one.take(NodeId(3), [ballot(8, 6)]);
        let verdict = one.judge(&voters(3)).unwrap();
        assert_eq!((verdict.index, verdict.own, verdict.agreed), (8, 5, 6));
        assert!(!one.is_disputed());
        // With five voters two are not enough.
        assert!(one.judge(&voters(5)).is_none());
    }

    #[test]
    fn the_odd_one_is_another_and_learners_do_not_vote() {
        let mut one = jury(&[(8, 5)]);
        one.take(NodeId(2), [ballot(8, 5)]);
        one.take(NodeId(3), [ballot(8, 6)]);
        assert!(one.judge(&voters(3)).is_none());
        assert!(!one.is_disputed());
        let mut one = jury(&[(8, 5)]);
        for learner in [4, 5, 6] {
            one.take(NodeId(learner), [ballot(8, 6)]);
        }
        assert!(one.judge(&voters(1)).is_none());
        assert!(!one.is_disputed());
    }

    #[test]
    fn a_dispute_ends_when_a_later_index_is_settled() {
        let mut one = jury(&[(8, 5)]);
        one.take(NodeId(2), [ballot(8, 6)]);
        assert!(one.judge(&voters(2)).is_none());
        assert!(one.is_disputed());
        let now = Applied { index: 11, revision: Revision(11), hash: 7 };
        one.applied(now, None);
        assert_eq!(one.open_vote(), Some(now));
        one.vote(now, None);
        assert_eq!(one.open_vote(), None, "it has voted");
        one.take(NodeId(2), [ballot(11, 7)]);
        assert!(one.judge(&voters(2)).is_none());
        assert!(!one.is_disputed());
        assert!(one.own().is_empty(), "all is settled");
    }

    #[test]
    fn a_ballot_of_an_earlier_life_is_followed_by_one_of_this() {
        let mut one = jury(&[(8, 5)]);
        one.hear([(NodeId(1), ballot(8, 6)), (NodeId(2), ballot(8, 5))]);
        assert_eq!(one.open_vote(), None, "it has voted there in this life too");
        one.hear([(NodeId(1), ballot(9, 6)), (NodeId(2), ballot(9, 5))]);
        let now = Applied { index: 11, revision: Revision(11), hash: 7 };
        one.applied(now, None);
        assert_eq!(one.open_vote(), Some(now));
        one.hear([(NodeId(2), ballot(11, 7))]);
        assert_eq!(one.open_vote(), None, "nobody holds the old one against it");
    }

    #[test]
    fn hashes_of_another_format_are_not_compared() {
        let mut one = jury(&[(8, 5)]);
        for node in [2, 3] {
            one.take(NodeId(node), [Ballot { format: HASH_FORMAT + 1, ..ballot(8, 6) }]);
        }
        assert!(one.judge(&voters(3)).is_none());
        assert!(!one.is_disputed());
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut one = Jury::new(NodeId(1));
        for index in 0..200 {
            let applied = Applied { index, revision: Revision(index), hash: 5 };
            one.applied(applied, Some(State::default()));
            one.take(NodeId(2), [ballot(index, 5)]);
        }
        assert_eq!(one.at.len(), INDEXES_MAX);
        assert_eq!(one.at.values().filter(|at| at.fork.is_some()).count(), FORKS_MAX);
        assert_eq!(one.own().len(), BALLOTS_MAX);
        assert!(one.of_all(&one.own()).len() <= 2 * BALLOTS_MAX);
    }
}
