//! Starts that had to wait, and lanes that do not wait for each other, in simulated time.

use model::{DriverKind, Order, Resources, Scheduled, Slot};
use storage::disk::real::{RealDisk, RealDiskConfig};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::*;
use crate::driver::fake::{FakeHost, Script};
use crate::images::FakeImages;
use crate::memory::{Accepted, Bounds, Memory, Record};

/// An agent's executor on a fake machine, with what its owner would tell it.
struct Bench {
    host: FakeHost,
    executor: Arc<Executor<RealDisk>>,
    memory: Memory,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(config: WorkConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::start(&RealDiskConfig::new()).unwrap();
        let host = FakeHost::new();
        let work: (Arc<dyn Driver>, Arc<dyn Images>) =
            (Arc::new(host.driver()), Arc::new(FakeImages::default()));
        let tenant = Name::new("acme").unwrap();
        let data = folder.path().to_owned();
        let executor = Arc::new(Executor::new(work, disk, data, tenant, config));
        let memory = Memory::new(Bounds::default());
        Self { host, executor, memory, _folder: folder }
    }

    /// A lease is granted from now on.
    async fn lease(&self, ttl_ms: u64) {
        let now = self.executor.driver.boottime_ms();
        self.executor.standing.granted(now + ttl_ms, now);
        self.executor.driver.renew(now + ttl_ms).await.unwrap();
    }

    /// Orders were heard.
    fn hear(&mut self, records: &[Record]) {
        for record in records {
            self.memory.apply(record);
        }
        self.executor.standing.orders(&self.memory);
        self.executor.standing.session(true);
    }

    /// Begins a step as a round does.
    fn begin(&self, step: Step) -> JoinHandle<Done> {
        if step.busy() == Busy::Starting {
            let fence = self.memory.fence(step.key()).unwrap_or_default();
            self.executor.standing.begun(step.key(), fence);
        }
        tokio::spawn(self.executor.clone().carry_out(step))
    }

    fn start(&self, order: &Order) -> JoinHandle<Done> {
        let (key, workload) = (order.key.clone(), order.scheduled.workload.clone());
        let (assignment, deployment) = (order.assignment, order.deployment);
        self.begin(Step::Start { key, assignment, workload, deployment })
    }

    fn runs(&self, order: &Order) -> bool {
        let id = naming::job_id(&order.key).unwrap();
        self.host.running().iter().any(|(job, _)| *job == id)
    }
}

fn order(app: &str, partition: u32) -> Order {
    let name = |text: &str| Name::new(text).unwrap();
    Order {
        key: JobKey {
            tenant: name("acme"),
            deployment: name("shop"),
            cluster: name("north"),
            application: name(app),
            slot: Slot::Partition(partition),
        },
        assignment: Assignment(5),
        scheduled: Scheduled {
            active: true,
            revision: Revision(7),
            workload: Arc::new(Workload {
                spec_revision: Revision(3),
                version: "1.0.0".to_owned(),
                driver: DriverKind::Exec,
                num_partitions: 16,
                image: Digest([1; 32]),
                limits: Resources { cpu_millis: 100, memory_bytes: 1 << 20 },
                on_disconnect: OnDisconnect::Stop,
                stop_grace_ms: 1_000,
                env: Default::default(),
                zones: Vec::new(),
            }),
        },
        data_elsewhere: false,
        deployment: None,
    }
}

fn accepted(order: &Order) -> Record {
    Record::Accepted { key: order.key.clone(), order: Accepted::from(order) }
}

fn one_at_a_time() -> WorkConfig {
    WorkConfig { steps_max: 1, ..WorkConfig::default() }
}

