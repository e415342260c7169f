//! Full load, while the leader is killed again and again, and while nothing happens at all.
//!
//! `MUSTER_FAILOVERS` says how often the leader is killed (3 times otherwise): how long nothing is
//! written, and what became of the writes that were under way. `MUSTER_QUIET_SECONDS` says how long
//! nothing happens (a few seconds otherwise): nobody is elected then.

use crate::{BINARY, runtime};
use nix::sys::signal::Signal;
use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tests::{Change, Cluster, Operator, Settings, operator::request_id, until, until_some};
use tokio::{
    runtime::Runtime,
    task::JoinSet,
    time::{Instant, sleep},
};

/// Clients that write while the leader is killed.
const WRITERS: usize = 8;
/// Clients that write while nothing happens: as many as keep the leader busy all the time.
const FULL_LOAD: usize = 64;
/// Times that a machine which is busy with something else is given the benefit of the doubt.
const QUIET_TRIES: usize = 4;

/// One try of one write.
#[derive(Clone, Debug)]
struct Try {
    writer: usize,
    /// Number of the write; its tries have the same, and the same request id.
    number: u64,
    began: Instant,
    ended: Instant,
    change: Change,
}

/// What writers share.
#[derive(Default)]
struct Load {
    /// Whether tries are kept: over a long time they are too many.
    keeps: bool,
    tries: Mutex<Vec<Try>>,
    done: AtomicU64,
    over: AtomicBool,
}

