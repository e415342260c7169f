//! Leases of hosts: who may grant them, for how long, and when control may act as if they were over.
//!
//! Control nodes keep leases in memory, so these rules are not part of `decide`; the simulation and the
//! control nodes use the same ones. They hold together as follows. Let `t` be the leader's last exchange
//! with node A, or its own election if that is later. When a loss that the leader declares of a session of
//! A takes effect, no lease that A granted for it ends after `t` + TTL, which is before `t` + TTL + grace:
//!
//! 1. A grants up to the start `q` of a confirmation by a majority plus the TTL ([`LeaseTimes::grant`]). The
//!    leader counts a confirmation as an exchange before it answers, so `q` <= `t` for all that it gave
//!    before it decided; one of an earlier leader began before the later was elected.
//! 2. A counts a confirmation only when its state has what was committed by then, and grants only while
//!    that state has A alive and the session in force ([`State::may_renew`]). So it has seen every loss that
//!    is older than the confirmation.
//! 3. The leader declares a loss only while its state has A lost, and `decide` refuses it once A is alive
//!    again. A confirmation that comes after the leader decided is of use to A only after its return is in
//!    A's state; a loss still under way then is either before the return, so that A has seen it, or after,
//!    so that it is refused. Nobody carries a loss on for as long as it takes to lose A once more.
//! 4. The leader confirms nothing for leases to a node that its state has lost ([`State::counts_on`]), so
//!    that `t` stands still and the hosts of such a node are not kept waiting.
//!
//! The grace is there for clocks that run at different speeds.

use crate::{Contact, Host, HostState, Name, NodeId, State, limits::REMOVED_NODES_MAX};
use std::time::Duration;

/// How long leases hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// How long a lease holds after the renewal it answers.
    pub ttl: Duration,
    /// How long after its last lease a host is held for lost.
    pub grace: Duration,
}

impl LeaseTimes {
    /// What a renewal is granted when the last confirmation by a majority began `confirmed_ago`; `None` for
    /// less than a millisecond, the unit leases are granted in.
    pub fn grant(&self, confirmed_ago: Option<Duration>) -> Option<Duration> {
        let left = self.ttl.saturating_sub(confirmed_ago?);
        (left >= Duration::from_millis(1)).then_some(left)
    }

    /// Whether a host is lost of which nothing was heard for `silence`: by its node since its last renewal,
    /// or by the leader since its last exchange with the node.
    pub fn is_over(&self, silence: Duration) -> bool {
        silence >= self.ttl + self.grace
    }
}

/// What the leader knows of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeats {
    /// Since the last answer, or since the leader was elected.
    pub silence: Duration,
    /// Whether there was an answer since the election.
    pub heard: bool,
}

impl Heartbeats {
    /// Whether the leader holds the node for alive; `None` when it cannot tell yet. A node that is lost is
    /// silent for `lost_after`.
    pub fn alive(&self, lost_after: Duration) -> Option<bool> {
        let lost = self.silence >= lost_after;
        (self.heard || lost).then_some(!lost)
    }
}

/// How a session stands by a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The state is older than the session.
    Unknown,
    /// It is the host's.
    InForce,
    /// A newer one is.
    Superseded,
    /// The host is held for lost, or there is none.
    Lost,
    /// The host is not trusted any more: it keeps nothing of what it runs, and gets no lease.
    Distrusted,
}

/// How the session of this number that `node` holds stands, by the row of its host.
pub fn standing(host: Option<&Host>, node: NodeId, session: u64) -> Standing {
    let Some(host) = host else { return Standing::Lost };
    match host.contact {
        Contact::Connected { session: newer, .. } if newer > session => Standing::Superseded,
        Contact::Lost { session: last, .. } if last >= session => Standing::Lost,
        Contact::Connected { node: holder, session: it, .. } if holder == node && it == session => {
            match host.state {
                HostState::Untrusted => Standing::Distrusted,
                HostState::Registered | HostState::Onboarded => Standing::InForce,
            }
        }
        Contact::Connected { .. } | Contact::Lost { .. } | Contact::Never => Standing::Unknown,
    }
}

impl State {
    /// Whether a node is a member that is not lost.
    pub fn counts_on(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|row| row.alive)
    }

    /// Whether a control node was removed and must not come back. When as many are remembered as may
    /// be, those older than the oldest of them count as removed too, unless they are members.
    pub fn was_removed(&self, node: NodeId) -> bool {
        let forgotten = || {
            let oldest = self.removed_nodes.iter().next().map(|(id, _)| *id);
            let full = self.removed_nodes.len() >= REMOVED_NODES_MAX;
            full && oldest.is_some_and(|oldest| node < oldest) && !self.nodes.contains(&node)
        };
        self.removed_nodes.contains(&node) || forgotten()
    }

    /// Whether `node` may grant its session with a host a lease.
    pub fn may_renew(&self, node: NodeId, (tenant, host): (&Name, &Name), session: u64) -> bool {
        self.counts_on(node)
            && standing(self.host(tenant, host), node, session) == Standing::InForce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: LeaseTimes =
        LeaseTimes { ttl: Duration::from_secs(20), grace: Duration::from_secs(5) };

    #[test]
    fn a_lease_ends_with_the_quorum_it_was_granted_by() {
        let grant = |ago_ms| TIMES.grant(Some(Duration::from_millis(ago_ms)));
        assert_eq!(TIMES.grant(None), None);
        assert_eq!(grant(0), Some(TIMES.ttl));
        assert_eq!(grant(15_000), Some(Duration::from_secs(5)));
        assert_eq!(grant(20_000), None);
        assert_eq!(grant(25_000), None);
    }

    #[test]
    fn a_host_is_lost_when_its_lease_and_the_grace_are_over() {
        assert!(!TIMES.is_over(Duration::from_millis(24_999)));
        assert!(TIMES.is_over(Duration::from_secs(25)));
    }

    #[test]
    fn a_new_leader_says_nothing_of_a_node_it_has_not_heard_yet() {
        let after = Duration::from_secs(5);
        let of = |s, heard| Heartbeats { silence: Duration::from_secs(s), heard }.alive(after);
        assert_eq!(of(1, false), None);
        assert_eq!(of(1, true), Some(true));
        assert_eq!(of(5, true), Some(false));
        assert_eq!(of(5, false), Some(false));
    }
}
