//! A ledger of one process, without log, disk or peers: the same apply path over the same state.
//!
//! For tests and dry runs of the rooms above. It commits at once, in the order of the calls.

use crate::{
    Error, Leadership, Leases, Ledger, Proposal, WatchError, WatchEvent, WatchStream,
    entry::{self, Queued},
    publish::{Published, RingLimits},
};
use model::{Clock, NodeId, Outcome, Revision, State};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// The ledger. Clones share it.
#[derive(Clone)]
pub struct MemoryLedger {
    inner: Arc<Inner>,
}

struct Inner {
    node_id: NodeId,
    clock: Arc<dyn Clock>,
    published: Arc<Published>,
    leadership: watch::Sender<Leadership>,
    leases: Leases,
    leader_ttl: Mutex<Duration>,
}

impl MemoryLedger {
    /// An empty ledger whose only node is `node_id`, stamping with `clock`.
    pub fn new(node_id: NodeId, clock: Arc<dyn Clock>) -> Self {
        Self::with_state(node_id, clock, State::default())
    }

    /// A ledger that starts from a state, such as a fork of another ledger's.
    pub fn with_state(node_id: NodeId, clock: Arc<dyn Clock>, state: State) -> Self {
        let limits = RingLimits { events_max: 4_096, changes_max: 262_144 };
        Self::with_limits(node_id, clock, state, limits)
    }

    pub(crate) fn with_limits(
        node_id: NodeId,
        clock: Arc<dyn Clock>,
        state: State,
        limits: RingLimits,
    ) -> Self {
        let leadership = Leadership {
            leader: Some(node_id),
            term: 1,
            is_leader: true,
            quorum_at: Some(Instant::now()),
        };
        let published = Published::new(state, limits, None);
        let leadership = watch::Sender::new(leadership);
        let leases = Leases::default();
        leases.note_leadership(Some(1));
        let leader_ttl = Mutex::new(Duration::MAX);
        let inner = Inner { node_id, clock, published, leadership, leases, leader_ttl };
        let ledger = Self { inner: Arc::new(inner) };
        ledger.confirm_quorum();
        ledger
    }

    /// Says that leadership is as given, so that a test can play a lost leader. The quorum
    /// confirmation of a leader is otherwise renewed with every proposal and read.
    pub fn set_leadership(&self, leadership: Leadership) {
        self.inner.leases.note_leadership(leadership.is_leader.then_some(leadership.term));
        self.inner.leadership.send_replace(leadership);
    }

    /// Says that the leader's leases last so long, so that a test can play a leader that differs.
    pub fn leads_with_ttl(&self, ttl: Duration) {
        *self.inner.leader_ttl.lock().unwrap_or_else(PoisonError::into_inner) = ttl;
    }

    /// Says that the leader exchanged messages with another node now, so that a test can play one.
    pub fn exchange(&self, node: NodeId) {
        self.inner.leases.note_exchange(node, Instant::now());
    }

    fn confirm_quorum(&self) {
        self.inner.leadership.send_if_modified(|leadership| {
            if leadership.is_leader {
                leadership.quorum_at = Some(Instant::now());
                let ttl = *self.inner.leader_ttl.lock().unwrap_or_else(PoisonError::into_inner);
                self.inner.leases.note_support(Instant::now(), ttl);
            }
            leadership.is_leader
        });
    }
}

impl Ledger for MemoryLedger {
    async fn propose(&self, proposal: Proposal) -> Result<Outcome, Error> {
        let Proposal { command, caller, request_id, deadline: _ } = proposal;
        let published = &self.inner.published;
        let time = self.inner.clock.now();
        // Publishing under the lock keeps events in the order of revisions.
        let outcome = published.write(|state| {
            let rules = entry::rules_in_force(state);
            state.globals.applied_index += 1;
            let queued = vec![Queued { caller, request_id, command }];
            let steps = entry::apply(state, time, rules, queued);
            let outcome = steps.first().map(entry::Step::outcome);
            published.publish(steps.into_iter().map(WatchEvent::from).collect());
            outcome
        });
        self.confirm_quorum();
        outcome.ok_or(Error::Stopped)
    }

    async fn linearize(&self, _deadline: Instant) -> Result<Revision, Error> {
        self.confirm_quorum();
        Ok(*self.inner.published.applied().borrow())
    }

    async fn wait_for(&self, revision: Revision, deadline: Instant) -> Result<(), Error> {
        wait_for(self.inner.published.applied(), revision, deadline).await
    }

    fn read<R>(&self, reader: impl FnOnce(&State) -> R) -> R {
        self.inner.published.read(reader)
    }

    fn watch(&self, after: Revision) -> Result<WatchStream, WatchError> {
        self.inner.published.watch(after)
    }

    fn applied(&self) -> watch::Receiver<Revision> {
        self.inner.published.applied()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.subscribe()
    }

    fn leases(&self) -> &Leases {
        &self.inner.leases
    }

    fn node_id(&self) -> NodeId {
        self.inner.node_id
    }
}

/// Waits on a channel of applied revisions.
pub(crate) async fn wait_for(
    mut applied: watch::Receiver<Revision>,
    revision: Revision,
    deadline: Instant,
) -> Result<(), Error> {
    match tokio::time::timeout_at(deadline, applied.wait_for(|now| *now >= revision)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(Error::Stopped),
        Err(_) => Err(Error::Unknown),
    }
}
