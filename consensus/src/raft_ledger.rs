//! The replicated ledger: one node's part in a Raft group.
//!
//! [`RaftLedger::start`] opens log, snapshots and store, rebuilds what does not hold together, and
//! runs until it is shut down or Raft ends; [`RaftLedger::stopped`] tells which. A ledger that
//! ended is not mended: the node exits and starts anew.

mod open;

use crate::{
    BadConfig, Config, Error, JournalRow, Leadership, Leases, Ledger, Member, Peer, PeerService,
    Proposal, StopReason, Transport, WatchError, WatchStream,
    core::{Core, RaftLog},
    duty,
    entry::{self, Queued},
    forward,
    log_store::LogStore,
    machine::{FlushLog, Machine, Shared},
    membership, memory_ledger,
    network::Network,
    planted::{Planted, PlantedBug},
    publish::{Published, RingLimits},
    queue::Queue,
    reads::Reads,
    snapshot::Snapshots,
    snapshot_files::SnapshotFiles,
    wire::MemberChange,
};
use model::{Clock, NodeId, Outcome, Revision, State};
use open::{check_vote, open_log, open_state};
use openraft::{Raft, errors::RaftError};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use storage::{
    Disk, Fault,
    kv::KvHome,
    log::{Log, LogConfig},
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

/// The log's directory.
const LOG: &str = "log";

/// What a ledger stands on.
pub struct Foundation<D: Disk, H: KvHome> {
    /// This node; never an id that was in use before, even by the same machine.
    pub node_id: NodeId,
    /// Settings.
    pub config: Config,
    /// Settings of the log's files.
    pub log_config: LogConfig,
    /// Where the log is. Votes wait for its syncs: nothing else should queue for its threads.
    pub disk: D,
    /// Where snapshots are: the same file system, by threads that may be busy for long.
    pub snapshot_disk: D,
    /// The directory for both. [`RaftLedger::make_log`] has made the log in it.
    pub dir: PathBuf,
    /// Where the materialised state is.
    pub kv_home: H,
    /// The wire to the peers.
    pub transport: Arc<dyn Transport>,
    /// The wall clock that stamps entries.
    pub clock: Arc<dyn Clock>,
}

/// Why a ledger cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] BadConfig),
    /// Truth on disk cannot be read or written.
    #[error("could not open the ledger's files")]
    Storage(#[from] Fault),
    /// The log is gone, damaged, or older than what was built from it: with it went votes that were
    /// given and entries that were acknowledged, so that this node must not vote again.
    #[error(
        "the raft log in {} cannot be trusted: {detail}; this node must not vote again under its id: \
         remove its data folder and join it anew with a join token, or, if it was the only node, \
         restore its whole data folder from a backup", dir.display()
    )]
    LogLost {
        /// The log's directory.
        dir: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Raft refuses what it found.
    #[error("could not start raft: {0}")]
    Raft(String),
}

/// One node's replicated ledger. Clones share it.
#[derive(Clone)]
pub struct RaftLedger {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) core: Arc<Core>,
    pub(crate) queue: Queue,
    reads: Reads,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.abort_tasks();
    }
}

impl Inner {
    fn abort_tasks(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.drain(..).for_each(|task| task.abort());
    }
}

impl RaftLedger {
    /// Makes the empty log that [`RaftLedger::start`] needs, durable at return; one that is there
    /// stays as it is. Only for a node that has never been started: the caller remembers, durably
    /// and away from `dir`, that this was done, before the first start, and does it never again. An
    /// empty log in the place of one that is gone would let the node vote twice.
    ///
    /// # Errors
    /// The disk's fault.
    pub async fn make_log<D: Disk>(disk: &D, dir: &Path, config: &LogConfig) -> Result<(), Fault> {
        disk.create_dir(dir).await?;
        Log::make(disk, &dir.join(LOG), config).await
    }

