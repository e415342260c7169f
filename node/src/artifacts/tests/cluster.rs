//! The three nodes, and images to send them.

use crate::{
    Alone, Config, Folders, Members, Peers, Shared, SystemClock,
    artifacts::{Artifacts, ArtifactsConfig},
    join::time,
    passport::issue,
    peers::wrap_as_peer,
    ports::{Port, serve_port, with_copies, with_images},
    testing::name,
};
use api::{BoxFuture, Tcp, fabric::WireConfig, v1::artifacts_client::ArtifactsClient};
use artifact::{Limits, app_image::pack};
use bytes::Bytes;
use consensus::{
    Error, Ledger, LedgerStatus, Member, MemberChange, MemoryLedger, Method, Peer, Proposal,
    ServiceError, StopReason,
};
use identity::{Authority, CertificateBundle, Principal, SystemEntropy};
use model::{Caller, Clock, Command, NodeId, Role, Scope};
use std::{collections::BTreeMap, io::Cursor, path::Path, sync::Arc, time::Duration};
use storage::disk::real::{RealDisk, RealDiskConfig};
use tokio::{
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Channel};

pub(super) type Client = ArtifactsClient<Channel>;

pub(super) struct One {
    pub(super) shared: Shared<MemoryLedger>,
    pub(super) images: Artifacts<MemoryLedger, RealDisk>,
    client_addr: String,
    ports: Mutex<Vec<JoinHandle<()>>>,
    _folder: tempfile::TempDir,
}

pub(super) struct Trio {
    pub(super) ledger: MemoryLedger,
    pub(super) nodes: Vec<One>,
}

impl Drop for Trio {
    fn drop(&mut self) {
        for node in &self.nodes {
            node.shared.stop.cancel();
        }
    }
}

/// Three voters over one ledger.
struct Voters(Alone<MemoryLedger>);

impl Members for Voters {
    fn members(&self) -> Vec<Member> {
        let voter = |id| Member { id: NodeId(id), peer: Peer::default(), voter: true };
        (1..=3).map(voter).collect()
    }

    fn status(&self) -> LedgerStatus {
        self.0.status()
    }

    fn change(&self, change: MemberChange, at: Instant) -> BoxFuture<'_, Result<(), Error>> {
        self.0.change(change, at)
    }

    fn halt(&self, reason: StopReason) {
        self.0.halt(reason);
    }

    fn note_removed(&self) {}

    fn handle(&self, method: Method, body: Bytes) -> BoxFuture<'_, Result<Bytes, ServiceError>> {
        self.0.handle(method, body)
    }
}

/// Small chunks, so that a small image has several; nothing happens by the clock.
pub(super) fn config() -> ArtifactsConfig {
    ArtifactsConfig { chunk_bytes_max: 600, chunk_bytes_min: 1, ..ArtifactsConfig::default() }
}

fn packed(folder: &Path) -> Vec<u8> {
    let mut zip = Cursor::new(Vec::new());
    pack(folder, &mut zip, &Limits::default()).unwrap();
    zip.into_inner()
}

/// An image that is valid.
pub(super) fn image() -> Vec<u8> {
    packed(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/ticker-exec/image"))
}

/// An image that breaks several rules.
pub(super) fn bad_image() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let application = r#"{"schema_version":1,"name":"Bad Name","version":"one"}"#;
    std::fs::write(folder.path().join("application.json"), application).unwrap();
    std::fs::write(folder.path().join("stray.txt"), "stray").unwrap();
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    std::fs::write(folder.path().join("folder/some.txt"), "some").unwrap();
    packed(folder.path())
}

/// Waits until something is there, for as long as a slow machine may need.
pub(super) async fn until<T, Fut: Future<Output = Option<T>>>(
    what: &str,
    look: impl Fn() -> Fut,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(10)).await;
    }
}

