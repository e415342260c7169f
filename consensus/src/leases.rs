//! What one node may promise its hosts, and what the leader has heard of the others.
//!
//! Leases of hosts are not in the log, so their safety rests on what is here: see `model::LeaseTimes` for
//! the rules and why they hold together. A node may grant up to the start of its newest confirmation by a
//! majority plus the TTL. The leader, before it gives another node a confirmation, notes that as an
//! exchange with it; how long the last one is ago bounds every lease that node can have granted.

use crate::{
    Config,
    planted::{Planted, PlantedBug},
};
use model::NodeId;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// What leases of this node rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// A majority followed the leader at this moment or later, and this node's state has everything that
    /// was committed by then.
    pub at: Instant,
    /// How long a lease may last from then on: this node's TTL, or that of the leader if it is shorter.
    pub ttl: Duration,
}

#[derive(Default)]
struct Inner {
    /// This node's TTL; zero until it is known: no lease is supported before.
    ttl: Duration,
    /// The longest TTL any node has named.
    longest: Duration,
    support: Option<(Instant, Duration)>,
    led: Option<Led>,
    planted: Planted,
}

struct Led {
    term: u64,
    since: Instant,
    heard: BTreeMap<NodeId, Instant>,
}

/// Leases as a ledger knows them. Clones share it.
#[derive(Clone, Default)]
pub struct Leases {
    inner: Arc<Mutex<Inner>>,
}

impl Leases {
    /// None is supported yet.
    pub(crate) fn new(config: &Config) -> Self {
        let inner = Inner { planted: Planted::of(config), ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how long this node's leases last. None is supported before that, here or by this leader.
    pub fn set_ttl(&self, ttl: Duration) {
        let mut inner = self.inner();
        inner.ttl = ttl;
        inner.longest = inner.longest.max(ttl);
    }

    /// What leases of this node rest on; `None` while nothing does.
    pub fn support(&self) -> Option<Support> {
        let inner = self.inner();
        let (at, ttl) = inner.support?;
        let at = match inner.planted.is(PlantedBug::LeaseWithoutQuorum) {
            true => Instant::now(),
            false => at,
        };
        Some(Support { at, ttl: ttl.min(inner.ttl) })
    }

    /// The longest TTL that any node is known to have: leases of another node may last so long.
    pub fn longest_ttl(&self) -> Duration {
        self.inner().longest
    }

    /// How long this leader has heard nothing of a node: since its last exchange with it, or since it was
    /// elected, whichever is later. `None` on a node that does not lead.
    pub fn silence(&self, node: NodeId) -> Option<Duration> {
        let inner = self.inner();
        let led = inner.led.as_ref()?;
        Some(led.heard.get(&node).map_or(led.since, |at| led.since.max(*at)).elapsed())
    }

    /// This node's TTL in milliseconds; `None` until it is known.
    pub(crate) fn ttl_ms(&self) -> Option<u64> {
        let ttl = self.inner().ttl;
        (!ttl.is_zero()).then(|| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
    }

    /// Another node's TTL. Nodes should agree: where they do not, the shorter one is granted, and the
    /// longer one waited for.
    pub(crate) fn note_ttl(&self, of: NodeId, ttl: Duration) {
        let mut inner = self.inner();
        if !inner.ttl.is_zero() && ttl != inner.ttl && ttl > inner.longest {
            let (here, there) = (inner.ttl.as_millis(), ttl.as_millis());
            tracing::error!(
                node = of.0,
                here,
                there,
                "nodes differ in lease.ttl_ms: set one for all"
            );
        }
        inner.longest = inner.longest.max(ttl);
    }

    /// A confirmation that began at `at` stands behind leases of up to `ttl`.
    pub(crate) fn note_support(&self, at: Instant, ttl: Duration) {
        let mut inner = self.inner();
        if inner.support.is_none_or(|(before, _)| before <= at) {
            inner.support = Some((at, ttl));
        }
    }

    /// This node leads `term`, or none. An election is noted late rather than early.
    pub(crate) fn note_leadership(&self, term: Option<u64>) {
        let mut inner = self.inner();
        match (term, &inner.led) {
            (None, _) => inner.led = None,
            (Some(term), Some(led)) if led.term == term => {}
            (Some(term), _) => {
                let heard = BTreeMap::new();
                inner.led = Some(Led { term, since: Instant::now(), heard });
            }
        }
    }

    /// This leader and a node exchanged messages at `at`.
    pub(crate) fn note_exchange(&self, node: NodeId, at: Instant) {
        if let Some(led) = &mut self.inner().led {
            let last = led.heard.entry(node).or_insert(at);
            *last = at.max(*last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_shorter_ttl_is_granted_and_the_longer_one_waited_for() {
        let (leases, s) = (Leases::default(), Duration::from_secs);
        leases.set_ttl(s(60));
        assert_eq!(leases.support(), None);
        leases.note_support(Instant::now(), s(20));
        assert_eq!(leases.support().map(|support| support.ttl), Some(s(20)));
        leases.set_ttl(s(10));
        assert_eq!(leases.support().map(|support| support.ttl), Some(s(10)));
        leases.note_ttl(NodeId(2), s(90));
        assert_eq!(leases.longest_ttl(), s(90));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_the_last_exchange_or_the_election() {
        let (leases, two, s) = (Leases::default(), NodeId(2), Duration::from_secs);
        assert_eq!(leases.silence(two), None, "a follower cannot tell");
        leases.note_leadership(Some(1));
        tokio::time::advance(s(7)).await;
        assert_eq!(leases.silence(two), Some(s(7)));
        leases.note_exchange(two, Instant::now());
        leases.note_leadership(Some(1));
        tokio::time::advance(s(3)).await;
        assert_eq!(leases.silence(two), Some(s(3)));
        leases.note_leadership(Some(2));
        assert_eq!(leases.silence(two), Some(s(0)), "a new term");
        leases.note_leadership(None);
        assert_eq!(leases.silence(two), None);
    }
}