    /// Starts on the current runtime. Answers the ledger and the store it opened, in which other
    /// rooms have their own spaces.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start<D: Disk, H: KvHome>(
        foundation: Foundation<D, H>,
    ) -> Result<(Self, H::Kv), StartError> {
        let Foundation { node_id, config, log_config, disk, snapshot_disk, dir, .. } = foundation;
        let Foundation { kv_home, transport, clock, .. } = foundation;
        let raft_config = config.raft()?;
        let config = Arc::new(config);
        let log_dir = dir.join(LOG);
        let log = open_log(disk, &log_dir, log_config).await?;
        let flushed = log.clone();
        let flush_log: FlushLog = Box::new(move || {
            let log = flushed.clone();
            Box::pin(async move { log.flush().await })
        });
        let log_store = LogStore::new(log, config.replication_read_bytes_max)?;
        let log_store = log_store.with(Planted::of(&config));
        let snapshots = SnapshotFiles::open(snapshot_disk, &dir.join("snapshots")).await?;
        let (kv, keep, position, state) = open_state(&config, &kv_home, &snapshots).await?;
        let snapshot = snapshots.current().await?.and_then(|stored| stored.meta.last_log_id);
        check_vote(&log_store, &log_dir, position.applied.into_iter().chain(snapshot))?;
        let limits = RingLimits {
            events_max: config.watch_events_max,
            changes_max: config.watch_changes_max,
        };
        let published = Published::new(state, limits, Some(Arc::new(keep.clone())));
        let shared = Shared::new(config.clone(), published, keep, (Arc::new(snapshots), flush_log));
        let machine = Machine::new(shared.clone(), position);
        let network = Network { me: node_id, transport: transport.clone(), config: config.clone() };
        let raft = Raft::new(node_id.0, raft_config, network, log_store, machine)
            .await
            .map_err(|fatal| StartError::Raft(fatal.to_string()))?;
        let core = Arc::new(Core {
            node_id,
            config: config.clone(),
            raft: raft.clone(),
            shared: shared.clone(),
            transport,
            leadership: watch::Sender::new(Leadership::default()),
            leases: Leases::new(&config),
            stopped: watch::Sender::new(None),
        });
        let (queue, commits) = Queue::new(config, Arc::new(RaftLog { raft, shared }), clock);
        let (reads, rounds) = Reads::new(core.clone());
        let tasks = vec![
            tokio::spawn(commits),
            tokio::spawn(rounds),
            tokio::spawn(core.clone().follow_metrics()),
            tokio::spawn(duty::run(core.clone(), queue.clone(), reads.clone())),
        ];
        let inner = Arc::new(Inner { core, queue, reads, tasks: Mutex::new(tasks) });
        Ok((Self { inner }, kv))
    }

    /// Makes this node the first of a new cluster. Nothing happens when it belongs to one already.
    ///
    /// # Errors
    /// [`Error::Stopped`] when Raft has ended.
    pub async fn bootstrap(&self, peer: Peer) -> Result<(), Error> {
        let core = &self.inner.core;
        let members = BTreeMap::from([(core.node_id.0, peer)]);
        match core.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(error)) => {
                tracing::debug!(%error, "this node belongs to a cluster already");
                Ok(())
            }
            Err(RaftError::Fatal(_)) => Err(Error::Stopped),
        }
    }

    /// Whether this node belongs to a cluster: it was bootstrapped, or heard from a leader.
    pub async fn is_initialized(&self) -> bool {
        self.inner.core.raft.is_initialized().await.unwrap_or(false)
    }

    /// Takes a node in: as a learner, and as a voter once it has caught up. Through any node; safe
    /// to repeat. The same id with another address changes the address.
    ///
    /// # Errors
    /// [`Error::Unknown`] at the deadline when a try may have had an effect.
    pub async fn add_node(&self, id: NodeId, peer: Peer, deadline: Instant) -> Result<(), Error> {
        membership::change(&self.inner.core, MemberChange::Add { id, peer }, deadline).await
    }

    /// Lets a node go. Through any node; safe to repeat. Its id must not be used again.
    ///
    /// # Errors
    /// [`Error::Unknown`] at the deadline when a try may have had an effect.
    pub async fn remove_node(&self, id: NodeId, deadline: Instant) -> Result<(), Error> {
        membership::change(&self.inner.core, MemberChange::Remove { id }, deadline).await
    }

    /// The members as this node knows them, by id.
    pub fn members(&self) -> Vec<Member> {
        self.inner.core.members()
    }

    /// Answers the calls of peers.
    pub fn peer_service(&self) -> PeerService {
        PeerService::new(self.inner.clone())
    }

    /// Up to `max` revisions above `after` from this node's journal; fewer at its end.
    ///
    /// # Errors
    /// The store's fault.
    pub fn journal(&self, after: Revision, max: usize) -> Result<Vec<JournalRow>, Fault> {
        self.inner.core.shared.keep.journal(after, max)
    }

    /// Makes a snapshot soon, and purges the log below it.
    ///
    /// # Errors
    /// [`Error::Stopped`] when Raft has ended.
    pub async fn snapshot(&self) -> Result<(), Error> {
        self.inner.core.raft.trigger().snapshot().await.map_err(|_| Error::Stopped)
    }

    /// Figures for an operator.
    pub fn status(&self) -> LedgerStatus {
        let metrics = self.inner.core.metrics();
        LedgerStatus {
            term: metrics.current_term,
            leader: metrics.current_leader.map(NodeId),
            last_log_index: metrics.last_log_index,
            committed_index: metrics.cluster_committed.map(|id| id.index),
            applied_index: metrics.last_applied.map(|id| id.index),
            snapshot_index: metrics.snapshot.map(|id| id.index),
            purged_index: metrics.purged.map(|id| id.index),
        }
    }

    /// Resolves when this ledger has stopped, with the reason. The node must then end its
    /// incarnation.
    pub async fn stopped(&self) -> StopReason {
        let mut stopped = self.inner.core.stopped.subscribe();
        match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(StopReason::Shutdown),
            Err(_) => StopReason::Shutdown,
        }
    }

    /// Hands leadership over if this node has it, and stops. Other clones stop with it.
    pub async fn shutdown(&self) {
        self.hand_over().await;
        self.kill().await;
    }

    /// Stops at once and hands nothing over, as a crash would.
    pub async fn kill(&self) {
        let core = &self.inner.core;
        core.stop(StopReason::Shutdown);
        self.inner.abort_tasks();
        if let Err(error) = core.raft.shutdown().await {
            tracing::warn!(%error, "raft did not end well");
        }
    }

    async fn hand_over(&self) {
        let core = &self.inner.core;
        let metrics = core.metrics();
        let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
        let replication = metrics.replication.unwrap_or_default();
        let newest = replication
            .iter()
            .filter(|(id, _)| **id != core.node_id.0 && voters.contains(id))
            .max_by_key(|(_, matched)| matched.map(|log_id| log_id.index));
        let Some((to, _)) = newest else { return };
        tracing::info!(to, "handing leadership over");
        if core.raft.trigger().transfer_leader(*to).await.is_ok() {
            let mut leadership = core.leadership.subscribe();
            let limit = Duration::from_millis(core.config.hand_over_ms);
            let gone = leadership.wait_for(|now| !now.is_leader && now.leader.is_some());
            if tokio::time::timeout(limit, gone).await.is_err() {
                tracing::warn!(to, "leadership was not taken over in time");
            }
        }
    }
}

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
}

