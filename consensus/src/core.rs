//! What every part of a replicated ledger shares: Raft, the machine's public side, and the peers.
//!
//! Also where Raft's errors become ours. The distinction that matters is made here: refused before
//! anything was appended is certainly not done, discarded or timed out after that is unknown.

use crate::{
    Config, Error, Lane, Leadership, Leases, Method, Peer, StopReason, Target, Transport,
    TransportError,
    entry::{self, Entry},
    machine::{Machine, Shared},
    planted::{Planted, PlantedBug},
    purge::Transfers,
    queue::{Log, Queue},
    types::{Answers, Types},
    wire::{self, ForwardAnswer, ForwardRequest},
};
use futures::future::BoxFuture;
use model::NodeId;
use openraft::{
    LinearizerOption, Raft, RaftMetrics, ServerState,
    async_runtime::watch::WatchReceiver,
    errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError},
    raft::ClientWriteResponse,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};

/// A majority that was not heard of for so many of the longest election timeouts is missing.
const QUORUM_ELECTIONS: u32 = 5;

pub(crate) struct Core {
    pub(crate) node_id: NodeId,
    pub(crate) config: Arc<Config>,
    pub(crate) raft: Raft<Types, Machine>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) leadership: watch::Sender<Leadership>,
    pub(crate) leases: Leases,
    pub(crate) transfers: Transfers,
    pub(crate) stopped: watch::Sender<Option<StopReason>>,
    /// What waits to be put into the log here.
    pub(crate) queue: Queue,
    /// Held by whoever changes the members or hands leadership over.
    pub(crate) changes: Mutex<()>,
    /// Whether a peer said that this node was removed.
    pub(crate) removed: watch::Sender<bool>,
}

/// A majority followed the leader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Confirmed {
    /// At this moment or later.
    pub(crate) at: Instant,
    /// A state with this log index applied holds all that was committed then.
    pub(crate) index: Option<u64>,
    /// How long leases may last from `at` on; `None` for a node that may grant none.
    pub(crate) lease_ttl: Option<Duration>,
}

/// Why a request that was sent to the leader has no answer.
pub(crate) enum ForwardError {
    /// It was certainly not carried out.
    NotSent,
    /// It may have been.
    Lost,
}

fn not_leader(forward: &ForwardToLeader<Types>) -> Error {
    Error::NotLeader { hint: forward.leader_id.map(NodeId) }
}

pub(crate) fn write_error(error: RaftError<Types, ClientWriteError<Types>>) -> Error {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => not_leader(&forward),
        // Appended, and then lost leadership: another leader may have it.
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => Error::Unknown,
        RaftError::APIError(error) => {
            tracing::warn!(%error, "raft refused a change");
            Error::NotLeader { hint: None }
        }
        // It may have been appended before Raft ended.
        RaftError::Fatal(_) => Error::Unknown,
    }
}

impl Core {
    pub(crate) fn metrics(&self) -> RaftMetrics<Types> {
        self.raft.metrics().borrow_watched().clone()
    }

