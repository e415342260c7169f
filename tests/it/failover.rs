//! The leader is killed under load, again and again: how long nothing is written.
//!
//! `MUSTER_FAILOVERS` says how often (3 times otherwise).

use crate::{BINARY, runtime};
use nix::sys::signal::Signal;
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tests::{Change, Cluster, Operator, Settings, operator::request_id, until};
use tokio::time::{Instant, sleep};

const WRITERS: usize = 8;

/// Writes through whichever node answers, each write until it is done.
async fn write(operator: Operator, writer: usize, done: Arc<AtomicU64>, over: Arc<AtomicBool>) {
    let (mut number, mut node) = (0_u128, writer);
    while !over.load(Ordering::Relaxed) {
        number += 1;
        let id = request_id(number << 8 | writer as u128);
        let (key, value) = (format!("writer-{writer}"), format!("v{number}"));
        loop {
            let at = node % operator.nodes();
            match operator.write(at, &key, &value, &id).await {
                Change::Done(_) => break,
                Change::Refused(_) | Change::Unknown(_) => node += 1,
            }
            if over.load(Ordering::Relaxed) {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn writes_go_on_when_the_leader_dies() {
    let times = std::env::var("MUSTER_FAILOVERS").ok().and_then(|it| it.parse().ok()).unwrap_or(3);
    let runtime = runtime();
    let mut cluster = Cluster::start(BINARY, Settings::new(3));
    let (done, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut operator = runtime.block_on(async { Operator::open(&cluster) });
    operator.limit = Duration::from_millis(1_000);
    for writer in 0..WRITERS {
        runtime.spawn(write(operator.clone(), writer, done.clone(), over.clone()));
    }
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..times {
        let before = done.load(Ordering::Relaxed);
        until("writes go on", 30, || done.load(Ordering::Relaxed) > before + 50);
        let leader = cluster.leader();
        cluster.kill_node(leader);
        let killed = Instant::now();
        // What was on its way when the node died may still be answered by others.
        let settled = done.load(Ordering::Relaxed) + WRITERS as u64;
        let mut next = None;
        until("a write is acknowledged again", 30, || {
            next = (done.load(Ordering::Relaxed) > settled).then(|| killed.elapsed());
            next.is_some()
        });
        took.extend(next);
        cluster.restart_node(leader);
    }
    over.store(true, Ordering::Relaxed);
    took.sort();
    let at = |part: f64| took[((took.len() - 1) as f64 * part).round() as usize];
    println!(
        "{times} leaders killed: next writes acknowledged after p50 {:?}, p99 {:?}, most {:?}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// Longest a request takes that was given to a follower when the leader died.
const SOON: Duration = Duration::from_secs(2);

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
                assert!(time < SOON, "{signal}: {came:?} after {time:?}");
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
