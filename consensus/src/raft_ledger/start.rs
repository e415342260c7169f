//! How a ledger begins: what it stands on is opened, and its tasks are started.

use super::{
    Inner, RaftLedger, StartError,
    open::{check_rules, check_vote, open_log, open_state},
};
use crate::{
    Config, Leadership, Leases, Transport,
    attentive::Attentive,
    ballots,
    core::{Core, RaftLog},
    duty, herald,
    log_store::LogStore,
    machine::{Machine, Shared},
    network::Network,
    planted::Planted,
    publish::{Published, RingLimits},
    purge::Transfers,
    queue::Queue,
    reads::Reads,
    snapshot::Snapshots,
    snapshot_files::SnapshotFiles,
    steward,
};
use model::{Clock, NodeId};
use openraft::Raft;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex as StdMutex},
};
use storage::{
    Disk, Fault,
    kv::KvHome,
    log::{Log, LogConfig},
};
use tokio::sync::{Mutex, watch};

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
        let log_files = Arc::new(log.clone());
        let log_store = LogStore::new(log, config.replication_read_bytes_max)?;
        let log_store = log_store.with(Planted::of(&config));
        let snapshots = SnapshotFiles::open(snapshot_disk, &dir.join("snapshots")).await?;
        let opened = open_state(&config, &kv_home, (&log_store, &log_dir), &snapshots);
        let (kv, keep, position, state) = Box::pin(opened).await?;
        check_rules(&config, &position)?;
        let snapshot = snapshots.current().await?.and_then(|stored| stored.meta.last_log_id);
        check_vote(&log_store, &log_dir, snapshot)?;
        let limits = RingLimits {
            events_max: config.watch_events_max,
            changes_max: config.watch_changes_max,
        };
        let published = Published::new(state, limits, Some(Arc::new(keep.clone())));
        let files = (Arc::new(snapshots) as Arc<dyn Snapshots>, log_files as Arc<_>);
        let shared = Shared::new((node_id, config.clone()), published, keep, files);
        let machine = Machine::new(shared.clone(), position);
        let transfers = Transfers::default();
        let removed = watch::Sender::new(false);
        let transport: Arc<dyn Transport> =
            Arc::new(Attentive { wire: transport, removed: removed.clone() });
        let network = Network {
            me: node_id,
            transport: transport.clone(),
            config: config.clone(),
            transfers: transfers.clone(),
        };
        let raft = Raft::new(node_id.0, raft_config, network, log_store, machine).await.map_err(
            |fatal| match shared.halt_reason() {
                Some(reason) => StartError::Rules(reason),
                None => StartError::Raft(fatal.to_string()),
            },
        )?;
        let raft_log = RaftLog { raft: raft.clone(), shared: shared.clone() };
        let (queue, commits) = Queue::new(config.clone(), Arc::new(raft_log), clock);
        let core = Arc::new(Core {
            node_id,
            config: config.clone(),
            raft,
            shared,
            transport,
            leadership: watch::Sender::new(Leadership::default()),
            leases: Leases::new(&config),
            transfers,
            stopped: watch::Sender::new(None),
            queue: queue.clone(),
            changes: Mutex::default(),
            removed,
        });
        let (reads, rounds) = Reads::new(core.clone());
        let tasks = vec![
            tokio::spawn(commits),
            tokio::spawn(rounds),
            tokio::spawn(core.clone().follow_metrics()),
            tokio::spawn(duty::run(core.clone(), reads.clone())),
            tokio::spawn(ballots::run(core.clone())),
            tokio::spawn(herald::run(core.clone())),
            tokio::spawn(steward::run(core.clone(), reads.clone())),
        ];
        let inner = Arc::new(Inner { core, queue, reads, tasks: StdMutex::new(tasks) });
        Ok((Self { inner }, kv))
    }
}