    /// The leader and where it is, as far as this node knows.
    pub(crate) fn leader(&self) -> Option<(NodeId, Peer)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let id = metrics.current_leader?;
        let peer = metrics.membership_config.get_node(&id)?.clone();
        Some((NodeId(id), peer))
    }

    /// Follows what Raft says of itself until it ends.
    pub(crate) async fn follow_metrics(self: Arc<Self>) {
        let mut metrics = self.raft.metrics();
        loop {
            let (leadership, ended) = {
                let seen = metrics.borrow_watched();
                (self.leadership_of(&seen), seen.running_state.clone().err())
            };
            self.leases.note_leadership(leadership.is_leader.then_some(leadership.term));
            self.leadership.send_if_modified(|current| {
                // A follower's confirmation comes from its own probe.
                let quorum_at = leadership.quorum_at.max(current.quorum_at);
                let new = Leadership { quorum_at, ..leadership };
                let changed = new != *current;
                *current = new;
                changed
            });
            if let Some(fatal) = ended {
                let reason = self.shared.halt_reason();
                return self.stop(reason.unwrap_or_else(|| StopReason::Fatal(fatal.to_string())));
            }
            if metrics.changed().await.is_err() {
                return self.stop(StopReason::Fatal("its task is gone".to_owned()));
            }
        }
    }

    fn leadership_of(&self, metrics: &RaftMetrics<Types>) -> Leadership {
        let is_leader =
            metrics.state == ServerState::Leader && metrics.current_leader == Some(self.node_id.0);
        let acked = metrics.last_quorum_acked.filter(|_| is_leader);
        Leadership {
            leader: metrics.current_leader.map(NodeId),
            term: metrics.current_term,
            is_leader,
            quorum_at: acked.and_then(|at| Instant::now().checked_sub(age(&at))),
        }
    }

    /// A majority followed the leader at `at` or later.
    pub(crate) fn note_quorum(&self, at: Instant) {
        self.leadership.send_if_modified(|current| {
            let newer = current.quorum_at.is_none_or(|before| before < at);
            if newer {
                current.quorum_at = Some(at);
            }
            newer
        });
    }

    /// Only the first reason counts.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.stopped.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(reason);
            }
            first
        });
        self.leases.note_leadership(None);
        self.leadership.send_modify(|leadership| {
            *leadership = Leadership { term: leadership.term, ..Leadership::default() };
        });
    }

    /// Refuses writes while nobody knows which replica's answer would be right.
    pub(crate) fn need_agreement(&self) -> Result<(), Error> {
        match self.shared.jury(|jury| jury.is_disputed()) {
            true => Err(Error::Disputed),
            false => Ok(()),
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.borrow().is_some()
    }

    /// On the leader: confirms leadership with a majority, and answers the index that a state must
    /// have applied to be up to date.
    pub(crate) async fn read_index(&self, deadline: Instant) -> Result<Option<u64>, Error> {
        if Planted::of(&self.config).is(PlantedBug::ReadWithoutQuorum)
            && self.leadership.borrow().is_leader
        {
            return Ok(*self.shared.applied_index.borrow());
        }
        let started = Instant::now();
        let wait = deadline.saturating_duration_since(started);
        let option = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(wait);
        let linearizer = self.raft.get_read_linearizer(option);
        let Ok(answer) = tokio::time::timeout_at(deadline, linearizer).await else {
            return Err(Error::NotLeader { hint: None });
        };
        match answer {
            Ok(linearizer) => {
                self.note_quorum(started);
                Ok(Some(linearizer.read_log_id().index()))
            }
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(not_leader(&forward))
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(Error::NotLeader { hint: None })
            }
            Err(RaftError::Fatal(_)) => Err(Error::Stopped),
        }
    }

    /// On the leader: the same for another node, which with it may grant leases as long as this leader
    /// will wait for, unless it is lost.
    ///
    /// The order matters. What the state says is looked at before the index is taken, so that the index
    /// holds the node's return; and the exchange is noted before there is an answer, so that whatever the
    /// node grants with it ends within the TTL of what [`Leases::silence`] counts from.
    pub(crate) async fn read_index_for(
        &self,
        (node, ttl_ms): (NodeId, Option<u64>),
        deadline: Instant,
    ) -> Result<(Option<u64>, Option<u64>), Error> {
        if let Some(ttl_ms) = ttl_ms {
            self.leases.note_ttl(node, Duration::from_millis(ttl_ms));
        }
        let counted_on = self.shared.published.read(|state| state.counts_on(node));
        let lease_ttl_ms = self.leases.ttl_ms().filter(|_| counted_on);
        if lease_ttl_ms.is_some() {
            self.leases.note_exchange(node, Instant::now());
        }
        Ok((self.read_index(deadline).await?, lease_ttl_ms))
    }

    /// Waits until the local state is as new as a confirmation says; only then may leases rest on it: a
    /// node that hears nothing of the log does not know which of its sessions are over.
    pub(crate) async fn catch_up(
        &self,
        confirmed: Confirmed,
        deadline: Instant,
    ) -> Result<(), Error> {
        let mut applied = self.shared.applied_index.subscribe();
        let caught_up = applied.wait_for(|now| *now >= confirmed.index);
        match tokio::time::timeout_at(deadline, caught_up).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(Error::Stopped),
            Err(_) => return Err(Error::NotLeader { hint: None }),
        }
        if let Some(ttl) = confirmed.lease_ttl {
            self.leases.note_support(confirmed.at, ttl);
        }
        Ok(())
    }

    /// Asks another node, within the deadline and the time of one try.
    pub(crate) async fn ask(
        &self,
        (id, peer): (NodeId, Peer),
        method: Method,
        request: impl FnOnce(u64) -> ForwardRequest,
        deadline: Instant,
    ) -> Result<ForwardAnswer, ForwardError> {
        let started = Instant::now();
        let time = deadline.saturating_duration_since(started);
        let request = request(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let body = wire::encode(&request).map_err(|_| ForwardError::NotSent)?;
        let target = Target { id, peer, lane: Lane::Forward };
        match self.transport.call(&target, method, body, deadline).await {
            Ok(bytes) => {
                let answer = wire::decode(&bytes).map_err(|_| ForwardError::Lost)?;
                if matches!(answer, ForwardAnswer::Outcome(_) | ForwardAnswer::Index { .. }) {
                    self.note_quorum(started);
                }
                Ok(answer)
            }
            Err(TransportError::Lost { .. }) => Err(ForwardError::Lost),
            Err(
                TransportError::Unreachable { .. }
                | TransportError::Refused { .. }
                | TransportError::Removed { .. },
            ) => Err(ForwardError::NotSent),
        }
    }

    /// Asks the leader, until a little after another one is known: what a leader that was replaced has
    /// swallowed is given up then, not at the end of the try. One that handed over says by itself what
    /// became of it, and may do so after its successor is known.
    pub(crate) async fn ask_leader(
        &self,
        leader: (NodeId, Peer),
        method: Method,
        request: impl FnOnce(u64) -> ForwardRequest,
        deadline: Instant,
    ) -> Result<ForwardAnswer, ForwardError> {
        let id = leader.0;
        let mut answer = std::pin::pin!(self.ask(leader, method, request, deadline));
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            () = self.replaced(id) => {
                let grace = Duration::from_millis(self.config.election_max_ms);
                tokio::time::timeout(grace, &mut answer).await.unwrap_or(Err(ForwardError::Lost))
            }
        }
    }

    /// Returns when another node is known to lead; never if Raft ends first.
    async fn replaced(&self, leader: NodeId) {
        let mut metrics = self.raft.metrics();
        loop {
            let now = metrics.borrow_watched().current_leader;
            if now.is_some_and(|now| now != leader.0) {
                return;
            }
            if metrics.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Whether a majority was lately known to follow the leader. While none is, nothing can be done
    /// through this node, and whoever asks is to be told that and nothing else.
    pub(crate) fn has_quorum(&self) -> bool {
        let lately = Duration::from_millis(self.config.election_max_ms) * QUORUM_ELECTIONS;
        let heard = self.leadership.borrow().quorum_at;
        heard.is_some_and(|at| at.elapsed() <= lately) || {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let mut voters = metrics.membership_config.voter_ids();
            // Alone it is its own majority.
            voters.next() == Some(self.node_id.0) && voters.next().is_none()
        }
    }

    /// The error, without what it blames when a majority is missing: a full line or a leader of whom
    /// nothing is heard follow from that.
    pub(crate) fn blamed(&self, error: Error) -> Error {
        let blames = matches!(error, Error::NotLeader { .. } | Error::Overloaded);
        if blames && !self.has_quorum() { Error::NotLeader { hint: None } } else { error }
    }

    /// The end of one try that begins now.
    pub(crate) fn try_until(&self, deadline: Instant) -> Instant {
        deadline.min(Instant::now() + Duration::from_millis(self.config.forward_ms))
    }
}

/// How long ago a moment of Raft's was.
pub(crate) fn age(at: &openraft::alias::SerdeInstantOf<Types>) -> Duration {
    openraft::Instant::elapsed(&**at)
}

/// The log as the queue sees it.
pub(crate) struct RaftLog {
    pub(crate) raft: Raft<Types, Machine>,
    pub(crate) shared: Arc<Shared>,
}

impl Log for RaftLog {
    fn commit(&self, entry: Entry) -> BoxFuture<'static, Result<Answers, Error>> {
        let raft = self.raft.clone();
        Box::pin(async move {
            if raft.metrics().borrow_watched().running_state.is_err() {
                return Err(Error::Stopped);
            }
            match raft.client_write(entry).await {
                Ok(ClientWriteResponse { data, .. }) => Ok(data),
                Err(error) => Err(write_error(error)),
            }
        })
    }

    fn rules(&self) -> u32 {
        self.shared.published.read(entry::rules_in_force)
    }
}
