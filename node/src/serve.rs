//! Everything that runs in one control node, top down.
//!
//! [`serve`] is a node on a real machine: it locks the data folder, gets an identity if it has none,
//! listens, and runs until it is told to stop or its ledger ends. [`Node`] is the same over any seams, so
//! that it can be started again in the same process.

mod error;

pub use error::ServeError;

use crate::{
    Config, Folders, Peers, Shared, SystemClock,
    artifacts::Artifacts,
    bootstrap::{bootstrap, save_client_file},
    join::{Newcomer, Ticket, time},
    members::{Members, RaftMembers},
    membership::Membership,
    passport::{LogLife, Passport, private_folder},
    peers,
    ports::{
        Listener, Port, client_routes, listen, peer_routes, serve_port, with_copies, with_images,
    },
    service::inspect::Inspect,
    sessions::Sessions,
};
use actors::Actors;
use api::Fabric;
use consensus::{Foundation, Ledger, Peer, RaftLedger, StartError, StopReason};
use identity::{Entropy, SystemEntropy};
use model::{Clock, NodeId};
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use storage::{
    Disk, Fault,
    disk::real::RealDisk,
    kv::{
        KvHome,
        sled::{SledConfig, SledHome},
    },
};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// How a node begins.
#[derive(Clone, Debug)]
pub enum Begin {
    /// It has an identity from before.
    Again,
    /// It is the first of a new cluster.
    Bootstrap,
    /// It joins a cluster.
    Join(Ticket),
}

/// Content of `addr.json`.
#[derive(Serialize)]
struct AddrFile<'a> {
    client: &'a str,
    peer: &'a str,
    pid: u32,
}

/// Runs a control node on this machine until `until` resolves.
///
/// # Errors
/// See [`ServeError`]; a node whose ledger ended by itself is an error.
pub async fn serve(
    config: Config,
    begin: Begin,
    until: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let folders = Folders::new(&config.node.data);
    let disk = RealDisk::start(&config.disk)?;
    let bulk_disk = RealDisk::start(&config.bulk_disk)?;
    disk.create_dir(folders.data()).await?;
    private_folder(folders.data())?;
    let _lock = disk.lock(&folders.lock()).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
    let tcp = api::Tcp::new(config.tcp);
    match &begin {
        Begin::Again => {}
        Begin::Bootstrap => bootstrap(&disk, &config, (clock.now(), &*entropy)).await?,
        Begin::Join(ticket) => {
            let (clock, entropy) = (clock.clone(), &*entropy);
            let newcomer = Newcomer { fabric: &tcp, disk: &disk, config: &config, clock, entropy };
            newcomer.join(ticket).await?;
        }
    }
    let listening = listen(tcp, &config).await;
    let (client, peer) = listening.map_err(|source| ServeError::Listen {
        client: config.node.client_addr.clone(),
        peer: config.node.peer_addr.clone(),
        source,
    })?;
    let kv_home = SledHome::new(SledConfig {
        cache_bytes: config.kv.cache_bytes,
        sync_waiters_max: config.kv.sync_waiters_max,
        aside_max: config.kv.aside_max,
        lock_wait_ms: config.kv.lock_wait_ms,
        ..SledConfig::new(folders.kv())
    });
    let addresses = (client.addr.clone(), peer.addr.clone());
    let seams = Seams { fabric: tcp, disk: disk.clone(), bulk_disk, kv_home, clock, entropy };
    let mut node = Node::start(config, seams, client, peer).await?;
    if matches!(begin, Begin::Bootstrap) {
        node.settled().await;
    }
    write_addresses(&disk, &folders, &addresses).await?;
    tracing::info!(client = addresses.0, peer = addresses.1, "serving");
    let ended = tokio::select! {
        biased;
        reason = node.ended() => Some(reason),
        () = until => None,
    };
    node.stop().await;
    match ended {
        None => Ok(()),
        Some(reason @ StopReason::RulesUnknown { .. }) => Err(StartError::Rules(reason).into()),
        Some(StopReason::Removed { node }) => Err(ServeError::Removed { node }),
        Some(reason) => Err(ServeError::Stopped { reason: reason.to_string() }),
    }
}

async fn write_addresses(
    disk: &RealDisk,
    folders: &Folders,
    (client, peer): &(String, String),
) -> Result<(), Fault> {
    let text = serde_json::to_vec(&AddrFile { client, peer, pid: std::process::id() });
    // A struct of texts and a number can be written as JSON.
    disk.replace_file(&folders.addr_json(), text.unwrap_or_default().into()).await
}

/// What a node stands on.
pub struct Seams<F: Fabric, D: Disk, H: KvHome> {
    /// The network.
    pub fabric: F,
    /// Files: the Raft log, and what is small.
    pub disk: D,
    /// Images and snapshots: the same file system, in a queue of its own, so that no vote waits
    /// behind an upload.
    pub bulk_disk: D,
    /// The place of the materialised state.
    pub kv_home: H,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Dice.
    pub entropy: Arc<dyn Entropy>,
}