impl Trio {
    pub(super) async fn start(artifacts: ArtifactsConfig) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let entropy = Arc::new(SystemEntropy::new());
        let config = Arc::new(Config { artifacts, ..Config::default() });
        let cluster = identity::Name::new("c1").unwrap();
        let life = config.certificates.clone();
        let authority = Authority::generate(cluster.clone(), clock.now().0, &*entropy, life);
        let authority = Arc::new(authority.unwrap());
        let ledger = MemoryLedger::new(NodeId(1), clock.clone());
        let mut addresses = BTreeMap::new();
        let mut listeners = Vec::new();
        for id in 1..=3 {
            let (addr, incoming) = Tcp::default().bind("127.0.0.1:0").await.unwrap();
            addresses.insert(NodeId(id), addr.to_string());
            listeners.push((id, incoming));
        }
        let mut nodes = Vec::new();
        for (id, incoming) in listeners {
            let folder = tempfile::tempdir().unwrap();
            let at = (clock.now(), &*entropy as &dyn identity::Entropy);
            let bundle = issue(&authority, Principal::Node { id }, Vec::new(), at).unwrap();
            let tls = identity::client_config(&authority.trust(), Some(&bundle), time(&clock));
            let known = addresses.clone();
            let resolve = move |id| known.get(&id).cloned();
            let wire = WireConfig::default();
            let shared = Shared {
                ledger: ledger.clone(),
                clock: clock.clone(),
                entropy: entropy.clone(),
                node_id: NodeId(id),
                cluster_id: cluster.clone(),
                folders: Arc::new(Folders::new(folder.path())),
                config: config.clone(),
                peers: Peers::new(Tcp::default(), tls.unwrap(), wire, resolve),
                authority: authority.clone(),
                board: actors::Board::default(),
                stop: CancellationToken::new(),
                started_at: clock.now(),
            };
            nodes.push(One::start(shared, (&bundle, incoming), folder).await);
        }
        let trio = Self { ledger, nodes };
        super::seed(&trio).await;
        let bind =
            Command::BindRole { operator: name("root"), scope: Scope::Cluster, role: Role::Admin };
        trio.decide(bind).await;
        trio
    }

    pub(super) fn client(&self, id: usize, principal: Principal) -> Client {
        let node = &self.nodes[id - 1];
        let shared = &node.shared;
        let at = (shared.clock.now(), &*shared.entropy);
        let bundle = issue(&shared.authority, principal, Vec::new(), at).unwrap();
        let trust = shared.authority.trust();
        let tls = identity::client_config(&trust, Some(&bundle), time(&shared.clock)).unwrap();
        let wrap = move |io| wrap_as_peer(io, tls.clone(), None);
        let wire = WireConfig::default();
        let addr = &node.client_addr;
        Client::new(api::fabric::channel(&Tcp::default(), addr, wrap, wire).unwrap())
    }

    /// Ends a node; its ports are closed at return.
    pub(super) async fn kill(&self, id: usize) {
        let node = &self.nodes[id - 1];
        node.shared.stop.cancel();
        for port in node.ports.lock().await.drain(..) {
            port.abort();
            let _ended = port.await;
        }
    }

    /// Proposes as an operator; it must be taken.
    pub(super) async fn decide(&self, command: Command) {
        let deadline = Instant::now() + Duration::from_secs(5);
        let caller = Caller::Operator(name("root"));
        let proposal = Proposal { command, caller, request_id: None, deadline };
        self.ledger.propose(proposal).await.unwrap().result.unwrap();
    }
}

impl One {
    async fn start(
        shared: Shared<MemoryLedger>,
        (bundle, peer): (&CertificateBundle, api::Incoming<tokio::net::TcpStream>),
        folder: tempfile::TempDir,
    ) -> Self {
        let members: Arc<dyn Members> = Arc::new(Voters(Alone(shared.ledger.clone())));
        let disk = RealDisk::start(&RealDiskConfig::default()).unwrap();
        let images = Artifacts::open(shared.clone(), members, disk).await.unwrap();
        let (addr, client) = Tcp::default().bind("127.0.0.1:0").await.unwrap();
        let port = |name, tls| {
            let (wire, stop) = (WireConfig::default(), shared.stop.clone());
            Port { name, tls, wire, connections_max: 64, stop }
        };
        let tls = identity::client_port_config(bundle, time(&shared.clock)).unwrap();
        let routes = with_images(Routes::default(), &images);
        let client = serve_port::<_, Tcp>(&shared, client, routes, port("client", tls));
        let tls = identity::peer_port_config(bundle, time(&shared.clock)).unwrap();
        let routes = with_copies(Routes::default(), &images);
        let peer = serve_port::<_, Tcp>(&shared, peer, routes, port("peer", tls));
        let ports = Mutex::new(vec![client, peer]);
        Self { shared, images, client_addr: addr.to_string(), ports, _folder: folder }
    }
}
