//! One control node and the agents of a tenant in one process and in simulated time: real TLS and gRPC over
//! wires in memory, a ledger in memory, hosts without processes.

use crate::{
    Alone, Config, Folders, Members, Peers, Shared,
    config::LeaseConfig,
    join::time,
    passport::issue,
    ports::{Port, client_routes, serve_port},
    service::inspect::Inspect,
    sessions::Sessions,
    testing::{deployment, digest, draft, host, image, name, spec, tenant},
};
use agent::{
    Parts, Servers,
    driver::fake::{FakeHost, Script},
    images::FakeImages,
};
use api::{
    BoxFuture, Fabric, Incoming,
    fabric::{Calls, WireConfig},
};
use consensus::{Ledger, MemoryLedger, Proposal};
use futures::StreamExt;
use identity::{Authority, CertificateBundle, Principal, SystemEntropy};
use model::{
    Assign, Caller, Clock, ClusterSpec, Command, Contact, HostProfile, Job, JobKey, NodeId,
    OnDisconnect, Phase, Reply, Resources, Timestamp, expected_jobs,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use storage::{
    Disk,
    disk::simulated::{SimulatedDisk, SimulatedDiskConfig},
};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

pub(super) const TTL_MS: u64 = 4_000;
pub(super) const GRACE_MS: u64 = 1_000;
const ADDR: &str = "node-1:7400";

/// Wires in memory, which can be cut.
#[derive(Clone, Default)]
pub(super) struct Wires {
    listeners: Arc<Mutex<BTreeMap<String, mpsc::Sender<io::Result<DuplexStream>>>>>,
    pumps: Arc<Mutex<JoinSet<()>>>,
    down: Arc<AtomicBool>,
}

impl Wires {
    /// Ends all connections and makes no new ones until it is mended.
    pub(super) fn cut(&self) {
        self.down.store(true, Ordering::Relaxed);
        self.pumps.lock().unwrap().abort_all();
    }

    pub(super) fn mend(&self) {
        self.down.store(false, Ordering::Relaxed);
    }
}

impl Fabric for Wires {
    type Io = DuplexStream;

    fn dial(&self, addr: String) -> BoxFuture<'static, io::Result<DuplexStream>> {
        let wires = self.clone();
        Box::pin(async move {
            let listener = wires.listeners.lock().unwrap().get(&addr).cloned();
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let listener = listener.filter(|_| !wires.down.load(Ordering::Relaxed));
            let listener = listener.ok_or_else(refused)?;
            let (near, mut one) = tokio::io::duplex(1 << 16);
            let (mut other, far) = tokio::io::duplex(1 << 16);
            wires.pumps.lock().unwrap().spawn(async move {
                drop(tokio::io::copy_bidirectional(&mut one, &mut other).await);
            });
            listener.send(Ok(far)).await.map_err(|_| refused())?;
            Ok(near)
        })
    }

    fn listen(&self, addr: String) -> BoxFuture<'static, io::Result<Incoming<DuplexStream>>> {
        let (sender, receiver) = mpsc::channel(16);
        self.listeners.lock().unwrap().insert(addr, sender);
        Box::pin(std::future::ready(Ok(ReceiverStream::new(receiver).boxed())))
    }
}

/// Wall-clock time as tokio's paused clock says it.
struct TestClock(Instant);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let ms = u64::try_from(self.0.elapsed().as_millis()).unwrap();
        Timestamp(1_700_000_000_000 + ms)
    }
}

