//! A control machine: a disk, a store and a clock, and the node that runs on them for one life after the
//! other.
//!
//! What runs in a life is the product's: the replicated ledger, the actors, sessions and services. A life
//! ends by a fence first (network, then disk and store), so that what is left of its tasks can do nothing
//! any more, and is then cleared away.

use super::{
    book::Book,
    clock::WallClock,
    lines::{Line, Lines, Listening},
    net::{Door, Net, Place},
    observe::{Observers, Watched},
    settings::{self, Plant, Settings},
    wire::Messages,
};
use actors::Actors;
use api::{
    BoxStream, Incoming,
    limits::PEER_BYTES_MAX,
    v1::{forward_server::ForwardServer, raft_server::RaftServer},
};
use consensus::{
    Foundation, GrpcTransport, Ledger as _, PeerService, RaftLedger, StartError, Transport,
};
use identity::{Authority, Entropy};
use model::{Clock as _, NodeId};
use node::{Folders, LocalPort, Members, Peers, RaftMembers, Shared};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use storage::{
    Fault,
    disk::simulated::{Loss, SimulatedDisk, SimulatedDiskConfig},
    kv::simulated::{SimulatedHome, SimulatedKvConfig},
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;

/// Where a node keeps its files.
pub(super) const FOLDER: &str = "/node";

/// What all nodes share beside the network.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) net: Net,
    pub(super) book: Book,
    pub(super) observers: Observers,
    pub(super) authority: Arc<Authority>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) config: Arc<node::Config>,
    pub(super) wire: settings::Wire,
}

/// A control machine.
pub(super) struct Control {
    pub(super) id: NodeId,
    pub(super) clock: Arc<WallClock>,
    disk: SimulatedDisk,
    home: SimulatedHome,
    disk_config: SimulatedDiskConfig,
    running: Option<Running>,
    /// What its watcher has seen; outlives its lives.
    watched: Watched,
    /// What the disk held some time ago: for the planted bug.
    old_disk: Option<SimulatedDisk>,
}

struct Running {
    ledger: RaftLedger,
    actors: Actors,
    stop: CancellationToken,
    /// Observers and ports.
    tasks: Vec<JoinHandle<()>>,
}

impl Control {
    /// A machine with an empty log, which has never been started.
    pub(super) async fn new(
        id: NodeId,
        settings: &Settings,
        common: &Common,
        offset_ms: i64,
    ) -> Result<Self, Fault> {
        let seed = settings.seed.wrapping_mul(31).wrapping_add(id.0);
        let lies = settings.plant == Some(Plant::LyingDisks);
        let ignored_syncs_per_million = if lies { 500_000 } else { 0 };
        let disk_config = SimulatedDiskConfig { ignored_syncs_per_million, ..settings::disk(seed) };
        let sync_us = disk_config.sync_us;
        let kv = SimulatedKvConfig {
            seed: seed ^ 0x6b76,
            sync_us,
            sync_errors_per_million: 0,
            wrecks_per_million: if settings.faults.disks { 100_000 } else { 0 },
        };
        let disk = SimulatedDisk::new(disk_config.clone());
        RaftLedger::make_log(&disk, Path::new(FOLDER), &common.config.log).await?;
        Ok(Self {
            id,
            clock: WallClock::new(common.book.began, offset_ms),
            disk,
            home: SimulatedHome::new(kv),
            disk_config,
            running: None,
            watched: Watched::default(),
            old_disk: None,
        })
    }

    pub(super) fn ledger(&self) -> Option<&RaftLedger> {
        self.running.as_ref().map(|running| &running.ledger)
    }

    pub(super) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Whether its life is over although nobody ended it: the ledger stopped, or the power is off.
    pub(super) async fn has_ended(&self) -> bool {
        let Some(running) = &self.running else { return false };
        if self.disk.is_off() {
            return true;
        }
        let stopped = running.ledger.stopped();
        tokio::select! {
            biased;
            _ = stopped => true,
            () = std::future::ready(()) => false,
        }
    }

    /// Begins a life.
    pub(super) async fn start(&mut self, common: &Common) -> Result<(), StartError> {
        let here = Place::Node(self.id);
        let life = common.net.fence(here);
        let transport = self.transport(common, life);
        let foundation = Foundation {
            node_id: self.id,
            config: common.config.raft.clone(),
            log_config: common.config.log.clone(),
            disk: self.disk.clone(),
            snapshot_disk: self.disk.clone(),
            dir: PathBuf::from(FOLDER),
            kv_home: self.home.clone(),
            transport,
            clock: self.clock.clone(),
        };
        let (ledger, _kv) = RaftLedger::start(foundation).await?;
        let actors =
            Actors::start(ledger.clone(), self.clock.clone(), common.config.actors.clone());
        let actors = actors.await.map_err(|error| StartError::Raft(error.to_string()))?;
        let stop = CancellationToken::new();
        let shared = self.shared(common, &ledger, (&actors, &stop));
        let members: Arc<dyn Members> = Arc::new(RaftMembers::new(ledger.clone()));
        let port = LocalPort::open(&shared, &members);
        let peers = ledger.peer_service();
        let mut tasks = common.observers.observe(&ledger, &self.watched);
        let listening = match common.wire {
            settings::Wire::Messages => None,
            settings::Wire::Bytes => Some(listen(common, (&port, &peers), &mut tasks)),
        };
        let disk = self.disk.clone();
        let door = Door { life, peers, port, ledger: ledger.clone(), disk, listening };
        common.net.open(self.id, door);
        common.book.count(|figures| figures.starts += 1);
        let revision = ledger.read(|state| state.globals.revision);
        common.book.line(format_args!("{here} is up, life {life}, revision {revision}"));
        self.running = Some(Running { ledger, actors, stop, tasks });
        Ok(())
    }

