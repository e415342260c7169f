//! Many watchers of one node, and one watch that goes on from node to node.
//!
//! `MUSTER_WATCHERS` says how many (10,000 otherwise).

use crate::{BINARY, load::rss_kib, runtime};
use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tests::{Change, Cluster, Operator, Process, Settings, operator::request_id, until};
use tokio::time::{Instant, sleep};

/// Watches on one connection.
const WATCHES: usize = 200;

/// Writes that all watchers have to see.
const WRITES: u64 = 10;

/// What the watchers have seen so far.
struct Seen {
    began: AtomicUsize,
    /// Watchers that have seen each write.
    writes: Vec<AtomicUsize>,
    /// Microseconds after which each of them saw the newest, summed up and at most.
    sum_us: AtomicU64,
    most_us: AtomicU64,
    start: Instant,
    wrote_us: AtomicU64,
}

impl Seen {
    fn note(&self, write: usize) {
        let now = self.start.elapsed().as_micros() as u64;
        let took = now.saturating_sub(self.wrote_us.load(Ordering::SeqCst));
        self.sum_us.fetch_add(took, Ordering::Relaxed);
        self.most_us.fetch_max(took, Ordering::Relaxed);
        self.writes[write].fetch_add(1, Ordering::SeqCst);
    }
}