impl Ledger for RaftLedger {
    async fn propose(&self, proposal: Proposal) -> Result<Outcome, Error> {
        let Proposal { command, caller, request_id, deadline } = proposal;
        let has_request_id = request_id.is_some();
        let blob = entry::encode(&Queued { caller, request_id, command }).map_err(|fault| {
            tracing::error!(%fault, "cannot encode a command");
            Error::Stopped
        })?;
        let Inner { core, queue, .. } = &*self.inner;
        forward::propose(core, queue, blob, has_request_id, deadline).await
    }

    async fn linearize(&self, deadline: Instant) -> Result<Revision, Error> {
        let Inner { core, reads, .. } = &*self.inner;
        if Planted::of(&core.config).is(PlantedBug::ReadWithoutReadIndex) {
            return Ok(self.read(|state| state.globals.revision));
        }
        core.catch_up(reads.confirmed(deadline).await?, deadline).await?;
        Ok(self.read(|state| state.globals.revision))
    }

    async fn wait_for(&self, revision: Revision, deadline: Instant) -> Result<(), Error> {
        memory_ledger::wait_for(self.applied(), revision, deadline).await
    }

    fn read<R>(&self, reader: impl FnOnce(&State) -> R) -> R {
        self.inner.core.shared.published.read(reader)
    }

    fn watch(&self, after: Revision) -> Result<WatchStream, WatchError> {
        self.inner.core.shared.published.watch(after)
    }

    fn applied(&self) -> watch::Receiver<Revision> {
        self.inner.core.shared.published.applied()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.core.leadership.subscribe()
    }

    fn leases(&self) -> &Leases {
        &self.inner.core.leases
    }

    fn node_id(&self) -> NodeId {
        self.inner.core.node_id
    }
}

#[cfg(test)]
impl RaftLedger {
    /// Changes the state behind Raft's back.
    pub(crate) fn corrupt_for_test(&self) {
        self.inner.core.shared.published.write(|state| {
            let first = state.tenants.iter().next().map(|(name, _)| name.clone());
            first.map(|name| state.tenants.remove(&name))
        });
    }
}
