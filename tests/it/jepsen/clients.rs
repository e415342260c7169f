//! Clients that note each call, and watchers that note all they are sent.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tests::{
    Change, Cluster, Operator,
    history::{Call, Done, Seen, Stream, Watched, What},
    operator::request_id,
};
use tokio::{
    runtime::Runtime,
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

const KEYS: u64 = 4;
const WRITERS: u64 = 4;
const READERS: u64 = 3;
/// The register that each watcher asks for; all if none.
const WATCHERS: [Option<&str>; 3] = [None, None, Some("key-0")];
/// A call is given up after this: short, so that a node that is cut off does not keep a client for long.
const CALL: Duration = Duration::from_millis(1_500);
/// A node that cannot carry out a change by then says what it knows of it.
const TOLD: Duration = Duration::from_millis(1_200);
/// A stream is left after this, in the middle of what it sends.
const STREAM: Duration = Duration::from_millis(1_500);
/// A watcher stays away so long now and then: what it missed is in the journal only.
const AWAY: Duration = Duration::from_millis(400);
/// Pause after a call that came to nothing.
const PAUSE: Duration = Duration::from_millis(20);
/// The end of a call that has none yet.
const UNDER_WAY: u64 = u64::MAX;

fn key(number: u64) -> String {
    format!("key-{}", number % KEYS)
}

/// What all clients share.
pub(super) struct Shared {
    operator: Operator,
    began: Instant,
    over: AtomicBool,
    calls: Mutex<Vec<Call>>,
    watched: Mutex<Vec<Watched>>,
    /// The revision that watchers wait for; 0 while it is not known.
    last: AtomicU64,
    numbers: AtomicU64,
}

/// Those that call, and those that watch.
pub(super) struct Clients {
    pub(super) calls: JoinSet<()>,
    pub(super) watches: JoinSet<()>,
}

/// Starts all clients.
pub(super) fn start(runtime: &Runtime, shared: &Arc<Shared>) -> Clients {
    let (mut calls, mut watches) = (JoinSet::new(), JoinSet::new());
    for writer in 0..WRITERS {
        calls.spawn_on(write(shared.clone(), writer), runtime.handle());
    }
    for reader in 0..READERS {
        calls.spawn_on(read(shared.clone(), reader), runtime.handle());
    }
    for watcher in 0..WATCHERS.len() {
        watches.spawn_on(watch(shared.clone(), watcher), runtime.handle());
    }
    Clients { calls, watches }
}

impl Shared {
    /// Clients of a cluster as it is now; nodes that join later have none.
    pub(super) fn new(cluster: &Cluster) -> Self {
        let mut operator = Operator::open(cluster);
        (operator.limit, operator.told) = (CALL, Some(TOLD));
        let watched =
            |only: &Option<&str>| Watched { only: only.map(str::to_owned), ..Watched::default() };
        Self {
            operator,
            began: Instant::now(),
            over: AtomicBool::new(false),
            calls: Mutex::default(),
            watched: Mutex::new(WATCHERS.iter().map(watched).collect()),
            last: AtomicU64::new(0),
            numbers: AtomicU64::new(1),
        }
    }

    /// Since the clients began.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// All calls so far. A write that is under way counts as attempted.
    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// What watchers were sent so far, on streams that they have left.
    pub(super) fn watched(&self) -> Vec<Watched> {
        self.watched.lock().unwrap().clone()
    }

    /// Lets writers and readers end.
    pub(super) fn end_calls(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Lets watchers end as soon as they have seen the last write.
    pub(super) fn end_watches(&self) {
        let newest = self.calls().into_iter().filter_map(|call| match call.done {
            Done::Wrote(_, revision) => Some(revision),
            Done::Read(_) | Done::Attempted(_) | Done::Refused(_) => None,
        });
        self.last.store(newest.max().unwrap(), Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// The number of a new call, and the node that is asked first.
    fn next(&self, client: u64) -> (u64, usize) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        (number, ((client + number / 8) % self.operator.nodes() as u64) as usize)
    }

    /// Notes writes before they are made: nothing that is read was not written.
    fn begin(&self, keys: &[String], value: &str) -> Range<usize> {
        let began = self.now();
        let mut calls = self.calls.lock().unwrap();
        let first = calls.len();
        calls.extend(keys.iter().map(|key| Call {
            key: key.clone(),
            began,
            ended: UNDER_WAY,
            done: Done::Attempted(value.to_owned()),
        }));
        first..calls.len()
    }

    fn end(&self, writes: Range<usize>, done: &Done) {
        let ended = self.now();
        for call in &mut self.calls.lock().unwrap()[writes] {
            (call.ended, call.done) = (ended, done.clone());
        }
    }

    /// One linearizable read; whether it was answered.
    async fn read(&self, node: usize, key: String) -> bool {
        let began = self.now();
        let Ok(found) = self.operator.read(node, &key).await else { return false };
        let call = Call { key, began, ended: self.now(), done: Done::Read(found) };
        self.calls.lock().unwrap().push(call);
        true
    }

    /// Reads every register through every node; whether all answered.
    pub(super) async fn read_everything(&self) -> bool {
        for node in 0..self.operator.nodes() {
            for number in 0..KEYS {
                if !self.read(node, key(number)).await {
                    return false;
                }
            }
        }
        true
    }
}

/// One register mostly, now and then two at once. A write that nobody knows the fate of is repeated once,
/// through another node, by the same request id: then it is done once.
async fn write(shared: Arc<Shared>, writer: u64) {
    while !shared.is_over() {
        let (number, first) = shared.next(writer);
        let value = format!("v{number}");
        let id = request_id(u128::from(number));
        let count = if number.is_multiple_of(5) { 2 } else { 1 };
        let keys: Vec<String> = (number..number + count).map(key).collect();
        let calls = shared.begin(&keys, &value);
        let mut done = Done::Refused(value.clone());
        for node in [first, (first + 1) % shared.operator.nodes()] {
            match attempt(&shared.operator, node, &keys, (&value, &id)).await {
                Change::Done(revision) => {
                    done = Done::Wrote(value.clone(), revision);
                    break;
                }
                Change::Unknown(_) => done = Done::Attempted(value.clone()),
                // What an earlier try did is not known by that.
                Change::Refused(_) => break,
            }
        }
        shared.end(calls, &done);
        if !matches!(done, Done::Wrote(..)) {
            sleep(PAUSE).await;
        }
    }
}

async fn attempt(
    operator: &Operator,
    node: usize,
    keys: &[String],
    (value, id): (&str, &str),
) -> Change {
    match keys {
        [key] => operator.write(node, key, value, id).await,
        several => {
            let several: Vec<&str> = several.iter().map(String::as_str).collect();
            operator.write_all(node, &several, value, id).await
        }
    }
}

async fn read(shared: Arc<Shared>, reader: u64) {
    while !shared.is_over() {
        let (number, node) = shared.next(reader);
        if !shared.read(node, key(number)).await {
            sleep(PAUSE).await;
        }
    }
}

/// Watches through one node after the other, always from the last revision it saw whole, until it has
/// seen the last.
async fn watch(shared: Arc<Shared>, watcher: usize) {
    let (mut after, mut node) = (0, watcher);
    loop {
        let last = shared.last.load(Ordering::Relaxed);
        if last > 0 && after >= last {
            return;
        }
        node = (node + 1) % shared.operator.nodes();
        let Ok(mut events) = shared.operator.watch(node, after, WATCHERS[watcher]).await else {
            sleep(PAUSE).await;
            continue;
        };
        let until = Instant::now() + STREAM;
        let mut stream = Stream { after, seen: Vec::new() };
        while let Ok(Ok(Some(event))) = timeout_at(until, events.message()).await {
            stream.seen.extend(seen(event));
        }
        let streams = shared.watched.lock().unwrap()[watcher].streams.len();
        sleep(if streams.is_multiple_of(2) { AWAY } else { PAUSE }).await;
        after = stream.whole();
        shared.watched.lock().unwrap()[watcher].streams.push(stream);
    }
}

/// What a message says of our registers.
fn seen(event: api::v1::WatchEvent) -> Option<Seen> {
    let (revision, last) = (event.revision, event.last);
    if event.r#type() == api::v1::WatchType::Bookmark {
        return Some(Seen { revision, last, what: What::Bookmark });
    }
    let added = event.r#type() == api::v1::WatchType::Added;
    let (key, value, _) = register(event.resource?)?;
    let previous = event.previous.and_then(register).map(|(_, value, at)| (value, at));
    Some(Seen { revision, last, what: What::Change { key, value, added, previous } })
}

/// Name, value and revision of a register.
fn register(resource: api::v1::Resource) -> Option<(String, String, u64)> {
    let Some(api::v1::resource::Resource::Tenant(tenant)) = resource.resource else { return None };
    let meta = tenant.meta?;
    let is_register = meta.name.starts_with("key-");
    is_register.then_some((meta.name, tenant.display_name, meta.revision))
}
