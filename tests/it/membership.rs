//! Control nodes come and go under load: no acknowledged write is lost, what was answered can have
//! happened, and whoever was removed stays away.

use crate::{BINARY, runtime};
use nix::sys::signal::Signal;
use std::{collections::BTreeSet, fs};
use tests::{Cluster, Load, Operator, Settings, Told, number, until};
use tokio::runtime::Runtime;

const CLIENTS: (u64, u64) = (4, 2);

fn load(runtime: &Runtime, cluster: &Cluster, name: &str, nodes: &[usize]) -> Load {
    // Nodes that are yet to come are dialled when they are there.
    let operator = runtime.block_on(async { Operator::open_for(cluster, 6) });
    Load::start(runtime, (operator, name), nodes, CLIENTS)
}

/// Waits until more writes are done.
fn go_on(load: &Load) {
    let before = load.written();
    until("writes go on", 30, || load.written() > before + 50);
}

fn judge(what: &str, told: &Told) {
    let Told { calls, refused, unknown, written } = told;
    println!(
        "{what}: {written} writes, {} refused, {} in doubt, {} calls",
        refused.len(),
        unknown.len(),
        calls.len()
    );
    told.check().unwrap_or_else(|anomaly| panic!("{what}: {anomaly}"));
}

fn ids(rows: &serde_json::Value) -> BTreeSet<u64> {
    rows.as_array().unwrap().iter().map(|it| number(&it["id"]).unwrap()).collect()
}

/// The Raft group, the rows of the state and these nodes are the same, and so many may be lost.
fn agree(cluster: &Cluster, nodes: &[usize], spare: u64) {
    let expected: BTreeSet<_> = nodes.iter().map(|index| cluster.node_id(*index)).collect();
    let quorum = format!("{0} of {0} voters up, may lose {spare}\n", nodes.len());
    // The node that is asked may hear of the last change a little later.
    until(&format!("nodes {expected:?} are all there are"), 20, || {
        let rows = cluster.cli(&["cluster", "members", "-o", "json"]).json();
        let shown = cluster.cli(&["cluster", "status"]).ok();
        let named = |id: &u64| shown.contains(&format!("node-{id} "));
        ids(&cluster.status()["members"]) == expected
            && ids(&rows["items"]) == expected
            && shown.contains(&quorum)
            && expected.iter().all(named)
    });
}

/// Removes a node that runs: its process ends and says why.
fn remove(cluster: &mut Cluster, index: usize) {
    let id = cluster.node_id(index).to_string();
    let said = cluster.cli(&["cluster", "remove", &id]).ok();
    // A node that is asked to remove itself may end before it answers; the next one finds it done.
    let done = ["removed", "unchanged"].map(|word| format!("node/{id} {word}\n"));
    assert!(done.contains(&said), "{said}");
    assert_eq!(cluster.ended(index), 4, "{}", cluster.node_log(index));
    let log = cluster.node_log(index);
    assert!(log.contains("NODE_REMOVED") && log.contains("muster cluster add"), "{log}");
    let again = cluster.cli(&["cluster", "remove", &id]).ok();
    assert_eq!(again, format!("node/{id} unchanged\n"));
}

fn refused(cluster: &Cluster, arguments: &[&str], reason: &str) {
    let answer = cluster.cli(arguments);
    assert_eq!(answer.code, 1, "{arguments:?}: {answer:?}");
    assert!(answer.stderr.contains(reason), "{arguments:?}: {}", answer.stderr);
    assert!(answer.stderr.contains("remedy: "), "{arguments:?}: {}", answer.stderr);
}

#[test]
fn a_cluster_grows_and_shrinks_under_load() {
    let runtime = runtime();
    let mut cluster = Cluster::start(BINARY, Settings::new(1).patient());
    let load = load(&runtime, &cluster, "grow", &[0]);
    refused(&cluster, &["cluster", "remove", "1"], "LAST_NODE");
    refused(&cluster, &["cluster", "transfer-leader"], "NO_SUCCESSOR");
    for _ in 1..4 {
        let index = cluster.grow(&[]);
        load.call(&(0..=index).collect::<Vec<_>>());
    }
    agree(&cluster, &[0, 1, 2, 3], 1);
    // The fifth copies first, and cannot lead before it votes.
    let fifth = cluster.grow(&["--learner"]);
    let id = cluster.node_id(fifth).to_string();
    refused(&cluster, &["cluster", "transfer-leader", &id], "LEARNER");
    until("it is promoted", 30, || cluster.cli(&["cluster", "promote", &id]).code == 0);
    agree(&cluster, &[0, 1, 2, 3, 4], 2);
    load.call(&[0, 1, 2, 3, 4]);
    go_on(&load);
    let leader = cluster.leader();
    let mut left: Vec<_> = (0..5).filter(|index| *index != leader).collect();
    // The leader goes, and another one.
    let other = if left[0] == 0 { left.remove(1) } else { left.remove(0) };
    for gone in [leader, other] {
        load.call(&left);
        remove(&mut cluster, gone);
        go_on(&load);
    }
    agree(&cluster, &left, 1);
    let told = load.end(&runtime, &left);
    judge("1 -> 5 -> 3", &told);
    assert!(told.unknown.is_empty() && told.refused.is_empty(), "{told:?}");
}