/// Watches from a revision on; every write comes once, in order.
async fn watch(operator: Operator, after: u64, seen: Arc<Seen>) {
    let mut events = operator.watch(0, after, None).await.expect("the watch begins");
    let mut next = 0;
    while let Ok(Some(event)) = events.message().await {
        match event.resource.and_then(|it| it.resource) {
            Some(api::v1::resource::Resource::Tenant(tenant)) => {
                assert_eq!(tenant.display_name, format!("v{next}"), "in order, each once");
                seen.note(next);
                next += 1;
            }
            // The first word says that it began.
            _ if event.revision == after => {
                seen.began.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        }
    }
}

async fn write(operator: &Operator, number: u64, value: &str) -> (u64, Duration) {
    let began = Instant::now();
    match operator.write(0, "watched", value, &request_id(u128::from(number))).await {
        Change::Done(revision) => (revision, began.elapsed()),
        other => panic!("the write is not done: {other:?}"),
    }
}

/// The usual time of a write.
async fn usual(operator: &Operator, numbers: std::ops::Range<u64>) -> (u64, Duration) {
    let (mut took, mut last) = (Vec::new(), 0);
    for number in numbers {
        let (revision, time) = write(operator, number, &format!("before-{number}")).await;
        took.push(time);
        last = revision;
    }
    took.sort();
    (last, took[took.len() / 2])
}

async fn all(what: &str, count: &AtomicUsize, expected: usize) {
    let until = Instant::now() + Duration::from_secs(120);
    while count.load(Ordering::SeqCst) < expected {
        assert!(Instant::now() < until, "{what}: {} of {expected}", count.load(Ordering::SeqCst));
        sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn ten_thousand_watchers_of_one_node_see_every_write_once() {
    let watchers = std::env::var("MUSTER_WATCHERS").ok().and_then(|it| it.parse().ok());
    let watchers: usize = watchers.unwrap_or(10_000);
    let runtime = runtime();
    let cluster = Cluster::start(BINARY, Settings::new(1));
    let pid = cluster.nodes[0].process.as_ref().map(Process::pid).unwrap();
    runtime.block_on(async {
        let operator = Operator::open(&cluster);
        let (after, alone) = usual(&operator, 1..51).await;
        let seen = Arc::new(Seen {
            began: AtomicUsize::new(0),
            writes: (0..WRITES).map(|_| AtomicUsize::new(0)).collect(),
            sum_us: AtomicU64::new(0),
            most_us: AtomicU64::new(0),
            start: Instant::now(),
            wrote_us: AtomicU64::new(0),
        });
        let before = rss_kib(pid);
        let opening = Instant::now();
        let mut tasks = Vec::new();
        for _ in 0..watchers.div_ceil(WATCHES) {
            let mut operator = Operator::open(&cluster);
            operator.limit = Duration::from_secs(60);
            for _ in 0..WATCHES.min(watchers - tasks.len()) {
                tasks.push(tokio::spawn(watch(operator.clone(), after, seen.clone())));
            }
            all("watches begin", &seen.began, tasks.len()).await;
        }
        let opening = opening.elapsed();
        let each = (rss_kib(pid).saturating_sub(before)) as f64 / watchers as f64;
        let mut reached = Vec::new();
        let mut took = Vec::new();
        for number in 0..WRITES {
            seen.wrote_us.store(seen.start.elapsed().as_micros() as u64, Ordering::SeqCst);
            let began = Instant::now();
            took.push(write(&operator, 1_000 + number, &format!("v{number}")).await.1);
            all("the write reaches all", &seen.writes[number as usize], watchers).await;
            reached.push(began.elapsed());
        }
        for task in &tasks {
            assert!(!task.is_finished(), "a watch has ended");
        }
        let loaded = rss_kib(pid).saturating_sub(before) as f64 / watchers as f64;
        took.sort();
        reached.sort();
        let mean = seen.sum_us.load(Ordering::Relaxed) / (WRITES * watchers as u64);
        println!(
            "{watchers} watchers over {} connections, opened in {opening:?}: {each:.1} KiB each, \
             {loaded:.1} KiB after {WRITES} writes; a write takes {:?} (alone {alone:?}) and has \
             reached all after p50 {:?}, most {:?}; one watcher after {mean} us in the mean",
            watchers.div_ceil(WATCHES),
            took[took.len() / 2],
            reached[reached.len() / 2],
            reached[reached.len() - 1],
        );
        assert!(loaded < 100.0, "{loaded:.1} KiB a watcher");
        for task in tasks {
            task.abort();
        }
    });
}

#[test]
fn a_watch_of_the_console_goes_on_from_node_to_node_without_gap_or_repeat() {
    let mut cluster = Cluster::start(BINARY, Settings::new(3));
    let servers: Vec<_> = (0..3).map(|index| cluster.client_addr(index)).collect();
    let log = cluster.root().join("watched");
    let mut watch = Command::new(BINARY);
    watch.args(["watch", "tenants", "--all-tenants", "-o", "json"]);
    watch.env("MUSTER_IDENTITY", cluster.nodes[0].folder.join("admin"));
    watch.env("MUSTER_SERVER", servers.join(","));
    let errors = fs::File::create(cluster.root().join("watch-errors")).unwrap();
    let out = fs::File::create(&log).unwrap();
    let mut child = watch.stdin(Stdio::null()).stdout(out).stderr(errors).spawn().unwrap();
    let seen = || -> Vec<String> {
        let text = fs::read_to_string(&log).unwrap();
        let name = |line: &str| {
            let event: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(event["name"].as_str()?.to_owned())
        };
        text.lines().filter_map(name).collect()
    };
    let mut expected = Vec::new();
    let create = |cluster: &Cluster, name: String| {
        cluster.cli(&["tenant", "create", &name]).ok();
        format!("tenants/{name}")
    };
    // It has begun when it shows one.
    let mut at = 0;
    until("the watch has begun", 30, || {
        at += 1;
        create(&cluster, format!("first-{at}"));
        !seen().is_empty()
    });
    let first: BTreeSet<_> = seen().into_iter().collect();
    for index in 0..3 {
        for number in 0..5 {
            expected.push(create(&cluster, format!("while-{index}-{number}")));
        }
        // The node it watches, or another one.
        cluster.kill_node(index);
        for number in 0..5 {
            expected.push(create(&cluster, format!("without-{index}-{number}")));
        }
        cluster.restart_node(index);
    }
    let last = create(&cluster, "last".to_owned());
    expected.push(last.clone());
    until("the watch shows the last", 60, || seen().contains(&last));
    let shown = seen();
    let distinct: BTreeSet<_> = shown.iter().collect();
    assert_eq!(distinct.len(), shown.len(), "nothing twice: {shown:?}");
    let later: Vec<_> = shown.into_iter().filter(|it| !it.contains("/first-")).collect();
    assert_eq!(later, expected, "no gap; it began with {first:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}
