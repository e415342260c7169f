//! Clients that write, read and watch while control nodes are killed and stopped: what they were
//! answered can have happened one after the other, and every watcher saw all of it.
//!
//! `MUSTER_JEPSEN_SECONDS` says how long it goes on (20 s otherwise), `MUSTER_JEPSEN_SEED` which faults.

use crate::{BINARY, runtime};
use nix::sys::signal::Signal;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tests::{
    Change, Cluster, Operator, Settings,
    history::{Call, Done, check, check_watched},
    operator::request_id,
    until,
};
use tokio::time::{Instant, sleep};

const KEYS: u64 = 4;
const WRITERS: u64 = 4;
const READERS: u64 = 3;

/// What all clients share.
struct Shared {
    operator: Operator,
    began: Instant,
    over: AtomicBool,
    calls: Mutex<Vec<Call>>,
    numbers: AtomicU64,
}

impl Shared {
    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn note(&self, key: String, began: u64, done: Done) {
        let call = Call { key, began, ended: self.now(), done };
        self.calls.lock().unwrap().push(call);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

async fn write(shared: Arc<Shared>, writer: u64) {
    while !shared.is_over() {
        let number = shared.number();
        let (key, value) = (format!("key-{}", number % KEYS), format!("v{number}"));
        let node = ((writer + number / 8) % shared.operator.nodes() as u64) as usize;
        let began = shared.now();
        match shared.operator.write(node, &key, &value, &request_id(u128::from(number))).await {
            Change::Done(revision) => shared.note(key, began, Done::Wrote(value, revision)),
            Change::Unknown(_) => {
                shared.note(key, began, Done::Attempted(value));
                sleep(Duration::from_millis(20)).await;
            }
            Change::Refused(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn read(shared: Arc<Shared>, reader: u64) {
    while !shared.is_over() {
        let number = shared.number();
        let key = format!("key-{}", number % KEYS);
        let node = ((reader + number / 8) % shared.operator.nodes() as u64) as usize;
        let began = shared.now();
        match shared.operator.read(node, &key).await {
            Ok(found) => shared.note(key, began, Done::Read(found)),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Watches through one node after the other, always from the last revision it saw whole, until
/// `last` was seen.
async fn watch(shared: Arc<Shared>, last: Arc<AtomicU64>) -> Vec<(String, String, u64)> {
    let mut events = Vec::new();
    let (mut after, mut node) = (0, 0);
    loop {
        let wanted = last.load(Ordering::Relaxed);
        if wanted > 0 && after >= wanted {
            return events;
        }
        node = (node + 1) % shared.operator.nodes();
        let Ok(mut stream) = shared.operator.watch(node, after).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        // A stream is left after a while on purpose, in the middle of what it sends.
        let until = Instant::now() + Duration::from_millis(1_500);
        while let Ok(Ok(Some(event))) = tokio::time::timeout_at(until, stream.message()).await {
            after = after.max(event.revision);
            let Some(api::v1::resource::Resource::Tenant(tenant)) =
                event.resource.and_then(|it| it.resource)
            else {
                continue;
            };
            let name = tenant.meta.unwrap_or_default().name;
            events.push((name, tenant.display_name, event.revision));
        }
    }
}

/// Numbers that a seed gives.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// One fault and its mending.
async fn trouble(cluster: &mut Cluster, dice: &mut Dice) {
    let node = dice.below(3) as usize;
    let pause = Duration::from_millis(200 + dice.below(2_300));
    match dice.below(4) {
        0 | 1 => {
            cluster.kill_node(node);
            sleep(pause).await;
            cluster.restart_node(node);
        }
        2 => {
            cluster.nodes[node].process.as_ref().unwrap().signal(Signal::SIGSTOP);
            sleep(pause).await;
            cluster.nodes[node].process.as_ref().unwrap().signal(Signal::SIGCONT);
        }
        _ => {
            for node in 0..3 {
                cluster.kill_node(node);
            }
            for node in 0..3 {
                cluster.restart_node(node);
            }
        }
    }
    sleep(Duration::from_millis(300 + dice.below(1_500))).await;
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn what_clients_were_answered_can_have_happened() {
    let runtime = runtime();
    let mut cluster = Cluster::start(BINARY, Settings::new(3));
    let seed = setting("MUSTER_JEPSEN_SEED", 0x9e37_79b9_7f4a_7c15);
    let length = Duration::from_secs(setting("MUSTER_JEPSEN_SECONDS", 20));
    let shared = Arc::new(Shared {
        operator: runtime.block_on(async { Operator::open(&cluster) }),
        began: Instant::now(),
        over: AtomicBool::new(false),
        calls: Mutex::default(),
        numbers: AtomicU64::new(1),
    });
    let last = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..WRITERS)
        .map(|writer| runtime.spawn(write(shared.clone(), writer)))
        .chain((0..READERS).map(|reader| runtime.spawn(read(shared.clone(), reader))))
        .collect();
    let watchers: Vec<_> =
        (0..3).map(|_| runtime.spawn(watch(shared.clone(), last.clone()))).collect();
    let mut dice = Dice(seed.max(1));
    let mut faults = 0;
    while shared.began.elapsed() < length {
        // Processes are started and waited for on this thread; the clients go on on theirs.
        runtime.block_on(trouble(&mut cluster, &mut dice));
        faults += 1;
    }
    shared.over.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        for client in clients {
            client.await.unwrap();
        }
    });
    until("the cluster writes again", 60, || cluster.cli(&["tenant", "create", "end"]).code == 0);
    for key in 0..KEYS {
        let key = format!("key-{key}");
        let began = shared.now();
        let found = runtime.block_on(shared.operator.read(0, &key)).unwrap();
        shared.note(key, began, Done::Read(found));
    }
    let calls = std::mem::take(&mut *shared.calls.lock().unwrap());
    let newest = calls.iter().filter_map(|call| match &call.done {
        Done::Wrote(_, revision) => Some(*revision),
        Done::Read(_) | Done::Attempted(_) => None,
    });
    last.store(newest.max().unwrap(), Ordering::Relaxed);
    let count = |of: fn(&Done) -> bool| calls.iter().filter(|call| of(&call.done)).count();
    let wrote = count(|done| matches!(done, Done::Wrote(..)));
    let unknown = count(|done| matches!(done, Done::Attempted(_)));
    let reads = count(|done| matches!(done, Done::Read(_)));
    println!("seed {seed}: {faults} faults, {wrote} writes, {unknown} unknown, {reads} reads");
    assert!(wrote > 100 && reads > 100, "something happened");
    check(&calls).unwrap_or_else(|anomaly| panic!("{anomaly}"));
    for watcher in watchers {
        let limit = Duration::from_secs(60);
        let seen = runtime.block_on(async { tokio::time::timeout(limit, watcher).await });
        let events = seen.expect("every watcher sees the last write").unwrap();
        check_watched(&calls, &events).unwrap_or_else(|anomaly| panic!("{anomaly}"));
    }
}
