//! Four times as many writes are asked of a cluster as it can do, whether it answers or not: what it
//! refuses was certainly not done, what it takes goes on, and it is as before soon after.
//!
//! `MUSTER_OVERLOAD_SECONDS` says how long (8 s otherwise). With it the nodes keep their own timings; by
//! default they bear more before they elect, for clients and other tests share their processors.

use crate::{BINARY, load::Load, runtime};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tests::{Change, Cluster, Operator, Settings, operator::request_id, until};
use tokio::time::{Instant, sleep};

/// Connections to each node: each carries a bounded number of calls at a time.
const CONNECTIONS: usize = 16;

/// Tenants that are written, over and over.
const KEYS: u64 = 64;

/// Calls under way at once, at most; past that this test would measure itself.
const CALLS_MAX: u64 = 20_000;

/// What became of a call, and how long that took.
struct Call {
    value: String,
    took: Duration,
    came: Change,
}

struct Shared {
    operators: Vec<Operator>,
    numbers: AtomicU64,
    calls: Mutex<Vec<Call>>,
    under_way: AtomicU64,
}

impl Shared {
    async fn open(cluster: &Cluster) -> Arc<Self> {
        Arc::new(Self {
            operators: (0..CONNECTIONS).map(|_| Operator::open(cluster)).collect(),
            numbers: AtomicU64::new(0),
            calls: Mutex::default(),
            under_way: AtomicU64::new(0),
        })
    }

    /// One write, through one node after the other.
    async fn write(&self) -> Change {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let operator = &self.operators[number as usize % self.operators.len()];
        let node = (number / self.operators.len() as u64) as usize % operator.nodes();
        let (key, value) = (format!("key-{}", number % KEYS), format!("v{number}"));
        let began = Instant::now();
        let came = operator.write(node, &key, &value, &request_id(u128::from(number))).await;
        let call = Call { value, took: began.elapsed(), came: came.clone() };
        self.calls.lock().unwrap().push(call);
        came
    }

    fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

/// Writes one after the other on each of many lanes: acknowledged per second.
async fn capacity(shared: &Arc<Shared>, length: Duration) -> f64 {
    let began = Instant::now();
    let lanes: Vec<_> = (0..256)
        .map(|_| {
            let shared = shared.clone();
            tokio::spawn(async move {
                while began.elapsed() < length {
                    shared.write().await;
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.await.unwrap();
    }
    let took = began.elapsed();
    let done = shared.take_calls().into_iter().filter(|call| matches!(call.came, Change::Done(_)));
    done.count() as f64 / took.as_secs_f64()
}

/// Asks for `rate` writes a second, whatever comes back; how many were asked for.
async fn pour(shared: &Arc<Shared>, rate: f64, length: Duration) -> u64 {
    let began = Instant::now();
    let mut asked = 0;
    while began.elapsed() < length {
        let due = (began.elapsed().as_secs_f64() * rate) as u64;
        while asked < due {
            asked += 1;
            if shared.under_way.load(Ordering::Relaxed) >= CALLS_MAX {
                continue;
            }
            shared.under_way.fetch_add(1, Ordering::Relaxed);
            let shared = shared.clone();
            tokio::spawn(async move {
                shared.write().await;
                shared.under_way.fetch_sub(1, Ordering::Relaxed);
            });
        }
        sleep(Duration::from_millis(5)).await;
    }
    while shared.under_way.load(Ordering::Relaxed) > 0 {
        sleep(Duration::from_millis(5)).await;
    }
    asked
}

/// Every value that was written after a revision, by its revision, up to `upto` once that is known.
async fn witness(
    operator: Operator,
    mut after: u64,
    upto: Arc<AtomicU64>,
) -> BTreeMap<String, u64> {
    let mut seen = BTreeMap::new();
    loop {
        let Ok(mut events) = operator.watch(0, after, None).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        while let Ok(Some(event)) = events.message().await {
            let tenant = event.resource.and_then(|it| it.resource);
            if let Some(api::v1::resource::Resource::Tenant(tenant)) = tenant {
                seen.insert(tenant.display_name, event.revision);
            }
            after = event.revision;
            let upto = upto.load(Ordering::Relaxed);
            if upto > 0 && after >= upto {
                return seen;
            }
        }
    }
}

/// The usual time of one write when nothing else is asked.
async fn quiet(shared: &Shared) -> Duration {
    let mut took = Vec::new();
    while took.len() < 50 {
        let began = Instant::now();
        if let Change::Done(_) = shared.write().await {
            took.push(began.elapsed());
        }
    }
    shared.take_calls();
    took.sort();
    took[took.len() / 2]
}

/// How long it takes until ten writes in a row are done, each in no more than this.
async fn normal(shared: &Shared, limit: Duration) -> Duration {
    let began = Instant::now();
    let mut in_a_row = 0;
    let mut since = began;
    while in_a_row < 10 {
        if in_a_row == 0 {
            since = Instant::now();
        }
        let call = Instant::now();
        let done = matches!(shared.write().await, Change::Done(_));
        in_a_row = if done && call.elapsed() < limit { in_a_row + 1 } else { 0 };
        assert!(began.elapsed() < Duration::from_secs(60), "it is not as before");
    }
    since - began
}

fn at(took: &mut [Duration], part: f64) -> Duration {
    took.sort();
    took.get(((took.len().max(1) - 1) as f64 * part) as usize).copied().unwrap_or_default()
}

fn term(cluster: &Cluster) -> (usize, serde_json::Value) {
    let status = cluster.cli(&["cluster", "status", "-o", "json"]).json();
    (cluster.leader(), status["term"].clone())
}

/// What became of calls: how long those took that were done, and those that were refused, and why.
#[derive(Default)]
struct Judged {
    done: Vec<Duration>,
    refused: Vec<Duration>,
    reasons: BTreeSet<String>,
    unknown: usize,
}

/// Compares what callers were told with what happened, as `seen` has it.
fn judge(calls: &[Call], seen: &BTreeMap<String, u64>) -> Judged {
    let mut all = Judged::default();
    for call in calls {
        match &call.came {
            Change::Done(revision) => {
                assert_eq!(seen.get(&call.value), Some(revision), "an acknowledged write is there");
                all.done.push(call.took);
            }
            Change::Refused(why) => {
                assert_eq!(seen.get(&call.value), None, "what was refused was not done: {why}");
                all.reasons.insert(why.split(' ').next().unwrap_or_default().to_owned());
                all.refused.push(call.took);
            }
            Change::Unknown(_) => all.unknown += 1,
        }
    }
    all
}

#[test]
fn four_times_too_much_is_refused_and_the_rest_goes_on() {
    let seconds = std::env::var("MUSTER_OVERLOAD_SECONDS").ok().and_then(|it| it.parse().ok());
    let length = Duration::from_secs(seconds.unwrap_or(8));
    let runtime = runtime();
    let settings = Settings::new(3);
    let settings = if seconds.is_none() { settings.patient() } else { settings };
    let cluster = Cluster::start(BINARY, settings);
    let shared = runtime.block_on(Shared::open(&cluster));
    let usual = runtime.block_on(quiet(&shared));
    let capacity = runtime.block_on(capacity(&shared, Duration::from_secs(3)));
    let before = term(&cluster);
    let from = match runtime.block_on(shared.write()) {
        Change::Done(revision) => revision,
        other => panic!("a quiet cluster writes: {other:?}"),
    };
    shared.take_calls();
    let upto = Arc::new(AtomicU64::new(0));
    let mut watcher = shared.operators[0].clone();
    watcher.limit = Duration::from_secs(30);
    let witness = runtime.spawn(witness(watcher, from, upto.clone()));
    let load = Load::sample(&runtime, &cluster);

    let asked = runtime.block_on(pour(&shared, capacity * 4.0, length));
    let calls = shared.take_calls();
    // Beside other tests it is not to be said what is usual.
    let limit = if seconds.is_some() { usual * 4 } else { Duration::from_secs(5) };
    let back = runtime.block_on(normal(&shared, limit));
    let rss = load.stop();
    assert_eq!(term(&cluster), before, "the leader is not lost");

    let mut end = None;
    until("the last write is done", 30, || {
        end = match runtime.block_on(shared.write()) {
            Change::Done(revision) => Some(revision),
            Change::Refused(_) | Change::Unknown(_) => None,
        };
        end.is_some()
    });
    upto.store(end.unwrap(), Ordering::Relaxed);
    let seen =
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), witness).await });
    let seen = seen.expect("the watcher sees the last write").unwrap();

    let Judged { mut done, mut refused, reasons, unknown } = judge(&calls, &seen);
    let rate = done.len() as f64 / length.as_secs_f64();
    println!(
        "alone {capacity:.0} writes/s, one takes {usual:?}; asked {asked} in {length:?}: \
         {rate:.0} writes/s acknowledged, p50 {:?}, p99 {:?}; {} refused {reasons:?}, p50 {:?}, \
         p99 {:?}; {unknown} unknown; {} not even sent; most RSS {rss:?} MiB; normal after {back:?}",
        at(&mut done, 0.5),
        at(&mut done, 0.99),
        refused.len(),
        at(&mut refused, 0.5),
        at(&mut refused, 0.99),
        asked - calls.len() as u64,
    );
    assert!(refused.len() > done.len() / 4, "that was no overload");
    assert!(reasons.contains("OVERLOADED"), "a refusal says why: {reasons:?}");
    // Whoever asks, and to whom no is said, takes processors from those who answer.
    assert!(rate > capacity / 8.0, "{rate:.0} of {capacity:.0} writes/s are left");
    assert!(rss.iter().all(|mib| *mib < 400), "{rss:?} MiB");
}