/// The world.
pub(super) struct World {
    pub(super) shared: Shared<MemoryLedger>,
    pub(super) wires: Wires,
    /// Who has joined, by name: an agent that starts again has the key it had.
    bundles: Mutex<BTreeMap<String, CertificateBundle>>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl World {
    pub(super) async fn start() -> Self {
        let lease = LeaseConfig { ttl_ms: TTL_MS, renew_every_ms: 1_000, grace_ms: GRACE_MS };
        let config = Config { lease, ..Config::default() };
        let clock: Arc<dyn Clock> = Arc::new(TestClock(Instant::now()));
        let entropy = Arc::new(SystemEntropy::new());
        let cluster = identity::Name::new("c1").unwrap();
        let life = config.certificates.clone();
        let authority = Authority::generate(cluster.clone(), clock.now().0, &*entropy, life);
        let ledger = MemoryLedger::new(NodeId(1), clock.clone());
        let shared = Shared {
            ledger: ledger.clone(),
            clock: clock.clone(),
            entropy,
            node_id: NodeId(1),
            cluster_id: cluster,
            folders: Arc::new(Folders::new(PathBuf::from("/node"))),
            config: Arc::new(config),
            peers: Peers::none(),
            authority: Arc::new(authority.unwrap()),
            board: actors::Board::default(),
            stop: CancellationToken::new(),
            started_at: clock.now(),
        };
        let wires = Wires::default();
        let members: Arc<dyn Members> = Arc::new(Alone(ledger));
        let sessions = Sessions::start(shared.clone());
        let inspect = Inspect {
            shared: shared.clone(),
            members: members.clone(),
            sessions: Arc::new(|| 0),
            parts: BTreeMap::new(),
        };
        let routes = client_routes(&shared, &members, inspect, &sessions);
        let world = Self { shared, wires, bundles: Mutex::default() };
        let (peer_addr, client_addr) = ("node-1:7401".to_owned(), ADDR.to_owned());
        let id = NodeId(1);
        world.as_node(Command::ApplyNode { id, peer_addr, client_addr, rules_max: 1 }).await;
        let bundle = world.bundle(Principal::Node { id: 1 });
        let port = Port {
            name: "client",
            tls: identity::client_port_config(&bundle, time(&world.shared.clock)).unwrap(),
            wire: WireConfig::default(),
            connections_max: 64,
            stop: world.shared.stop.clone(),
        };
        let incoming = world.wires.listen(ADDR.to_owned()).await.unwrap();
        serve_port::<_, Wires>(&world.shared, incoming, routes, port);
        world
    }

    fn bundle(&self, principal: Principal) -> CertificateBundle {
        let at = (self.shared.clock.now(), &*self.shared.entropy);
        let issued = || issue(&self.shared.authority, principal.clone(), Vec::new(), at).unwrap();
        let mut bundles = self.bundles.lock().unwrap();
        bundles.entry(principal.to_string()).or_insert_with(issued).clone()
    }

    /// The way to the node for `principal`.
    pub(super) fn servers(&self, principal: Principal) -> Servers {
        let wire = (time(&self.shared.clock), WireConfig::default());
        let known = (vec![ADDR.to_owned()], 8);
        Servers::new(self.wires.clone(), &self.bundle(principal), wire, known).unwrap()
    }

    pub(super) fn channel(&self, principal: Principal) -> Calls {
        self.servers(principal).calls(ADDR).unwrap()
    }

    pub(super) async fn decide(&self, caller: Caller, command: Command) -> Reply {
        let deadline = Instant::now() + Duration::from_secs(5);
        let proposal = Proposal { command: command.clone(), caller, request_id: None, deadline };
        let outcome = self.shared.ledger.propose(proposal).await.unwrap();
        outcome.result.unwrap_or_else(|rejection| panic!("{command:?}: {rejection:?}"))
    }

    async fn asks(&self, command: Command) {
        self.decide(Caller::Operator(name("ann")), command).await;
    }

    pub(super) async fn as_node(&self, command: Command) -> Reply {
        self.decide(Caller::Node(NodeId(1)), command).await
    }

    /// Tenant `acme`, host `edge` as the only member of cluster `north`, and package `shop`, whose one job
    /// has this policy.
    pub(super) async fn acme(&self, policy: OnDisconnect) {
        self.asks(tenant("acme")).await;
        self.asks(host("acme", "edge")).await;
        let members = BTreeSet::from([name("edge")]);
        let cluster = ClusterSpec { environment: None, members };
        let (of, draft_of) = (name("acme"), draft("north"));
        self.asks(Command::ApplyCluster { tenant: of, draft: draft_of, spec: cluster }).await;
        self.as_node(image("acme", digest(1))).await;
        let mut application = crate::testing::application(digest(1));
        application.on_disconnect = policy;
        application.stop_grace_ms = 500;
        self.asks(Command::ApplyPackage {
            tenant: name("acme"),
            draft: draft("shop"),
            version: "1".to_owned(),
            applications: vec![application],
        })
        .await;
    }

    /// Deploys `shop` on `north` and gives its job to `edge`.
    pub(super) async fn deploy(&self) -> JobKey {
        self.asks(deployment("acme", "shop", spec("shop", "north"))).await;
        let ledger = &self.shared.ledger;
        let keys = ledger.read(|state| expected_jobs(state, &name("acme"), &name("shop")));
        self.as_node(Command::SyncJobs { keys: keys.clone() }).await;
        let [key] = keys.as_slice() else { panic!("one job, not {keys:?}") };
        self.assign(key).await;
        key.clone()
    }

    async fn assign(&self, key: &JobKey) {
        let seen = self.job(key).unwrap().revision;
        let items = vec![Assign { key: key.clone(), host: name("edge"), seen }];
        let reply = self.as_node(Command::AssignJobs { items }).await;
        let Reply::Items(results) = reply else { panic!("{reply:?}") };
        assert_eq!(results, [Ok(())]);
    }

    pub(super) async fn undeploy(&self, key: &JobKey) {
        let (of, named) = (name("acme"), name("shop"));
        self.asks(Command::DeleteDeployment { tenant: of, deployment: named, force: false }).await;
        self.as_node(Command::SyncJobs { keys: vec![key.clone()] }).await;
    }

    pub(super) fn job(&self, key: &JobKey) -> Option<Job> {
        self.shared.ledger.read(|state| state.jobs.get(key).cloned())
    }

    pub(super) fn phase(&self, key: &JobKey) -> Option<Phase> {
        let job = self.job(key)?;
        Some(job.placements.first()?.current.as_ref()?.phase)
    }

    pub(super) fn restarts(&self, key: &JobKey) -> Option<u32> {
        let job = self.job(key)?;
        Some(job.placements.first()?.current.as_ref()?.restarts)
    }

    pub(super) fn contact(&self) -> Contact {
        let (tenant, edge) = (name("acme"), name("edge"));
        self.shared.ledger.read(|state| state.host(&tenant, &edge).unwrap().contact)
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(self.contact(), Contact::Connected { .. })
    }

    /// Starts an agent for `edge` on a machine with a disk.
    pub(super) async fn agent(&self, machine: &Machine) -> RunningAgent {
        let data = PathBuf::from("/agent");
        machine.disk.create_dir(&data).await.unwrap();
        let parts = Parts {
            disk: machine.disk.clone(),
            driver: Arc::new(machine.host.driver()),
            images: Arc::new(machine.images.clone()),
            servers: Arc::new(self.servers(crate::testing::agent("acme", "edge"))),
            profile: Arc::new(profile),
            clock: self.shared.clock.clone(),
            tenant: name("acme"),
            host: name("edge"),
            life: 1,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let until = async move { drop(stopped.await) };
        let task = tokio::spawn(async move {
            agent::run(agent::Config::new(data), parts, until).await.unwrap();
        });
        RunningAgent { stop, task }
    }
}

pub(super) fn profile() -> HostProfile {
    HostProfile {
        capacity: Resources { cpu_millis: 4_000, memory_bytes: 1 << 30 },
        drivers: BTreeSet::from([model::DriverKind::Exec]),
        fenced: true,
        ..HostProfile::default()
    }
}

/// A machine: what outlives its agent.
pub(super) struct Machine {
    pub(super) host: FakeHost,
    pub(super) disk: SimulatedDisk,
    images: FakeImages,
}

impl Machine {
    pub(super) fn new() -> Self {
        let host = FakeHost::new();
        let output = b"hello\nworld\n".to_vec();
        host.script("web", Script { stop_ms: 100, output, ..Script::default() });
        let disk = SimulatedDisk::new(SimulatedDiskConfig::default());
        Self { host, disk, images: FakeImages::default() }
    }

    pub(super) fn runs(&self) -> bool {
        !self.host.running().is_empty()
    }
}

/// An agent that runs.
pub(super) struct RunningAgent {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl RunningAgent {
    pub(super) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

/// Waits in simulated time until something is so; how long that took.
pub(super) async fn until(what: &str, limit_ms: u64, mut so: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_millis(limit_ms), "not within time: {what}");
        sleep(Duration::from_millis(20)).await;
    }
    begun.elapsed()
}
