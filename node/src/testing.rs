//! One control node in the test's process: real certificates, real TLS on loopback, a ledger in memory.

use crate::{
    Alone, Config, Folders, Members, Peers, Shared, SystemClock,
    artifacts::Artifacts,
    join::time,
    passport::issue,
    peers::wrap_as_peer,
    ports::{Port, client_routes, peer_routes, serve_port, with_copies, with_images},
    service::inspect::Inspect,
    sessions::Sessions,
};
use api::{Tcp, fabric::WireConfig};
use consensus::{Ledger, MemoryLedger, Proposal};
use identity::{Authority, CertificateBundle, Principal, SystemEntropy};
use model::{
    Application, Caller, Clock, ClusterSpec, Command, Deployment, DeploymentSpec, Digest, Draft,
    DriverKind, Labels, Name, NodeId, OnDisconnect, Outcome, Reply, Resources, Role, Scope,
    Strategy, Targets,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};
use storage::disk::real::RealDisk;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// The node.
pub(crate) struct TestNode {
    pub(crate) shared: Shared<MemoryLedger>,
    pub(crate) client_addr: String,
    pub(crate) peer_addr: String,
    _folder: tempfile::TempDir,
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn operator(text: &str) -> Principal {
    Principal::Operator { name: identity::Name::new(text).unwrap() }
}

pub(crate) fn agent(tenant: &str, host: &str) -> Principal {
    let name = |text| identity::Name::new(text).unwrap();
    Principal::Agent { tenant: name(tenant), host: name(host) }
}

impl TestNode {
    /// Starts node 1 with both ports.
    pub(crate) async fn start() -> Self {
        Self::start_with(Config::default()).await
    }

    pub(crate) async fn start_with(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let entropy = Arc::new(SystemEntropy::new());
        let cluster = identity::Name::new("c1").unwrap();
        let life = config.certificates.clone();
        let authority =
            Arc::new(Authority::generate(cluster.clone(), clock.now().0, &*entropy, life).unwrap());
        let ledger = MemoryLedger::new(NodeId(1), clock.clone());
        let shared = Shared {
            ledger: ledger.clone(),
            clock: clock.clone(),
            entropy,
            node_id: NodeId(1),
            cluster_id: cluster,
            folders: Arc::new(Folders::new(folder.path())),
            config: Arc::new(config),
            peers: Peers::none(),
            authority,
            board: actors::Board::default(),
            stop: CancellationToken::new(),
            started_at: clock.now(),
        };
        let members: Arc<dyn Members> = Arc::new(Alone(ledger));
        let bundle = bundle(&shared, Principal::Node { id: 1 });
        let sessions = Sessions::start(shared.clone());
        let inspect = Inspect {
            shared: shared.clone(),
            members: members.clone(),
            sessions: Arc::new(|| 0),
            parts: BTreeMap::new(),
        };
        let disk = RealDisk::start(&shared.config.disk).unwrap();
        let images = Artifacts::open(shared.clone(), members.clone(), disk).await.unwrap();
        let routes =
            with_images(client_routes(&shared, &members, inspect.clone(), &sessions), &images);
        let tls = identity::client_port_config(&bundle, time(&clock)).unwrap();
        let client_addr = open(&shared, "client", tls, routes).await;
        let tls = identity::peer_port_config(&bundle, time(&clock)).unwrap();
        let routes = with_copies(peer_routes(&shared, &members, inspect, &sessions), &images);
        let peer_addr = open(&shared, "peer", tls, routes).await;
        Self { shared, client_addr, peer_addr, _folder: folder }
    }

    /// A channel to the client port, proving to be `principal`.
    pub(crate) fn client(&self, principal: Option<Principal>) -> Channel {
        self.channel(&self.client_addr, principal)
    }

    /// A channel to the peer port, proving to be `principal`.
    pub(crate) fn peer(&self, principal: Option<Principal>) -> Channel {
        self.channel(&self.peer_addr, principal)
    }

    fn channel(&self, addr: &str, principal: Option<Principal>) -> Channel {
        let bundle = principal.map(|principal| bundle(&self.shared, principal));
        let trust = self.shared.authority.trust();
        let tls = identity::client_config(&trust, bundle.as_ref(), time(&self.shared.clock));
        let tls = tls.unwrap();
        let wrap = move |io| wrap_as_peer(io, tls.clone(), Some(NodeId(1)));
        api::fabric::channel(&Tcp::default(), addr, wrap, WireConfig::default()).unwrap()
    }

    /// A channel of a newcomer that knows only the hash of the authority.
    pub(crate) fn pinned(&self) -> Channel {
        let (sha256, clock) = (self.shared.authority.sha256(), self.shared.clock.clone());
        let wrap = move |io: tokio::net::TcpStream| {
            let time = time(&clock);
            let connect = async move {
                let connected = identity::connect_pinned(io, sha256, time).await;
                connected.map(|(stream, _)| stream).map_err(io::Error::other)
            };
            Box::pin(connect) as api::BoxFuture<'static, _>
        };
        let wire = WireConfig::default();
        api::fabric::channel(&Tcp::default(), &self.client_addr, wrap, wire).unwrap()
    }

