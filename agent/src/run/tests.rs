//! The task that owns the memory, on a fake machine and without a network: what it hears, and what
//! comes of it.

use api::v1::control_message::Message;
use api::{Tcp, v1};
use identity::{Authority, CertificateRequest, Issue, Principal, SystemEntropy};
use model::{
    Assignment, DriverKind, OnDisconnect, Order, Resources, Scheduled, Slot, Timestamp, Uid,
    Workload,
};
use storage::disk::real::{RealDisk, RealDiskConfig};

use super::*;
use crate::driver::fake::{FakeHost, Script};
use crate::images::FakeImages;
use crate::reconcile::Stage;

struct Midnight;

impl Clock for Midnight {
    fn now(&self) -> model::Timestamp {
        Timestamp(1_700_000_000_000)
    }
}

struct Bench {
    host: FakeHost,
    core: Core<RealDisk>,
    folder: tempfile::TempDir,
    /// What the agent says; kept open.
    _said: mpsc::Receiver<v1::AgentMessage>,
    out: mpsc::Sender<v1::AgentMessage>,
    renewals: u64,
}

impl Bench {
    async fn new(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::new(folder.path().to_owned());
        change(&mut config);
        let host = FakeHost::new();
        let clock: Arc<dyn Clock> = Arc::new(Midnight);
        let parts = Parts {
            disk: RealDisk::start(&RealDiskConfig::new()).unwrap(),
            driver: Arc::new(host.driver()),
            images: Arc::new(FakeImages::default()),
            servers: Arc::new(servers(&clock)),
            profile: Arc::new(HostProfile::default),
            clock,
            tenant: Name::new("acme").unwrap(),
            host: Name::new("till-1").unwrap(),
            life: 1,
        };
        let (disk, path) = (parts.disk.clone(), config.memory_path());
        let log = MemoryLog::open(disk, &path, config.memory.clone()).await.unwrap();
        let leftovers =
            Leftovers::open(&parts.disk, config.leftovers_path(), config.leftovers).await;
        let introduction = Introduction { profile: HostProfile::default(), newest: Revision(0) };
        let (introduce, _) = watch::channel(introduction);
        let core = Core::new(config, parts, (log, leftovers), introduce);
        let (out, said) = mpsc::channel(256);
        Self { host, core, folder, _said: said, out, renewals: 0 }
    }

    async fn opens(&mut self) {
        let out = Outbound { urgent: self.out.clone(), bulk: self.out.clone() };
        self.core.take(Event::Opened(out, Vec::new())).await.unwrap();
        self.renewals = 0;
    }

    /// The full set of orders is heard.
    async fn hears(&mut self, revision: u64, orders: &[&Order]) {
        let orders =
            orders.iter().map(|order| api::convert::session::order_to_proto(order)).collect();
        let heard = v1::Orders { full: true, revision, orders, removed: Vec::new() };
        self.core.take(Event::Heard(Message::Orders(heard))).await.unwrap();
    }

    async fn lease(&mut self, ttl_ms: u64) {
        self.renewals += 1;
        let sequence = self.renewals;
        let at_boot_ms = self.core.parts.driver.boottime_ms();
        self.core.take(Event::Renewing { sequence, at_boot_ms }).await.unwrap();
        let granted = v1::LeaseGranted { sequence, ttl_ms };
        self.core.take(Event::Heard(Message::LeaseGranted(granted))).await.unwrap();
    }

    /// Rounds and steps until nothing is under way.
    async fn settle(&mut self) {
        self.core.rounds().await.unwrap();
        while let Some(done) = self.core.steps.join_next().await {
            self.core.over(done.unwrap()).await.unwrap();
            self.core.rounds().await.unwrap();
        }
    }
}

