//! One control node's ledger by itself: real log, real store, real syncs; no network and no RPC.

use bytes::Bytes;
use consensus::{
    Config, Error, Foundation, Ledger, Method, Peer, Proposal, RaftLedger, StartError, Target,
    Transport, TransportError,
};
use model::{Caller, Clock, Command, NodeId, Outcome, Timestamp};
use std::{
    collections::BTreeMap,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use storage::{
    Fault,
    disk::real::{RealDisk, RealDiskConfig},
    kv::sled::{SledConfig, SledHome},
    log::LogConfig,
};
use tokio::time::Instant;

/// A clock that shows what it was set to.
#[derive(Debug)]
pub struct Hands(AtomicU64);

impl Hands {
    /// Shows `time`.
    pub fn new(time: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(time)))
    }

    /// Sets it.
    pub fn set(&self, time: Timestamp) {
        self.0.store(time.0, Ordering::Relaxed);
    }
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

/// The ledger of a cluster of one node, which leads.
pub struct Local {
    /// The ledger.
    pub ledger: RaftLedger,
    /// How long its start took.
    pub started: Started,
}

/// How long the parts of a start took.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// Until log, snapshots and store were read.
    pub open: Duration,
    /// Until this node led and a linearizable read was answered.
    pub serving: Duration,
    /// Entries of the log that were applied again.
    pub replayed: u64,
}

/// Why there is no ledger.
#[derive(Debug)]
pub enum NoLedger {
    /// Its files cannot be made.
    Storage(Fault),
    /// It cannot start.
    Start(StartError),
    /// It does not serve.
    Serve(Error),
}

impl Local {
    /// Starts the ledger in `place`, on the current runtime, and waits until it serves.
    ///
    /// # Errors
    /// Whatever keeps it from serving.
    pub async fn start(
        place: &Path,
        config: Config,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, NoLedger> {
        let began = Instant::now();
        let disk = RealDisk::start(&RealDiskConfig::new()).map_err(NoLedger::Storage)?;
        let snapshot_disk = RealDisk::start(&RealDiskConfig::new()).map_err(NoLedger::Storage)?;
        let dir = place.join("ledger");
        let log_config = LogConfig::new();
        RaftLedger::make_log(&disk, &dir, &log_config).await.map_err(NoLedger::Storage)?;
        let foundation = Foundation {
            node_id: NodeId(1),
            config,
            log_config,
            disk,
            snapshot_disk,
            dir,
            kv_home: SledHome::new(SledConfig::new(place.join("kv"))),
            transport: Arc::new(Alone),
            clock,
        };
        let (ledger, _store) = RaftLedger::start(foundation).await.map_err(NoLedger::Start)?;
        let open = began.elapsed();
        let last = ledger.log_status().next.saturating_sub(1);
        let replayed = last - ledger.status().restored_index.unwrap_or_default().min(last);
        let addr = "127.0.0.1:1".to_owned();
        let peer = Peer { peer_addr: addr.clone(), client_addr: addr };
        ledger.bootstrap(peer).await.map_err(NoLedger::Serve)?;
        let until = Instant::now() + Duration::from_secs(600);
        ledger.linearize(until).await.map_err(NoLedger::Serve)?;
        let started = Started { open, serving: began.elapsed(), replayed };
        Ok(Self { ledger, started })
    }

    /// Proposes one command.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn propose(&self, command: Command) -> Result<Outcome, Error> {
        propose(&self.ledger, command).await
    }
}

/// Proposes one command.
async fn propose(ledger: &RaftLedger, command: Command) -> Result<Outcome, Error> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let (caller, request_id) = (Caller::System, None);
    ledger.propose(Proposal { command, caller, request_id, deadline }).await
}

/// The wire of a node without peers.
struct Alone;

impl Transport for Alone {
    fn call(
        &self,
        to: &Target,
        _method: Method,
        _body: Bytes,
        _deadline: Instant,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send>> {
        let to = to.id;
        Box::pin(async move {
            let reason = "there are no peers".to_owned();
            Err(TransportError::Unreachable { to, reason })
        })
    }
}

/// Bytes of each part of a node's data.
pub fn on_disk(place: &Path) -> BTreeMap<&'static str, u64> {
    let parts = [("log", "ledger/log"), ("snapshots", "ledger/snapshots"), ("kv", "kv")];
    parts.into_iter().map(|(name, folder)| (name, bytes_below(&place.join(folder)))).collect()
}

/// Bytes of the files below a folder, which come and go while they are counted.
pub fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.filter_map(Result::ok).map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