/// A running control node.
pub struct Node {
    shared: Shared<RaftLedger>,
    actors: Actors,
    client_port: JoinHandle<()>,
    peer_port: JoinHandle<()>,
    peer_stop: CancellationToken,
    membership: JoinHandle<()>,
    images: JoinHandle<()>,
}

impl Node {
    /// Starts everything on the current runtime. The data folder has an identity already.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn start<F: Fabric, D: Disk, H: KvHome>(
        config: Config,
        seams: Seams<F, D, H>,
        client: Listener<F::Io>,
        peer: Listener<F::Io>,
    ) -> Result<Self, ServeError> {
        let folders = Folders::new(&config.node.data);
        let life = config.certificates.clone();
        let now = (seams.clock.now(), &*seams.entropy);
        let mut passport = Passport::load(&seams.disk, &folders, life, now).await?;
        check(&passport, &folders)?;
        let here = Peer {
            client_addr: advertised(&config.node.advertise_client, &client.addr),
            peer_addr: advertised(&config.node.advertise_peer, &peer.addr),
        };
        if passport.node.log == LogLife::New {
            // Durable before Raft runs, and so before any vote.
            RaftLedger::make_log(&seams.disk, folders.data(), &config.log).await?;
            passport.node.log = if passport.node.bootstrap { LogLife::Made } else { LogLife::Used };
            passport.node.save(&seams.disk, &folders).await?;
        }
        let ledger = start_ledger(&config, &seams, &passport, &folders).await?;
        if passport.node.bootstrap {
            begin_cluster(&ledger, &seams.disk, (&mut passport, &folders), &here).await?;
            let cluster_id = &passport.node.cluster_id;
            save_client_file(&seams.disk, &folders, cluster_id, &here.client_addr).await?;
        }
        let clock = seams.clock.clone();
        let actors = Actors::start(ledger.clone(), clock, config.actors.clone()).await;
        let actors = actors.map_err(|error| ServeError::Actors(error.to_string()))?;
        let shared = share(config, &seams, &passport, (ledger.clone(), actors.board().clone()))?;
        let members: Arc<dyn Members> = Arc::new(RaftMembers::new(ledger));
        let images =
            Artifacts::open(shared.clone(), members.clone(), seams.bulk_disk.clone()).await?;
        let (client_port, peer_port, peer_stop) =
            open_ports::<F, D>(&images, &members, &passport, (client, peer))?;
        let images = images.start();
        let tls = client_tls(&passport, &seams.clock)?;
        let dial = peers::dialer(&seams.fabric, tls, shared.config.peer_wire);
        let node = passport.node;
        let membership = Membership { shared: shared.clone(), members, node, here, dial };
        let membership = tokio::spawn(membership.run());
        Ok(Self { shared, actors, client_port, peer_port, peer_stop, membership, images })
    }

    /// What its services share.
    pub fn shared(&self) -> &Shared<RaftLedger> {
        &self.shared
    }

    /// Resolves when the node is a member that the state knows by its addresses.
    pub async fn settled(&mut self) {
        tokio::select! {
            biased;
            _ = &mut self.membership => {}
            _ = self.shared.ledger.stopped() => {}
        }
    }

    /// Resolves when the ledger ended by itself: the node must be stopped.
    pub async fn ended(&self) -> StopReason {
        self.shared.ledger.stopped().await
    }

    /// Hands leadership over, ends calls and sessions, and stops. Leadership goes first: what is still
    /// under way here then goes to the next leader, and the others never wait for this one.
    pub async fn stop(self) {
        let limit = Duration::from_millis(self.shared.config.server.stop_ms);
        self.shared.ledger.hand_over().await;
        self.shared.stop.cancel();
        self.membership.abort();
        end(self.client_port, limit, "client").await;
        self.actors.stop().await;
        self.shared.ledger.shutdown().await;
        self.peer_stop.cancel();
        end(self.peer_port, limit, "peer").await;
        end(self.images, limit, "images").await;
    }
}

/// Waits for a port to end, but not for ever.
async fn end(mut port: JoinHandle<()>, limit: Duration, name: &str) {
    if timeout(limit, &mut port).await.is_err() {
        tracing::warn!(port = name, "cut connections that did not end in time");
        port.abort();
    }
}

fn check(passport: &Passport, folders: &Folders) -> Result<(), ServeError> {
    let identity = passport.bundle.identity();
    let own = identity::Principal::Node { id: passport.node.node_id.0 };
    let same = identity.principal == own
        && identity.cluster.as_str() == passport.node.cluster_id
        && passport.authority.sha256() == passport.bundle.trust().sha256();
    match same {
        true => Ok(()),
        false => Err(ServeError::OtherIdentity { path: folders.identity() }),
    }
}

