//! The tree over a real ledger in memory: it plans, it follows ownership, it survives crashes.

use crate::{
    ActorStatus, Actors, Config,
    root::{RootMessage, Victim},
};
use consensus::{Ledger, MemoryLedger, Proposal};
use model::{
    Application, Caller, Clock, ClusterSpec, Command, DeploymentSpec, Digest, Draft, DriverKind,
    HostProfile, Name, NodeId, OnDisconnect, Reply, Resources, Strategy, Targets, Timestamp,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// Virtual time: what tokio's paused clock says.
struct TestClock(Instant);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let ms = self.0.elapsed().as_millis();
        Timestamp(1_000_000 + u64::try_from(ms).unwrap())
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn draft(text: &str) -> Draft {
    Draft {
        name: name(text),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        if_revision: None,
    }
}

struct World {
    ledger: MemoryLedger,
    clock: Arc<TestClock>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(TestClock(Instant::now()));
        Self { ledger: MemoryLedger::new(NodeId(1), clock.clone()), clock }
    }

    async fn propose_as(&self, caller: Caller, command: Command) -> Reply {
        let deadline = Instant::now() + Duration::from_secs(5);
        let proposal = Proposal { command, caller, request_id: None, deadline };
        let outcome = self.ledger.propose(proposal).await.unwrap();
        outcome.result.unwrap_or_else(|refusal| panic!("{}: {refusal}", refusal.code))
    }

    async fn propose(&self, command: Command) {
        self.propose_as(Caller::Operator(name("ann")), command).await;
    }

    async fn node(&self, id: u64, alive: bool) {
        let command = Command::ApplyNode {
            id: NodeId(id),
            peer_addr: format!("127.0.0.1:{}", 7000 + id),
            client_addr: format!("127.0.0.1:{}", 8000 + id),
            rules_max: 1,
        };
        self.propose_as(Caller::Node(NodeId(id)), command).await;
        self.propose_as(Caller::System, Command::MarkNode { id: NodeId(id), alive }).await;
    }

    /// Tenant `acme` with cluster `north` of hosts h1 and h2, both connected, and image and package
    /// `shop` 1.0 with 4 partitions.
    async fn acme(&self) {
        let tenant = name("acme");
        self.node(1, true).await;
        self.propose(Command::ApplyTenant { draft: draft("acme"), display_name: "Acme".into() })
            .await;
        for host in ["h1", "h2"] {
            let (site, zone) = (None, None);
            let tenant = tenant.clone();
            self.propose(Command::ApplyHost { tenant, draft: draft(host), site, zone }).await;
            self.connect(host).await;
        }
        let members = BTreeSet::from([name("h1"), name("h2")]);
        let spec = ClusterSpec { environment: None, members };
        self.propose(Command::ApplyCluster { tenant: tenant.clone(), draft: draft("north"), spec })
            .await;
        let digest = Digest([7; 32]);
        let application = application(digest);
        let register = Command::RegisterImage {
            tenant: tenant.clone(),
            digest,
            size_bytes: 10,
            application: Box::new(application.clone()),
        };
        self.propose_as(Caller::Node(NodeId(1)), register).await;
        let package = Command::ApplyPackage {
            tenant,
            draft: draft("shop"),
            version: "1.0".into(),
            applications: vec![application],
        };
        self.propose(package).await;
    }

    async fn connect(&self, host: &str) {
        let profile = HostProfile {
            capacity: Resources { cpu_millis: 4_000, memory_bytes: 8 << 30 },
            drivers: BTreeSet::from([DriverKind::Wasm]),
            fenced: true,
            ..HostProfile::default()
        };
        let command = Command::ConnectHost {
            tenant: name("acme"),
            host: name(host),
            node: NodeId(1),
            agent_key: Digest([1; 32]),
            profile: Box::new(profile),
        };
        self.propose_as(Caller::Node(NodeId(1)), command).await;
    }

    async fn deploy(&self) {
        let spec = DeploymentSpec {
            package: name("shop"),
            version: "1.0".into(),
            profile: None,
            overrides: BTreeMap::new(),
            targets: Targets::Clusters(BTreeSet::from([name("north")])),
            strategy: Strategy { max_unavailable: 1 },
        };
        let tenant = name("acme");
        let command =
            Command::ApplyDeployment { tenant, draft: draft("shop"), spec: Box::new(spec) };
        self.propose(command).await;
    }

    /// Number of jobs with a host.
    fn placed(&self) -> usize {
        self.ledger
            .read(|state| state.jobs.iter().filter(|(_, job)| !job.placements.is_empty()).count())
    }

    async fn until(&self, what: &str, holds: impl Fn(&World) -> bool) {
        let mut applied = self.ledger.applied();
        let wait = async {
            while !holds(self) {
                // A state that does not change may still be looked at later: actors have timers.
                let _ = timeout(Duration::from_millis(100), applied.changed()).await;
            }
        };
        timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{what}"));
    }

    async fn actors(&self) -> Actors {
        Actors::start(self.ledger.clone(), self.clock.clone(), Config::new()).await.unwrap()
    }
}