impl Load {
    fn start(
        self: &Arc<Self>,
        runtime: &Runtime,
        operator: &Operator,
        writers: usize,
    ) -> JoinSet<()> {
        let mut running = JoinSet::new();
        for writer in 0..writers {
            running.spawn_on(write(self.clone(), operator.clone(), writer), runtime.handle());
        }
        running
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

/// Writes through whichever node answers, each write until it is done.
async fn write(load: Arc<Load>, operator: Operator, writer: usize) {
    let (mut number, mut node) = (0, writer);
    while !load.over.load(Ordering::Relaxed) {
        number += 1;
        let id = request_id(u128::from(number) << 8 | writer as u128);
        let (key, value) = (format!("writer-{writer}"), format!("v{number}"));
        // A write that was begun is ended, so that its fate is known.
        loop {
            let began = Instant::now();
            let change = operator.write(node % operator.nodes(), &key, &value, &id).await;
            let is_done = matches!(change, Change::Done(_));
            let ended = Instant::now();
            if load.keeps {
                load.tries.lock().unwrap().push(Try { writer, number, began, ended, change });
            }
            if is_done {
                break;
            }
            node += 1;
            sleep(Duration::from_millis(5)).await;
        }
        load.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// When the next write was acknowledged that certainly was not on its way back when the leader died: one
/// acknowledgement of each writer may have been.
fn next_acknowledged(tries: &[Try], killed: Instant) -> Option<Duration> {
    let done = |it: &&Try| it.ended > killed && matches!(it.change, Change::Done(_));
    let mut ended: Vec<Instant> = tries.iter().filter(done).map(|it| it.ended).collect();
    ended.sort();
    ended.get(WRITERS).map(|ended| ended.duration_since(killed))
}

/// What became of the writes that were under way at these moments, by what the try said that was, and of
/// how many of them every try failed.
fn fates(tries: &[Try], moments: &[Instant]) -> (BTreeMap<&'static str, usize>, usize) {
    let (mut fates, mut never) = (BTreeMap::new(), 0);
    for moment in moments {
        for it in tries.iter().filter(|it| it.began < *moment && *moment <= it.ended) {
            *fates
                .entry(match it.change {
                    Change::Done(_) => "acknowledged by that try",
                    Change::Refused(_) => "certainly not done, then repeated",
                    Change::Unknown(_) => "unknown, then repeated by the same request id",
                })
                .or_default() += 1;
            let same = |other: &&Try| (other.writer, other.number) == (it.writer, it.number);
            let done = |other: &Try| matches!(other.change, Change::Done(_));
            never += usize::from(!tries.iter().filter(same).any(done));
        }
    }
    (fates, never)
}

/// Each writer's newest value is there, and none was written twice over a newer one.
fn nothing_is_lost(runtime: &Runtime, operator: &Operator, tries: &[Try]) {
    for writer in 0..WRITERS {
        let newest = tries.iter().filter(|it| it.writer == writer).map(|it| it.number).max();
        let expected = newest.map(|number| format!("v{number}"));
        let found = until_some("the value is read", 30, || {
            runtime.block_on(operator.read(0, &format!("writer-{writer}"))).ok()
        });
        assert_eq!(found.map(|(value, _)| value), expected, "writer {writer}");
    }
}

#[test]
fn writes_go_on_when_the_leader_dies() {
    let times = setting("MUSTER_FAILOVERS").unwrap_or(3);
    let runtime = runtime();
    let mut cluster = Cluster::start(BINARY, Settings::new(3));
    let mut operator = runtime.block_on(async { Operator::open(&cluster) });
    operator.limit = Duration::from_millis(1_000);
    let load = Arc::new(Load { keeps: true, ..Load::default() });
    let running = load.start(&runtime, &operator, WRITERS);
    let mut moments = Vec::new();
    for _ in 0..times {
        let before = load.done();
        until("writes go on", 30, || load.done() > before + 50);
        let leader = cluster.leader();
        let settled = load.done() + 2 * WRITERS as u64;
        moments.push(Instant::now());
        cluster.kill_node(leader);
        until("writes are acknowledged again", 30, || load.done() > settled);
        cluster.restart_node(leader);
    }
    load.over.store(true, Ordering::Relaxed);
    runtime.block_on(running.join_all());
    let tries = load.tries.lock().unwrap().clone();
    let took = moments.iter().map(|killed| next_acknowledged(&tries, *killed).unwrap());
    let mut took: Vec<Duration> = took.collect();
    took.sort();
    let at = |part: f64| took[((took.len() - 1) as f64 * part).round() as usize];
    println!(
        "{times} leaders killed: next writes acknowledged after p50 {:?}, p99 {:?}, most {:?}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    let (fates, never) = fates(&tries, &moments);
    println!("writes under way when a leader was killed: {fates:?}; never done: {never}");
    assert_eq!(never, 0, "a write that is repeated until it is done gets done");
    nothing_is_lost(&runtime, &operator, &tries);
}

/// The highest term that a node knows.
fn term(cluster: &Cluster) -> u64 {
    let term = |index| cluster.inspect(index, "ledger")?["values"]["term"].as_str()?.parse().ok();
    until_some("every node says its term", 30, || (0..3).map(term).collect::<Option<Vec<u64>>>())
        .into_iter()
        .max()
        .unwrap()
}

#[test]
fn no_leader_is_deposed_under_full_load() {
    let asked = setting("MUSTER_QUIET_SECONDS");
    let (tries, seconds) = asked.map_or((QUIET_TRIES, 5), |seconds| (1, seconds));
    let runtime = runtime();
    let cluster = Cluster::start(BINARY, Settings::new(3));
    let operator = runtime.block_on(async { Operator::open(&cluster) });
    let load = Arc::new(Load::default());
    let running = load.start(&runtime, &operator, FULL_LOAD);
    until("there is load", 30, || load.done() > 1_000);
    let quiet = (0..tries).any(|_| {
        let (before, done, began) = (term(&cluster), load.done(), Instant::now());
        runtime.block_on(async { sleep(Duration::from_secs(seconds)).await });
        let rate = (load.done() - done) as f64 / began.elapsed().as_secs_f64();
        let elections = term(&cluster) - before;
        println!("{seconds} s of full load, {rate:.0} writes a second: {elections} elections");
        elections == 0
    });
    load.over.store(true, Ordering::Relaxed);
    runtime.block_on(running.join_all());
    assert!(quiet, "a leader that does its work is deposed");
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Longest a request takes that was given to a follower when the leader died. By hand it is what is
/// promised; beside other tests of a busy machine only that each ends.
fn soon() -> Duration {
    Duration::from_secs(if setting("MUSTER_FAILOVERS").is_some() { 2 } else { 10 })
}

/// Writes through one node, one after the other; how long each took, and whether it was done.
async fn time(operator: Operator, node: usize, writer: u128, over: Arc<AtomicBool>) -> Vec<Timed> {
    let (mut number, mut all) = (0_u128, Vec::new());
    while !over.load(Ordering::Relaxed) {
        number += 1;
        let began = Instant::now();
        let id = request_id(number << 8 | writer);
        let (key, value) = (format!("timed-{writer}"), format!("v{number}"));
        let came = operator.write(node, &key, &value, &id).await;
        all.push((began.elapsed(), came));
    }
    all
}

type Timed = (Duration, Change);

#[test]
fn a_request_through_a_follower_ends_soon_when_the_leader_dies() {
    let runtime = runtime();
    let mut cluster = Cluster::start(BINARY, Settings::new(3));
    // A process that is killed leaves broken connections; one that is stopped leaves silence.
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        let leader = cluster.leader();
        let follower = (leader + 1) % 3;
        let mut operator = runtime.block_on(async { Operator::open(&cluster) });
        operator.limit = Duration::from_secs(10);
        let over = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|it| time(operator.clone(), follower, it as u128, over.clone()))
            .map(|writer| runtime.spawn(writer))
            .collect();
        // The console, through the same node: each tenant is made once, or that is not known.
        let mut asked = Vec::new();
        let (die, mut dead) = (Instant::now() + Duration::from_millis(300), false);
        while Instant::now() < die + Duration::from_secs(3) {
            if !dead && Instant::now() > die {
                dead = true;
                match signal {
                    Signal::SIGKILL => cluster.kill_node(leader),
                    _ => cluster.nodes[leader].process.as_ref().unwrap().signal(signal),
                }
            }
            let name = format!("{}-{}", signal.as_str().to_lowercase(), asked.len());
            let made = make_once(&cluster, follower, &name);
            asked.push((name, made));
        }
        over.store(true, Ordering::Relaxed);
        let mut took = Vec::new();
        for writer in writers {
            for (time, came) in runtime.block_on(writer).unwrap() {
                assert!(time <= soon(), "{signal}: {came:?} after {time:?}");
                took.push(time);
            }
        }
        match signal {
            Signal::SIGKILL => cluster.restart_node(leader),
            _ => cluster.nodes[leader].process.as_ref().unwrap().signal(Signal::SIGCONT),
        }
        println!(
            "{signal}: {} writes through a follower, the slowest after {:?}; {} by the console",
            took.len(),
            took.iter().max().unwrap(),
            asked.len()
        );
        for (name, made) in asked {
            let found = cluster.cli(&["get", "tenant", &name, "-o", "json"]);
            match made {
                Some(revision) => assert_eq!(found.json()["meta"]["revision"], revision, "{name}"),
                None => assert!(matches!(found.code, 0 | 1), "{name}"),
            }
        }
    }
}

/// Makes a tenant that must not be there yet, by the console, through one node: at which revision; none
/// if nobody knows. Were it tried again under another id, it would be told that the tenant exists.
fn make_once(cluster: &Cluster, node: usize, name: &str) -> Option<serde_json::Value> {
    let file = cluster.root().join("once.yaml");
    let head = "apiVersion: muster/v1\nkind: Tenant\nmetadata: ";
    fs::write(&file, format!("{head}{{name: {name}, revision: 0}}\n")).unwrap();
    let identity = cluster.nodes[0].folder.join("admin");
    let words = ["apply", "-f", file.to_str().unwrap(), "-o", "json"];
    let answer = cluster.run(&identity, &cluster.client_addr(node), &words);
    if answer.code != 0 {
        assert!(answer.stderr.contains("UNKNOWN_OUTCOME"), "{name}: {}", answer.stderr);
        return None;
    }
    Some(answer.json()["outcomes"][0]["revision"].clone())
}