    fn transport(&self, common: &Common, life: u64) -> Arc<dyn Transport> {
        let (me, net) = (self.id, common.net.clone());
        match common.wire {
            settings::Wire::Messages => Arc::new(Messages { me, life, net }),
            settings::Wire::Bytes => {
                let lines = Lines { net, here: Place::Node(me), life, peer: None };
                Arc::new(GrpcTransport::insecure(lines, common.config.peer_wire))
            }
        }
    }

    fn shared(
        &self,
        common: &Common,
        ledger: &RaftLedger,
        (actors, stop): (&Actors, &CancellationToken),
    ) -> Shared<RaftLedger> {
        Shared {
            ledger: ledger.clone(),
            clock: self.clock.clone(),
            entropy: common.entropy.clone(),
            node_id: self.id,
            cluster_id: common.authority.cluster().clone(),
            folders: Arc::new(Folders::new(FOLDER)),
            config: common.config.clone(),
            peers: Peers::none(),
            authority: common.authority.clone(),
            board: actors.board().clone(),
            stop: stop.clone(),
            started_at: self.clock.now(),
        }
    }

    /// Ends its life as a crash does; the next finds the disk as `loss` leaves it.
    pub(super) fn crash(&mut self, common: &Common, loss: Loss) {
        let here = Place::Node(self.id);
        common.net.fence(here);
        common.book.line(format_args!("{here} crashes, loses {loss:?}"));
        self.disk = self.disk.crash(loss);
        self.home.crash(loss);
        if let Some(running) = self.running.take() {
            running.tasks.iter().for_each(JoinHandle::abort);
            running.stop.cancel();
            tokio::spawn(async move {
                running.ledger.kill().await;
                running.actors.stop().await;
            });
        }
    }

    /// Ends its life as an operator does, handing leadership over.
    pub(super) async fn stop(&mut self, common: &Common) {
        let here = Place::Node(self.id);
        common.book.line(format_args!("{here} stops"));
        if let Some(running) = self.running.take() {
            running.tasks.iter().for_each(JoinHandle::abort);
            running.stop.cancel();
            running.actors.stop().await;
            running.ledger.shutdown().await;
        }
        common.net.fence(here);
        self.disk = self.disk.crash(Loss::Nothing);
        self.home.crash(Loss::Nothing);
    }

    /// The store does not open any more: state and journal are made anew from snapshot and log.
    pub(super) fn wreck(&self) {
        self.home.wreck();
    }

    pub(super) fn disk(&self) -> &SimulatedDisk {
        &self.disk
    }

    /// The disk as it usually is.
    pub(super) fn disk_config(&self) -> SimulatedDiskConfig {
        self.disk_config.clone()
    }

    /// The disk works as it should.
    pub(super) fn calm(&self) {
        self.disk.configure(self.disk_config());
    }

    /// Remembers the disk as it is now: for the planted bug.
    pub(super) fn remember_disk(&mut self) {
        self.old_disk = Some(self.disk.fork_durable());
    }

    /// Puts the remembered disk in the place of the one there is: a planted bug. Only while it is down.
    pub(super) fn take_old_disk(&mut self) {
        if let Some(old) = self.old_disk.take() {
            self.disk = old;
            self.home.wreck();
        }
    }
}

/// Connections waiting at a port.
const WAITING: usize = 64;

/// The two ports of a node on the byte wire.
fn listen(
    common: &Common,
    (port, peers): (&LocalPort, &PeerService),
    tasks: &mut Vec<JoinHandle<()>>,
) -> Listening {
    let (client, clients) = mpsc::channel(WAITING);
    let (peer, dialled) = mpsc::channel::<Line>(WAITING);
    let clients: Incoming<Line> = Box::pin(ReceiverStream::new(clients).map(Ok));
    let served = port.clone().serve(clients, common.config.client_wire);
    tasks.push(tokio::spawn(async move { drop(served.await) }));
    let nodes: BoxStream<'static, _> = Box::pin(
        ReceiverStream::new(dialled).map(|(io, _)| Ok::<_, std::io::Error>(api::Conn::new(io, ()))),
    );
    let server = api::fabric::server(common.config.peer_wire)
        .add_service(RaftServer::new(peers.clone()).max_decoding_message_size(PEER_BYTES_MAX))
        .add_service(ForwardServer::new(peers.clone()).max_decoding_message_size(PEER_BYTES_MAX));
    let served = server.serve_with_incoming(nodes);
    tasks.push(tokio::spawn(async move { drop(served.await) }));
    Listening { client, peer }
}