fn servers(clock: &Arc<dyn Clock>) -> Servers {
    let entropy = SystemEntropy::new();
    let (now_ms, cluster) = (clock.now().0, identity::Name::new("c1").unwrap());
    let life = identity::Config::default();
    let authority = Authority::generate(cluster, now_ms, &entropy, life).unwrap();
    let principal = Principal::Node { id: 1 };
    let request = CertificateRequest::generate(&principal).unwrap();
    let serial = identity::random_serial(&entropy).unwrap();
    let issue = Issue { principal, serial, now_ms, server_names: Vec::new() };
    let certificate = authority.sign(request.request_pem(), &issue).unwrap();
    let bundle = request.complete(&certificate, &authority.certificate_pem()).unwrap();
    let wire = (crate::enrol::time_of(clock), api::fabric::WireConfig::default());
    Servers::new(Tcp::default(), &bundle, wire, (Vec::new(), 8)).unwrap()
}

fn order(policy: OnDisconnect) -> Order {
    let name = |text: &str| Name::new(text).unwrap();
    Order {
        key: JobKey {
            tenant: name("acme"),
            deployment: name("shop"),
            cluster: name("north"),
            application: name("web"),
            slot: Slot::Partition(0),
        },
        assignment: Assignment(5),
        scheduled: Scheduled {
            active: true,
            revision: Revision(7),
            workload: Arc::new(Workload {
                spec_revision: Revision(3),
                version: "1.0.0".to_owned(),
                driver: DriverKind::Exec,
                num_partitions: 1,
                image: Digest([1; 32]),
                limits: Resources { cpu_millis: 100, memory_bytes: 1 << 20 },
                on_disconnect: policy,
                stop_grace_ms: 1_000,
                env: BTreeMap::new(),
                zones: Vec::new(),
            }),
        },
        data_elsewhere: false,
        deployment: Some(uid(2)),
    }
}

fn uid(revision: u64) -> Uid {
    Uid { revision: Revision(revision), ordinal: 0 }
}

fn folder(order: &Order) -> Folder {
    Folder { key: order.key.clone(), deployment: order.deployment }
}

#[tokio::test]
async fn a_start_under_way_ends_when_a_new_session_says_that_the_job_moved() {
    let mut bench = Bench::new(|_| {}).await;
    bench.host.script("web", Script { prepare_ms: 2_000, ..Script::default() });
    let job = order(OnDisconnect::Stop);
    bench.opens().await;
    bench.lease(60_000).await;
    bench.hears(7, &[&job]).await;
    bench.core.rounds().await.unwrap();
    let fetched = bench.core.steps.join_next().await.unwrap().unwrap();
    bench.core.over(fetched).await.unwrap();
    bench.core.rounds().await.unwrap();
    assert_eq!(bench.core.busy.get(&job.key), Some(&Busy::Starting));

    bench.core.take(Event::Closed).await.unwrap();
    bench.opens().await;
    bench.lease(60_000).await;
    bench.hears(9, &[]).await;
    let done = bench.core.steps.join_next().await.unwrap().unwrap();
    assert!(bench.host.running().is_empty(), "a second copy of a job that moved");
    // Whichever the step saw first: that the session is new, or that the order is gone.
    let stage = done.result.as_ref().unwrap_err().stage;
    assert!(matches!(stage, Stage::Withdrawn | Stage::Lease), "{stage:?}");
    bench.core.over(done).await.unwrap();
    bench.settle().await;
    assert!(bench.core.log.memory().job(&job.key).is_none(), "nothing of it is left");

    // Placed here again, it starts.
    let again = Order { assignment: Assignment(11), ..job };
    bench.host.script("web", Script::default());
    bench.hears(11, &[&again]).await;
    bench.settle().await;
    assert_eq!(bench.host.running().len(), 1);
}