fn advertised(asked: &str, listening: &str) -> String {
    if asked.is_empty() { listening.to_owned() } else { asked.to_owned() }
}

/// The first node begins its cluster, once: were its log ever empty again, it would be another cluster
/// under the same name.
async fn begin_cluster<D: Disk>(
    ledger: &RaftLedger,
    disk: &D,
    (passport, folders): (&mut Passport, &Folders),
    here: &Peer,
) -> Result<(), ServeError> {
    if passport.node.log == LogLife::Used {
        return Ok(());
    }
    let begun = ledger.bootstrap(here.clone()).await;
    begun.map_err(|error| ServeError::Stopped { reason: error.to_string() })?;
    passport.node.log = LogLife::Used;
    Ok(passport.node.save(disk, folders).await?)
}

async fn start_ledger<F: Fabric, D: Disk, H: KvHome>(
    config: &Config,
    seams: &Seams<F, D, H>,
    passport: &Passport,
    folders: &Folders,
) -> Result<RaftLedger, ServeError> {
    let tls = client_tls(passport, &seams.clock)?;
    let transport = crate::wire::GrpcTransport::new(seams.fabric.clone(), tls, config.peer_wire);
    let foundation = Foundation {
        node_id: passport.node.node_id,
        config: config.raft.clone(),
        log_config: config.log.clone(),
        disk: seams.disk.clone(),
        snapshot_disk: seams.bulk_disk.clone(),
        dir: folders.data().to_owned(),
        kv_home: seams.kv_home.clone(),
        transport: Arc::new(transport),
        clock: seams.clock.clone(),
    };
    let (ledger, _kv) = RaftLedger::start(foundation).await?;
    Ok(ledger)
}

fn client_tls(
    passport: &Passport,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<identity::ClientConfig>, identity::TlsError> {
    identity::client_config(passport.bundle.trust(), Some(&passport.bundle), time(clock))
}

fn share<F: Fabric, D: Disk, H: KvHome>(
    config: Config,
    seams: &Seams<F, D, H>,
    passport: &Passport,
    (ledger, board): (RaftLedger, actors::Board),
) -> Result<Shared<RaftLedger>, ServeError> {
    let state = ledger.clone();
    let resolve = move |id: NodeId| {
        state.read(|state| state.nodes.get(&id).map(|node| node.peer_addr.clone()))
    };
    let tls = client_tls(passport, &seams.clock)?;
    let peers = Peers::new(seams.fabric.clone(), tls, config.peer_wire, resolve);
    Ok(Shared {
        ledger,
        clock: seams.clock.clone(),
        entropy: seams.entropy.clone(),
        node_id: passport.node.node_id,
        cluster_id: passport.authority.cluster().clone(),
        folders: Arc::new(Folders::new(&config.node.data)),
        peers,
        authority: passport.authority.clone(),
        board,
        stop: CancellationToken::new(),
        started_at: seams.clock.now(),
        config: Arc::new(config),
    })
}

type Ports = (JoinHandle<()>, JoinHandle<()>, CancellationToken);

fn open_ports<F: Fabric, D: Disk>(
    images: &Artifacts<RaftLedger, D>,
    members: &Arc<dyn Members>,
    passport: &Passport,
    (client, peer): (Listener<F::Io>, Listener<F::Io>),
) -> Result<Ports, ServeError> {
    let shared = images.shared();
    let config = &shared.config;
    let sessions = Sessions::start(shared.clone());
    let held = sessions.clone();
    let inspect = Inspect {
        shared: shared.clone(),
        members: members.clone(),
        sessions: Arc::new(move || held.count()),
        parts: sessions.parts(),
    };
    let client_port = Port {
        name: "client",
        tls: identity::client_port_config(&passport.bundle, time(&shared.clock))?,
        wire: config.client_wire,
        connections_max: config.server.client_connections_max,
        stop: shared.stop.clone(),
    };
    let peer_stop = CancellationToken::new();
    let peer_port = Port {
        name: "peer",
        tls: identity::peer_port_config(&passport.bundle, time(&shared.clock))?,
        wire: config.peer_wire,
        connections_max: config.server.peer_connections_max,
        stop: peer_stop.clone(),
    };
    let routes = with_images(client_routes(shared, members, inspect.clone(), &sessions), images);
    let client = serve_port::<_, F>(shared, client.incoming, routes, client_port);
    let routes = with_copies(peer_routes(shared, members, inspect, &sessions), images);
    let peer = serve_port::<_, F>(shared, peer.incoming, routes, peer_port);
    Ok((client, peer, peer_stop))
}

#[cfg(test)]
mod tests;