    /// Proposes as `caller`; it must be taken.
    pub(crate) async fn decide_as(&self, caller: Caller, command: Command) -> Reply {
        let deadline = Instant::now() + Duration::from_secs(5);
        let proposal = Proposal { command: command.clone(), caller, request_id: None, deadline };
        let Outcome { result, .. } = self.shared.ledger.propose(proposal).await.unwrap();
        result.unwrap_or_else(|rejection| panic!("{command:?}: {rejection:?}"))
    }

    /// Proposes as an operator, or as a control node what only those may; it must be taken.
    pub(crate) async fn decide(&self, command: Command) -> Reply {
        let caller = match &command {
            Command::RegisterImage { .. } => Caller::Node(NodeId(1)),
            _ => Caller::Operator(name("root")),
        };
        self.decide_as(caller, command).await
    }

    pub(crate) async fn bind(&self, operator: &str, scope: Scope, role: Role) {
        let operator = name(operator);
        self.decide(Command::BindRole { operator, scope, role }).await;
    }
}

fn bundle(shared: &Shared<MemoryLedger>, principal: Principal) -> CertificateBundle {
    let at = (shared.clock.now(), &*shared.entropy);
    issue(&shared.authority, principal, Vec::new(), at).unwrap()
}

async fn open(
    shared: &Shared<MemoryLedger>,
    port: &'static str,
    tls: Arc<identity::ServerConfig>,
    routes: tonic::service::Routes,
) -> String {
    let (addr, incoming) = Tcp::default().bind("127.0.0.1:0").await.unwrap();
    let stop = shared.stop.clone();
    let wire = WireConfig::default();
    let port = Port { name: port, tls, wire, connections_max: 64, stop };
    serve_port::<_, Tcp>(shared, incoming, routes, port);
    addr.to_string()
}

pub(crate) fn draft(text: &str) -> Draft {
    Draft {
        name: name(text),
        labels: Labels::new(),
        annotations: BTreeMap::new(),
        if_revision: None,
    }
}

pub(crate) fn tenant(text: &str) -> Command {
    Command::ApplyTenant { draft: draft(text), display_name: text.to_owned() }
}

pub(crate) fn host(tenant: &str, host: &str) -> Command {
    Command::ApplyHost { tenant: name(tenant), draft: draft(host), site: None, zone: None }
}

pub(crate) fn cluster(tenant: &str, cluster: &str) -> Command {
    let spec = ClusterSpec { environment: None, members: BTreeSet::new() };
    Command::ApplyCluster { tenant: name(tenant), draft: draft(cluster), spec }
}

pub(crate) fn digest(number: u8) -> Digest {
    Digest([number; 32])
}

pub(crate) fn application(image: Digest) -> Application {
    Application {
        name: name("web"),
        version: "1".to_owned(),
        driver: DriverKind::Exec,
        num_partitions: 1,
        artifacts: BTreeMap::from([(name("main"), image)]),
        limits: Resources { cpu_millis: 100, memory_bytes: 16 << 20 },
        on_disconnect: OnDisconnect::KeepRunning,
        stop_grace_ms: 1_000,
        env: BTreeMap::new(),
        zones: Vec::new(),
    }
}

pub(crate) fn image(tenant: &str, digest: Digest) -> Command {
    let application = Box::new(application(digest));
    Command::RegisterImage { tenant: name(tenant), digest, size_bytes: 1, application }
}

pub(crate) fn package(tenant: &str, package: &str, image: Digest) -> Command {
    Command::ApplyPackage {
        tenant: name(tenant),
        draft: draft(package),
        version: "1".to_owned(),
        applications: vec![application(image)],
    }
}

pub(crate) fn spec(package: &str, cluster: &str) -> DeploymentSpec {
    DeploymentSpec {
        package: name(package),
        version: "1".to_owned(),
        profile: None,
        overrides: BTreeMap::new(),
        targets: Targets::Clusters(BTreeSet::from([name(cluster)])),
        strategy: Strategy { max_unavailable: 1 },
    }
}

pub(crate) fn deployment(tenant: &str, deployment: &str, spec: DeploymentSpec) -> Command {
    let (tenant, draft) = (name(tenant), draft(deployment));
    Command::ApplyDeployment { tenant, draft, spec: Box::new(spec) }
}

/// The deployment as the state has it.
pub(crate) fn deployment_of(node: &TestNode, tenant: &str, deployment: &str) -> Deployment {
    let found = node
        .shared
        .ledger
        .read(|state| state.deployment(&name(tenant), &name(deployment)).cloned());
    found.unwrap()
}