#[tokio::test]
async fn data_of_a_job_that_is_gone_is_deleted_and_no_other() {
    let mut bench = Bench::new(|config| config.leftovers.data_keep_ms = 0).await;
    let job = order(OnDisconnect::KeepRunning);
    let all = || BTreeSet::from([folder(&job)]);
    bench.opens().await;
    bench.hears(7, &[&job]).await;
    bench.settle().await;
    assert_eq!(bench.host.running().len(), 1);
    bench.core.clear_away(all()).await;
    bench.settle().await;
    assert!(bench.host.data_removed().is_empty(), "it runs");

    let mut stopped = job.clone();
    stopped.scheduled.active = false;
    stopped.scheduled.revision = Revision(8);
    bench.hears(8, &[&stopped]).await;
    bench.settle().await;
    bench.core.clear_away(all()).await;
    bench.settle().await;
    assert!(bench.host.data_removed().is_empty(), "it is stopped, and may be started again");

    bench.hears(9, &[]).await;
    bench.settle().await;
    bench.core.take(Event::Closed).await.unwrap();
    bench.core.clear_away(all()).await;
    bench.settle().await;
    assert!(bench.host.data_removed().is_empty(), "without a link nobody knows what is gone");

    bench.opens().await;
    bench.hears(9, &[]).await;
    bench.core.clear_away(all()).await;
    assert_eq!(bench.core.busy.get(&job.key), Some(&Busy::Stopping), "an order waits for it");
    bench.settle().await;
    assert_eq!(bench.host.data_removed(), [folder(&job).path(bench.folder.path())]);
    assert!(bench.core.busy.is_empty() && bench.core.turns.is_empty());
}

#[tokio::test]
async fn a_deployment_made_again_starts_with_data_of_its_own() {
    let mut bench = Bench::new(|config| config.leftovers.data_keep_ms = 0).await;
    let old = order(OnDisconnect::KeepRunning);
    bench.opens().await;
    bench.hears(7, &[&old]).await;
    bench.settle().await;
    let data_dirs = |bench: &Bench| -> Vec<_> {
        bench.host.running().into_iter().map(|(_, spec)| spec.data_dir).collect()
    };
    assert_eq!(data_dirs(&bench), [folder(&old).path(bench.folder.path())]);

    // An update keeps it, and so does a control node that does not say whose it is.
    let mut updated = Order { deployment: None, ..old.clone() };
    updated.scheduled.revision = Revision(8);
    updated.scheduled.workload = Arc::new(Workload {
        spec_revision: Revision(8),
        image: Digest([2; 32]),
        ..Workload::clone(&old.scheduled.workload)
    });
    bench.hears(8, &[&updated]).await;
    bench.settle().await;
    assert_eq!(data_dirs(&bench), [folder(&old).path(bench.folder.path())]);

    // Deleted by force and made again while this host had no link: one job, and another deployment.
    let mut new = Order { deployment: Some(uid(20)), assignment: Assignment(21), ..updated };
    new.scheduled.revision = Revision(21);
    let both = || BTreeSet::from([folder(&old), folder(&new)]);
    let paths: BTreeSet<_> = both().iter().map(|it| it.path(bench.folder.path())).collect();
    assert_eq!(paths.len(), 2, "each has its own");
    bench.hears(21, &[&new]).await;
    bench.core.clear_away(both()).await;
    assert!(bench.core.removals.is_empty(), "the old one still runs on its data");
    bench.settle().await;
    assert_eq!(data_dirs(&bench), [folder(&new).path(bench.folder.path())]);
    bench.core.clear_away(both()).await;
    while bench.core.removals.join_next().await.is_some() {}
    assert_eq!(bench.host.data_removed(), [folder(&old).path(bench.folder.path())]);
    bench.settle().await;
    assert_eq!(bench.host.running().len(), 1, "the job of the new one goes on");

    // An agent that starts again knows whose data it is.
    let (disk, path) = (bench.core.parts.disk.clone(), bench.core.config.memory_path());
    let config = bench.core.config.memory.clone();
    drop(bench.core.log);
    let log = MemoryLog::open(disk, &path, config).await.unwrap();
    let known = log.memory().job(&new.key).unwrap().order.as_ref().unwrap().deployment;
    assert_eq!(known, new.deployment);
}