fn application(digest: Digest) -> Application {
    Application {
        name: name("web"),
        version: "1.0".into(),
        driver: DriverKind::Wasm,
        num_partitions: 4,
        artifacts: BTreeMap::from([(name("main"), digest)]),
        limits: Resources { cpu_millis: 100, memory_bytes: 1 << 20 },
        on_disconnect: OnDisconnect::Stop,
        stop_grace_ms: 1_000,
        env: BTreeMap::new(),
        zones: Vec::new(),
    }
}

fn find(actors: &Actors, path: &str) -> Option<ActorStatus> {
    actors.board().all().into_iter().find(|status| status.path == path)
}

const NORTH: &str = "tenants/acme/clusters/north";

#[tokio::test(start_paused = true)]
async fn a_deployment_gets_its_jobs_and_hosts() {
    let world = World::new();
    world.acme().await;
    let actors = world.actors().await;
    world.deploy().await;
    world.until("four jobs are placed", |world| world.placed() == 4).await;
    let cluster = find(&actors, NORTH).expect("the cluster has an actor");
    assert!(cluster.up && cluster.proposed > 0, "{cluster:?}");
    let partitions = actors.board().all().into_iter().filter(|it| it.path.contains("/jobs/"));
    assert_eq!(partitions.count(), 4, "each job that is not settled has an actor");
    actors.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_crashed_starts_again_and_works() {
    let world = World::new();
    world.acme().await;
    let actors = world.actors().await;
    world.until("the cluster has an actor", |_| find(&actors, NORTH).is_some()).await;
    actors.tell(RootMessage::Panic(Victim::Cluster(name("acme"), name("north"))));
    world
        .until("the crash is on the board", |_| {
            find(&actors, NORTH).is_some_and(|status| status.crashes == 1)
        })
        .await;
    world.deploy().await;
    world.until("four jobs are placed", |world| world.placed() == 4).await;
    let cluster = find(&actors, NORTH).expect("it is there again");
    assert!(cluster.up, "{cluster:?}");
    assert!(cluster.last_error.is_some_and(|error| error.contains("asked to")));
    actors.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_keeps_actors_only_for_what_it_owns() {
    let world = World::new();
    world.acme().await;
    for id in 2..=9 {
        world.node(id, true).await;
    }
    let live: Vec<_> = (1..=9).map(NodeId).collect();
    let owner = crate::ownership::cluster_owner(&live, &name("acme"), &name("north")).unwrap();
    assert_ne!(owner, NodeId(1), "the names are chosen so that another node owns the cluster");
    let actors = world.actors().await;
    world
        .until("the root has looked", |_| find(&actors, "root").is_some_and(|it| it.runs > 0))
        .await;
    assert_eq!(find(&actors, NORTH), None);
    for id in 2..=9 {
        world.propose_as(Caller::System, Command::MarkNode { id: NodeId(id), alive: false }).await;
    }
    world.until("it takes the cluster over", |_| find(&actors, NORTH).is_some()).await;
    actors.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_is_stopped_proposes_nothing_more() {
    let world = World::new();
    world.acme().await;
    let actors = world.actors().await;
    world.until("the cluster has an actor", |_| find(&actors, NORTH).is_some()).await;
    actors.stop().await;
    world.deploy().await;
    let before = world.ledger.read(|state| state.globals.revision);
    tokio::time::advance(Duration::from_secs(600)).await;
    tokio::task::yield_now().await;
    assert_eq!(world.ledger.read(|state| state.globals.revision), before);
}

/// Makes the cluster actor crash, and says after which time it was up again.
async fn crash_and_measure(world: &World, actors: &Actors) -> Duration {
    let crashes = || find(actors, NORTH).map_or(0, |status| status.crashes);
    let before = crashes();
    actors.tell(RootMessage::Panic(Victim::Cluster(name("acme"), name("north"))));
    world.until("it has crashed", |_| crashes() > before).await;
    let crashed = Instant::now();
    while !find(actors, NORTH).is_some_and(|status| status.up) {
        assert!(crashed.elapsed() < Duration::from_secs(60), "it is not started again");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    crashed.elapsed()
}

#[tokio::test(start_paused = true)]
async fn crashes_in_a_row_wait_longer_until_a_good_run() {
    let world = World::new();
    world.acme().await;
    let actors = world.actors().await;
    world.until("the cluster has an actor", |_| find(&actors, NORTH).is_some()).await;
    let mut waits = Vec::new();
    for _ in 0..12 {
        waits.push(crash_and_measure(&world, &actors).await);
    }
    // The crash is seen up to 100 ms after it happened.
    let between = |wait: Duration, from, to| (from..=to).contains(&wait.as_millis());
    assert!(between(waits[0], 0, 110), "{waits:?}");
    assert!(between(waits[3], 700, 810), "{waits:?}");
    assert!(between(waits[11], 29_900, 30_010), "{waits:?}");
    tokio::time::sleep(Duration::from_millis(Config::new().steady_ms)).await;
    let after = crash_and_measure(&world, &actors).await;
    assert!(between(after, 0, 110), "{after:?}");
    actors.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_actor_that_crashed_is_counted_and_starts_again() {
    let world = World::new();
    world.acme().await;
    let actors = world.actors().await;
    world.deploy().await;
    world.until("four jobs are placed", |world| world.placed() == 4).await;
    let key = world.ledger.read(|state| state.jobs.iter().next().unwrap().0.clone());
    let path = format!("{NORTH}/jobs/{key}");
    world.until("the job has an actor", |_| find(&actors, &path).is_some_and(|it| it.up)).await;
    actors.tell(RootMessage::Panic(Victim::Partition(key)));
    world
        .until("the crash is on the board", |_| {
            find(&actors, &path).is_some_and(|status| status.crashes == 1 && status.up)
        })
        .await;
    let cluster = find(&actors, NORTH).unwrap();
    assert_eq!((cluster.crashes, cluster.crashes_below), (0, 1), "{cluster:?}");
    actors.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_root_or_a_pump_that_crashed_starts_again_and_works() {
    for victim in [Victim::Root, Victim::Pump] {
        let world = World::new();
        world.acme().await;
        let actors = world.actors().await;
        world.until("the cluster has an actor", |_| find(&actors, NORTH).is_some()).await;
        let what = format!("{victim:?}");
        actors.tell(RootMessage::Panic(victim));
        world
            .until("the crash is on the board", |_| {
                find(&actors, "root").is_some_and(|status| status.crashes == 1 && status.up)
            })
            .await;
        let root = find(&actors, "root").unwrap();
        assert!(root.last_error.as_ref().is_some_and(|it| it.contains("asked to")), "{root:?}");
        world.until("the tree is there again", |_| find(&actors, NORTH).is_some()).await;
        world.deploy().await;
        world.until(&what, |world| world.placed() == 4).await;
        actors.stop().await;
    }
}
