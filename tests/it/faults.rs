//! Control nodes that hold sessions of hosts get bad links and bad clocks: leases stay what they are, and
//! jobs run where they may.

use crate::{BINARY, acme_of, loss};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tests::{Cluster, Faults, Settings, Ticks, until};

/// Three nodes under faults and two hosts; `None` where no faults can be made.
fn faulty(lease_ttl_ms: u64) -> Option<(Cluster, Arc<Faults>)> {
    let faults = Arc::new(Faults::build(3)?);
    let mut settings = Settings { lease_ttl_ms, ..Settings::new(3) };
    settings.faults = Some(faults.clone());
    Some((acme_of(BINARY, settings, 2), faults))
}

/// Asks some of the nodes.
fn ask(cluster: &Cluster, nodes: &[usize], words: &[&str]) -> Option<Value> {
    let servers: Vec<_> = nodes.iter().map(|node| cluster.client_addr(*node)).collect();
    let identity = cluster.nodes[0].folder.join("admin");
    let words = [words, &["-o", "json"]].concat();
    serde_json::from_str(&cluster.run(&identity, &servers.join(","), &words).stdout).ok()
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Hosts in contact, as some of the nodes say, each with the node that holds its session.
fn contacts(cluster: &Cluster, nodes: &[usize]) -> BTreeMap<String, u64> {
    let hosts = ask(cluster, nodes, &["-t", "acme", "get", "hosts"]).unwrap_or_default();
    let contact = |host: &Value| {
        let connected = host["contact"]["state"] == "CONNECTED";
        let name = host["meta"]["name"].as_str()?.to_owned();
        Some((name, number(&host["contact"]["node"])?)).filter(|_| connected)
    };
    hosts["items"].as_array().into_iter().flatten().filter_map(contact).collect()
}

/// The id of the node that leads, as some of the nodes say.
fn leader_id(cluster: &Cluster, nodes: &[usize]) -> Option<u64> {
    number(&ask(cluster, nodes, &["cluster", "status"])?["leader"])
}

#[test]
fn a_leader_without_links_keeps_no_lease_alive_and_its_hosts_move() {
    let Some((cluster, faults)) = faulty(2_000) else { return };
    let ticks = loss::deploy(&cluster, "shop", "stop");
    let leader = cluster.leader();
    let cut_off = leader_id(&cluster, &[leader]).unwrap();
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    println!("node {cut_off} is cut off; the sessions are {:?}", contacts(&cluster, &others));
    faults.network().part(&[leader], &others);
    until("another node leads", 30, || {
        leader_id(&cluster, &others).is_some_and(|id| id != cut_off)
    });
    until("all hosts are in contact with the others", 60, || {
        let contacts = contacts(&cluster, &others);
        contacts.len() == 2 && contacts.values().all(|node| *node != cut_off)
    });
    until("every partition runs", 60, || {
        let words = ["-t", "acme", "get", "jobs", "--deployment", "shop"];
        let jobs = ask(&cluster, &others, &words).unwrap_or_default();
        let phase = |job: &Value| {
            Some(job["placements"].as_array()?.last()?["current"]["phase"] == "RUNNING")
        };
        let jobs = jobs["items"].as_array().cloned().unwrap_or_default();
        jobs.len() == 4 && jobs.iter().all(|job| phase(job) == Some(true))
    });
    faults.network().heal();
    until("the node that was cut off follows", 30, || {
        leader_id(&cluster, &[leader]).is_some_and(|id| id != cut_off)
    });
    cluster.cli(&["-t", "acme", "status", "shop", "--wait=90s"]).ok();
    assert_eq!(Ticks::read(&ticks).overlaps(), [], "no partition ran twice at once");
}

#[test]
fn clocks_that_jump_lose_no_host_and_move_no_job() {
    // Long enough that a busy machine ends none; any jump is longer.
    let Some((cluster, faults)) = faulty(10_000) else { return };
    let ticks = loss::deploy(&cluster, "shop", "stop");
    let (before, all) = ((cluster.guard_pids(0), cluster.guard_pids(1)), [0, 1, 2]);
    let runtime = crate::runtime();
    for (node, off_ms) in [(0, 240_000), (1, -240_000), (2, 120_000), (0, -120_000), (1, 0)] {
        faults.set_clock(node, off_ms);
        // A renewal each time; all of it is longer than a lease.
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(2_500)).await });
        assert_eq!(contacts(&cluster, &all).len(), 2, "node {node} is off by {off_ms} ms");
    }
    cluster.cli(&["tenant", "create", "later"]).ok();
    assert_eq!((cluster.guard_pids(0), cluster.guard_pids(1)), before, "no job was touched");
    assert_eq!(Ticks::read(&ticks).overlaps(), []);
}
