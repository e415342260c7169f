//! The leader is killed under load, again and again: how long nothing is written.
//!
//! `MUSTER_FAILOVERS` says how often (3 times otherwise).

use crate::{BINARY, runtime};
use std::{
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