async fn pass(ms: u64) {
    sleep(Duration::from_millis(ms)).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_waited_over_a_gap_of_the_lease_does_not_happen() {
    let mut bench = Bench::new(one_at_a_time());
    bench.host.script("slow", Script { start_ms: 60_000, ..Script::default() });
    let (slow, moved) = (order("slow", 0), order("web", 1));
    bench.hear(&[accepted(&slow), accepted(&moved)]);
    bench.lease(20_000).await;
    let first = bench.start(&slow);
    pass(100).await;
    let waiting = bench.start(&moved);
    // The link is lost until long after the lease: the job may run elsewhere by now.
    pass(50_000).await;
    bench.executor.standing.session(false);
    bench.lease(20_000).await;
    first.await.unwrap();
    let done = waiting.await.unwrap();
    assert_eq!(done.result.unwrap_err().stage, Stage::Lease, "orders were not heard yet");
    assert!(!bench.runs(&moved), "two copies of a job that must have one");

    // Not under a lease that came after a gap either, whatever was heard since.
    bench.lease(20_000).await;
    bench.hear(&[]);
    let blocking = bench.start(&slow);
    pass(100).await;
    let waiting = bench.start(&moved);
    pass(30_000).await;
    bench.lease(60_000).await;
    bench.hear(&[]);
    blocking.await.unwrap();
    assert_eq!(waiting.await.unwrap().result.unwrap_err().stage, Stage::Lease);
    assert!(!bench.runs(&moved));

    // Decided anew, it starts.
    let done = bench.start(&moved).await.unwrap();
    assert_eq!((done.result, bench.runs(&moved)), (Ok(()), true));
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_order_was_removed_while_it_was_prepared_does_not_happen() {
    let mut bench = Bench::new(WorkConfig::default());
    bench.host.script("web", Script { prepare_ms: 90_000, ..Script::default() });
    let (gone, changed) = (order("web", 0), order("web", 1));
    bench.hear(&[accepted(&gone), accepted(&changed)]);
    bench.lease(400_000).await;
    let starts = [bench.start(&gone), bench.start(&changed)];
    pass(10_000).await;
    let mut newer = changed.clone();
    newer.scheduled.revision = Revision(8);
    bench.hear(&[Record::Dropped { key: gone.key.clone() }, accepted(&newer)]);
    for start in starts {
        let done = start.await.unwrap();
        assert_eq!(done.result.unwrap_err().stage, Stage::Withdrawn);
    }
    assert!(!bench.runs(&gone) && !bench.runs(&changed));
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_is_stale_leaves_what_runs_alone() {
    let mut bench = Bench::new(WorkConfig::default());
    let mut job = order("web", 0);
    Arc::make_mut(&mut job.scheduled.workload).on_disconnect = OnDisconnect::KeepRunning;
    bench.hear(&[accepted(&job)]);
    bench.start(&job).await.unwrap().result.unwrap();
    let (key, workload) = (job.key.clone(), job.scheduled.workload.clone());
    let (assignment, deployment) = (job.assignment, job.deployment);
    let step = Step::Replace { key, grace_ms: 1_000, assignment, workload, deployment };
    let replacing = bench.begin(step);
    bench.hear(&[Record::Dropped { key: job.key.clone() }]);
    assert_eq!(replacing.await.unwrap().result.unwrap_err().stage, Stage::Withdrawn);
    assert!(bench.runs(&job), "the next round stops it, with its grace");
}

#[tokio::test(start_paused = true)]
async fn jobs_that_take_their_grace_keep_no_start_and_no_kill_waiting() {
    let mut bench = Bench::new(WorkConfig::default());
    bench.host.script("slow", Script { stop_ms: 590_000, ..Script::default() });
    let stopping: Vec<Order> = (0..16).map(|number| order("slow", number)).collect();
    let (fresh, doomed) = (order("web", 0), order("web", 1));
    let all: Vec<Record> = stopping.iter().chain([&fresh, &doomed]).map(accepted).collect();
    bench.hear(&all);
    bench.lease(2_000_000).await;
    for order in stopping.iter().chain([&doomed]) {
        bench.start(order).await.unwrap().result.unwrap();
    }
    let stop = |order: &Order| Step::Stop { key: order.key.clone(), grace_ms: 600_000 };
    let stops: Vec<_> = stopping.iter().map(|order| bench.begin(stop(order))).collect();
    pass(10).await;
    let begun = Instant::now();
    bench.begin(Step::Kill { key: doomed.key.clone() }).await.unwrap().result.unwrap();
    bench.start(&fresh).await.unwrap().result.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(bench.runs(&fresh) && !bench.runs(&doomed));
    for stop in stops {
        stop.await.unwrap().result.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(600), "stops do not wait for each other");
}