#[test]
fn a_dead_node_is_replaced_and_stays_away() {
    let runtime = runtime();
    // Not so slow that a node that died counts as heard for long.
    let slower = [("HEARTBEAT_MS", "100"), ("ELECTION_MIN_MS", "500"), ("ELECTION_MAX_MS", "800")];
    let mut settings = Settings::new(3);
    settings.env = slower.map(|(name, ms)| (format!("MUSTER_RAFT__{name}"), ms.to_owned())).into();
    let mut cluster = Cluster::start(BINARY, settings);
    let load = load(&runtime, &cluster, "replace", &[0, 1]);
    go_on(&load);
    let old = cluster.node_id(2);
    cluster.kill_node(2);
    until("the leader misses it", 30, || {
        let to = cluster.cli(&["cluster", "transfer-leader", &old.to_string()]);
        assert_ne!(to.code, 0);
        to.stderr.contains("NODE_SILENT")
    });
    let live = cluster.node_id(1).to_string();
    refused(&cluster, &["cluster", "remove", &live], "QUORUM_AT_RISK");
    // Its disk is lost to the cluster, and turns up later.
    let folder = cluster.nodes[2].folder.clone();
    let kept = folder.with_extension("kept");
    fs::rename(&folder, &kept).unwrap();
    let index = cluster.grow(&[]);
    let new = cluster.node_id(index);
    assert!(new > old, "{new} after {old}");
    until("three of four are up", 20, || {
        cluster.cli(&["cluster", "status"]).ok().contains("3 of 4 voters up, may lose 0\n")
    });
    refused(&cluster, &["cluster", "promote", "99999"], "UNKNOWN_NODE");
    cluster.cli(&["cluster", "remove", &format!("node-{old}")]).ok();
    agree(&cluster, &[0, 1, index], 1);
    load.call(&[0, 1, index]);
    go_on(&load);
    // The old disk is found and its machine started again.
    fs::rename(&kept, &folder).unwrap();
    cluster.spawn_node(2);
    assert_eq!(cluster.ended(2), 4, "{}", cluster.node_log(2));
    let log = cluster.node_log(2);
    assert!(log.contains("NODE_REMOVED") && log.contains("was removed"), "{log}");
    agree(&cluster, &[0, 1, index], 1);
    let told = load.end(&runtime, &[0, 1, index]);
    judge("replaced", &told);
    // Without a majority there is no leader, and whoever is left says so.
    cluster.kill_node(1);
    cluster.kill_node(index);
    until("it is said that nobody leads", 30, || {
        let shown = cluster.cli(&["cluster", "status"]).ok();
        shown.contains("no leader: ")
            && shown.contains("1 of 3 voters up, no quorum, 1 more needed")
    });
}

#[test]
fn leadership_moves_under_load_and_no_write_fails() {
    let runtime = runtime();
    let mut cluster = Cluster::start(BINARY, Settings::new(3).patient());
    let load = load(&runtime, &cluster, "move", &[0, 1, 2]);
    for round in 0..4 {
        go_on(&load);
        let from = cluster.leader();
        let to = (from + 1 + round % 2) % 3;
        let id = cluster.node_id(to).to_string();
        let asked = cluster.cli(&["cluster", "transfer-leader", &id]);
        assert_eq!(asked.ok(), format!("node/{id} leads\n"));
        assert_eq!(cluster.leader(), to);
    }
    go_on(&load);
    let told = load.end(&runtime, &[0, 1, 2]);
    judge("4 transfers", &told);
    assert!(told.unknown.is_empty() && told.refused.is_empty(), "{told:?}");

    // Now the leader stops, as a service manager would have it.
    for round in 0..3 {
        let load = self::load(&runtime, &cluster, &format!("stop-{round}"), &[0, 1, 2]);
        go_on(&load);
        let leader = cluster.leader();
        cluster.nodes[leader].process.as_ref().unwrap().signal(Signal::SIGTERM);
        assert_eq!(cluster.ended(leader), 0, "{}", cluster.node_log(leader));
        let others: Vec<_> = (0..3).filter(|index| *index != leader).collect();
        load.call(&others);
        go_on(&load);
        let told = load.end(&runtime, &others);
        judge(&format!("graceful stop {round}"), &told);
        assert!(told.unknown.is_empty(), "{:?}", told.unknown);
        let elsewhere = told.refused.iter().filter(|(node, _)| *node != leader).count();
        assert_eq!(elsewhere, 0, "{:?}", told.refused);
        cluster.restart_node(leader);
        until("all three are up", 30, || {
            cluster.cli(&["cluster", "status"]).stdout.contains("3 of 3 voters up")
        });
    }
}
