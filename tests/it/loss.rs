//! A host is lost: `stop` partitions move, once; `keep_running` ones stay where they are.

use crate::{acme, images};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::PathBuf};
use tests::{Cluster, Ticks, until};
use tokio::time::Instant;

/// How soon the partitions of a lost host run elsewhere, in s: the lease of 2 s, and 8 s more.
const MOVED_WITHIN_S: u64 = 10;

fn ticks(cluster: &Cluster) -> PathBuf {
    let folder = cluster.root().join("ticks");
    fs::create_dir_all(&folder).unwrap();
    folder
}

pub(crate) fn deploy(cluster: &Cluster, name: &str, policy: &str) -> PathBuf {
    let image = images::ticker(cluster.root(), "1.0.0");
    let folder = ticks(cluster);
    let env = format!("TICKS={}", folder.display());
    let image = image.to_str().unwrap();
    let flags = ["--cluster", "north", "--env", &env, "--on-disconnect", policy, "--wait=90s"];
    let mut words = vec!["-t", "acme", "deploy", image, "--name", name];
    words.extend(flags);
    cluster.cli(&words).ok();
    folder
}

/// Host of each running partition of a deployment.
pub(crate) fn hosts(cluster: &Cluster, deployment: &str) -> BTreeMap<u64, String> {
    let list = cluster
        .cli(&["-t", "acme", "get", "jobs", "--deployment", deployment, "-o", "json"])
        .json();
    let jobs = list["items"].as_array().unwrap().clone();
    let running = |job: &Value| {
        let placement = job["placements"].as_array()?.last()?.clone();
        let phase = placement["current"]["phase"].as_str()?.to_owned();
        let host = placement["host"].as_str()?.to_owned();
        (phase == "RUNNING").then_some((job["key"]["partition"].as_u64().unwrap_or(0), host))
    };
    jobs.iter().filter_map(running).collect()
}

#[test]
fn stop_partitions_of_a_lost_host_move_and_never_run_twice() {
    let cluster = acme(3, 3);
    let folder = deploy(&cluster, "once", "stop");
    let before = hosts(&cluster, "once");
    assert_eq!(before.len(), 4);
    let lost = cluster.agents.iter().position(|it| before.values().any(|host| *host == it.host));
    let lost = lost.expect("some host has a partition");
    let host = cluster.agents[lost].host.clone();
    // Stopped, not dead: it cannot renew, and it cannot stop its jobs. Its guards do.
    cluster.agents[lost].process.as_ref().unwrap().signal(Signal::SIGSTOP);
    let began = Instant::now();
    until("its partitions run elsewhere", MOVED_WITHIN_S, || {
        let now = hosts(&cluster, "once");
        now.len() == 4 && now.values().all(|it| *it != host)
    });
    println!("partitions of a lost host ran elsewhere after {:?}", began.elapsed());
    let moved = hosts(&cluster, "once");
    cluster.agents[lost].process.as_ref().unwrap().signal(Signal::SIGCONT);
    until("the host is back", 30, || {
        let text = cluster.cli(&["-t", "acme", "get", "host", &host, "-o", "json"]).ok();
        text.contains("\"CONNECTED\"")
    });
    // It has heard its orders when it runs nothing any more; what it stole back would show by then.
    until("its jobs are gone there", 30, || cluster.guard_pids(lost).is_empty());
    assert_eq!(hosts(&cluster, "once"), moved, "nothing moves back");
    let ticks = Ticks::read(&folder);
    assert_eq!(ticks.jobs(), 4);
    assert_eq!(ticks.overlaps(), [], "no partition ran twice at once");
    assert!(!folder.join("overlaps").exists(), "no copy found its lock held");
}

#[test]
fn keep_running_partitions_stay_where_they_are() {
    let mut cluster = acme(1, 2);
    deploy(&cluster, "keep", "keep_running");
    let before = hosts(&cluster, "keep");
    assert_eq!(before.len(), 4);
    let host = cluster.agents[0].host.clone();
    let guards = cluster.guard_pids(0);
    assert!(!guards.is_empty());
    cluster.kill_agent(0);
    until("control holds the host for lost", 30, || {
        cluster.cli(&["-t", "acme", "get", "host", &host, "-o", "json"]).ok().contains("\"LOST\"")
    });
    let state = cluster.cli(&["-t", "acme", "get", "deployment", "keep", "-o", "json"]).json();
    assert_eq!(state["state"], "UNKNOWN");
    assert_eq!(hosts(&cluster, "keep"), before, "nobody moved");
    cluster.start_agent(0);
    until("the deployment runs again", 60, || {
        let found = cluster.cli(&["-t", "acme", "get", "deployment", "keep", "-o", "json"]).json();
        found["state"] == "RUNNING"
    });
    assert_eq!(cluster.guard_pids(0), guards, "the same guards, never restarted");
}
