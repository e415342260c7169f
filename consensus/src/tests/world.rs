//! A cluster in one process: nodes that crash, a wire that is cut.

use crate::{
    Config, Foundation, Ledger, Method, Peer, PeerService, Proposal, RaftLedger, StartError,
    Target, Transport, TransportError,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use model::{Caller, Clock, Command, Draft, NodeId, Outcome, RequestId, State, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use storage::{
    Disk,
    disk::simulated::{Loss, SimulatedDisk, SimulatedDiskConfig},
    kv::simulated::{SimulatedHome, SimulatedKvConfig},
    log::LogConfig,
};
use tokio::time::Instant;

/// Wall clock on virtual time.
pub(crate) struct TestClock(Instant);

impl TestClock {
    pub(crate) fn start() -> Arc<Self> {
        Arc::new(Self(Instant::now()))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_000_000 + self.0.elapsed().as_millis() as u64)
    }
}

#[derive(Default)]
pub(super) struct Net {
    services: Mutex<BTreeMap<NodeId, PeerService>>,
    cut: Mutex<BTreeSet<NodeId>>,
    /// Calls to these do not arrive; their own do.
    deaf: Mutex<BTreeSet<NodeId>>,
    /// What these take from the log is not answered.
    mute: Mutex<BTreeSet<NodeId>>,
    /// Calls of these are answered with word that they were removed.
    barred: Mutex<BTreeSet<NodeId>>,
    /// Answers to proposals that are lost after they were carried out.
    pub(super) lose_answers: AtomicBool,
    /// Calls by method.
    pub(super) calls: Mutex<BTreeMap<Method, u64>>,
}

impl Net {
    pub(super) fn isolate(&self, id: NodeId) {
        self.cut.lock().unwrap().insert(id);
    }

    pub(super) fn heal(&self) {
        for kind in [&self.cut, &self.deaf, &self.mute] {
            kind.lock().unwrap().clear();
        }
    }

    pub(super) fn deafen(&self, id: NodeId) {
        self.deaf.lock().unwrap().insert(id);
    }

    pub(super) fn mute(&self, id: NodeId) {
        self.mute.lock().unwrap().insert(id);
    }

    pub(super) fn bar(&self, id: NodeId) {
        self.barred.lock().unwrap().insert(id);
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        let cut = self.cut.lock().unwrap();
        cut.contains(&from) || cut.contains(&to) || self.deaf.lock().unwrap().contains(&to)
    }
}

struct Wire {
    me: NodeId,
    alive: Arc<AtomicBool>,
    net: Arc<Net>,
}

impl Transport for Wire {
    fn call(
        &self,
        to: &Target,
        method: Method,
        body: Bytes,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (me, to, net, alive) = (self.me, to.id, self.net.clone(), self.alive.clone());
        Box::pin(async move {
            *net.calls.lock().unwrap().entry(method).or_default() += 1;
            let lost = || TransportError::Lost { to, reason: "cut".to_owned() };
            tokio::time::sleep(Duration::from_millis(1)).await;
            if !alive.load(Ordering::SeqCst) || net.is_cut(me, to) {
                tokio::time::sleep_until(deadline).await;
                return Err(lost());
            }
            let service = net.services.lock().unwrap().get(&to).cloned();
            let Some(service) = service else {
                let reason = "connection refused".to_owned();
                return Err(TransportError::Unreachable { to, reason });
            };
            if net.barred.lock().unwrap().contains(&me) {
                return Err(TransportError::Removed { to });
            }
            let answer = tokio::time::timeout_at(deadline, service.handle(method, body)).await;
            let answer = match answer {
                Err(_) => return Err(lost()),
                Ok(answer) => answer,
            };
            if net.is_cut(me, to)
                || (method == Method::Append && net.mute.lock().unwrap().contains(&to))
                || (method == Method::Propose && net.lose_answers.load(Ordering::SeqCst))
            {
                tokio::time::sleep_until(deadline).await;
                return Err(lost());
            }
            answer.map_err(|error| TransportError::Refused { to, reason: error.to_string() })
        })
    }
}

pub(super) struct Machine {
    pub(super) disk: SimulatedDisk,
    pub(super) home: SimulatedHome,
    ledger: Option<RaftLedger>,
    alive: Arc<AtomicBool>,
}

pub(super) struct World {
    pub(super) net: Arc<Net>,
    pub(super) config: Config,
    pub(super) machines: BTreeMap<NodeId, Machine>,
    clock: Arc<TestClock>,
}

pub(super) const DIR: &str = "/ledger";

pub(super) fn log_config() -> LogConfig {
    LogConfig { segment_bytes: 64 << 10, ..LogConfig::new() }
}

pub(super) fn config() -> Config {
    Config { hash_check_entries: 8, journal_rows_max: 1_000, ..Config::default() }
}

pub(super) fn peer(id: NodeId) -> Peer {
    Peer { peer_addr: format!("peer-{id}:1"), client_addr: format!("client-{id}:1") }
}

pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

impl World {
    /// A cluster of nodes 1 to `nodes`, all voting.
    pub(super) async fn start(nodes: u64, config: Config) -> Self {
        let net = Arc::new(Net::default());
        let machines = BTreeMap::new();
        let mut world = Self { net, config, machines, clock: TestClock::start() };
        for id in (1..=nodes).map(NodeId) {
            world.add_machine(id).await;
            world.boot(id).await;
            if id == NodeId(1) {
                world.ledger(id).bootstrap(peer(id)).await.unwrap();
            } else {
                world.ledger(NodeId(1)).add_node(id, peer(id), soon()).await.unwrap();
            }
        }
        world.wait_for_leader().await;
        world
    }

    pub(super) async fn add_machine(&mut self, id: NodeId) {
        let sync_us = (100, 2_000);
        let disk = SimulatedDiskConfig { seed: id.0, sync_us, ..SimulatedDiskConfig::default() };
        let kv = SimulatedKvConfig { seed: id.0, sync_us, ..SimulatedKvConfig::default() };
        let machine = Machine {
            disk: SimulatedDisk::new(disk),
            home: SimulatedHome::new(kv),
            ledger: None,
            alive: Arc::default(),
        };
        RaftLedger::make_log(&machine.disk, Path::new(DIR), &log_config()).await.unwrap();
        self.machines.insert(id, machine);
    }

    /// The files of a machine's log go.
    pub(super) async fn remove_log(&self, id: NodeId) {
        let (disk, dir) = (&self.machines[&id].disk, Path::new(DIR).join("log"));
        for name in disk.list(&dir).await.unwrap() {
            disk.remove(&dir.join(name)).await.unwrap();
        }
        disk.sync_dir(&dir).await.unwrap();
    }

    /// What a machine's ledger wrote beside its snapshots.
    pub(super) async fn note(&self, id: NodeId, name: &str) -> Option<String> {
        let path = Path::new(DIR).join("snapshots").join(name);
        let text = self.machines[&id].disk.read_file(&path, 1 << 20).await.ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    pub(super) async fn boot(&mut self, id: NodeId) {
        self.try_boot(id).await.unwrap();
    }

    pub(super) async fn try_boot(&mut self, id: NodeId) -> Result<(), StartError> {
        let alive = Arc::new(AtomicBool::new(true));
        let net = self.net.clone();
        let wire = Wire { me: id, alive: alive.clone(), net: net.clone() };
        let machine = self.machines.get_mut(&id).unwrap();
        let foundation = Foundation {
            node_id: id,
            config: self.config.clone(),
            log_config: log_config(),
            disk: machine.disk.clone(),
            snapshot_disk: machine.disk.clone(),
            dir: PathBuf::from(DIR),
            kv_home: machine.home.clone(),
            transport: Arc::new(wire),
            clock: self.clock.clone(),
        };
        let (ledger, _) = RaftLedger::start(foundation).await?;
        net.services.lock().unwrap().insert(id, ledger.peer_service());
        machine.ledger = Some(ledger);
        machine.alive = alive;
        Ok(())
    }

    /// The machine loses its power: what is unsynced goes as `loss` says.
    pub(super) async fn crash(&mut self, id: NodeId, loss: Loss) {
        self.crash_apart(id, loss, loss).await;
    }

    /// The same, with other luck for the store than for the rest of the disk.
    pub(super) async fn crash_apart(&mut self, id: NodeId, loss: Loss, of_store: Loss) {
        self.net.services.lock().unwrap().remove(&id);
        let machine = self.machines.get_mut(&id).unwrap();
        machine.alive.store(false, Ordering::SeqCst);
        machine.disk = machine.disk.crash(loss);
        machine.home.crash(of_store);
        let ledger = machine.ledger.take().unwrap();
        ledger.kill().await;
    }

    pub(super) fn ledger(&self, id: NodeId) -> RaftLedger {
        self.machines[&id].ledger.clone().unwrap()
    }

    pub(super) fn running(&self) -> Vec<NodeId> {
        let running = |(id, machine): (&NodeId, &Machine)| machine.ledger.is_some().then_some(*id);
        self.machines.iter().filter_map(running).collect()
    }

    /// The node that all running, uncut nodes hold for the leader, once there is one that serves.
    pub(super) async fn wait_for_leader(&self) -> NodeId {
        let until = soon();
        loop {
            let cut = self.net.cut.lock().unwrap().clone();
            for id in self.running().into_iter().filter(|id| !cut.contains(id)) {
                let ledger = self.ledger(id);
                let leads = ledger.leadership().borrow().is_leader;
                if leads && ledger.linearize(Instant::now() + STEP * 20).await.is_ok() {
                    return id;
                }
            }
            assert!(Instant::now() < until, "no leader in time");
            tokio::time::sleep(STEP).await;
        }
    }

    /// Waits until all running nodes have the same revision, and checks that they are the same.
    pub(super) async fn converge(&self) -> State {
        let leader = self.wait_for_leader().await;
        let revision = self.ledger(leader).linearize(soon()).await.unwrap();
        let mut states = Vec::new();
        for id in self.running() {
            let ledger = self.ledger(id);
            ledger.wait_for(revision, soon()).await.unwrap();
            states.push(ledger.read(State::clone));
        }
        let newest = states.iter().map(|state| state.globals.revision).max().unwrap();
        for id in self.running() {
            self.ledger(id).wait_for(newest, soon()).await.unwrap();
        }
        let hashes: BTreeSet<u128> =
            self.running().iter().map(|id| self.ledger(*id).read(State::hash)).collect();
        assert_eq!(hashes.len(), 1, "replicas differ");
        self.ledger(leader).read(State::clone)
    }
}

const STEP: Duration = Duration::from_millis(10);

pub(crate) fn tenant(name: &str) -> Command {
    let name = model::Name::new(name).unwrap();
    let (labels, annotations) = Default::default();
    let draft = Draft { name, labels, annotations, if_revision: None };
    Command::ApplyTenant { draft, display_name: "a tenant".to_owned() }
}

pub(super) fn proposal(command: Command) -> Proposal {
    Proposal { command, caller: Caller::System, request_id: None, deadline: soon() }
}

pub(super) fn with_id(command: Command, at: Timestamp, unique: u128) -> Proposal {
    let request_id = Some(RequestId { at, unique });
    Proposal { command, caller: Caller::System, request_id, deadline: soon() }
}

pub(super) async fn apply_tenant<L: Ledger>(ledger: &L, name: &str) -> Outcome {
    let outcome = ledger.propose(proposal(tenant(name))).await.unwrap();
    assert!(outcome.result.is_ok(), "{outcome:?}");
    outcome
}

pub(super) fn has_tenant(state: &State, name: &str) -> bool {
    state.tenants.contains(&model::Name::new(name).unwrap())
}
