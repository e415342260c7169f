//! Processes are killed at the worst moments: every acknowledged write is there, and all converges.

use crate::{BINARY, acme, images, loss::hosts};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};
use tests::{Answer, Cluster, Settings, Ticks, until};
use tokio::time::Instant;

/// Bytes of the uploads under way in a node's store.
fn uploaded(folder: &Path) -> u64 {
    let mut bytes = 0;
    let mut open = vec![folder.join("blobs")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => open.push(entry.path()),
                Ok(found) => bytes += found.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}

fn tenants(cluster: &Cluster) -> Vec<String> {
    cluster.cli(&["get", "tenants", "-o", "name"]).ok().lines().map(str::to_owned).collect()
}

#[test]
fn actors_of_all_nodes_are_shown_and_a_node_that_is_down_is_named() {
    let mut cluster = Cluster::start(BINARY, Settings::new(3));
    // Of each node, whether it answers.
    let nodes = |cluster: &Cluster| {
        let table = cluster.cli(&["inspect", "actors", "--no-headers"]).ok();
        let row = |line: &str| {
            (line.split(' ').next().unwrap().to_owned(), !line.contains("unreachable"))
        };
        table.lines().map(row).collect::<BTreeMap<_, _>>()
    };
    until("every node has actors", 30, || {
        let nodes = nodes(&cluster);
        nodes.len() == 3 && nodes.values().all(|answers| *answers)
    });
    cluster.kill_node(2);
    until("one of three does not answer", 30, || {
        let nodes = nodes(&cluster);
        let silent = nodes.values().filter(|answers| !**answers).count();
        (nodes.len(), silent) == (3, 1)
    });
}

#[test]
fn an_upload_goes_on_through_another_node_when_the_leader_dies() {
    let mut cluster = acme(3, 1);
    let image = images::large(cluster.root(), 64);
    let servers: Vec<_> = (0..3).map(|index| cluster.client_addr(index)).collect();
    let leader = cluster.leader();
    // The leader is the one that is uploaded to.
    let mut order = vec![servers[leader].clone()];
    order.extend(servers.iter().filter(|addr| **addr != servers[leader]).cloned());
    let push = Command::new(BINARY)
        .args(["-t", "acme", "image", "push", image.to_str().unwrap(), "-o", "json"])
        .env("MUSTER_IDENTITY", cluster.nodes[0].folder.join("admin"))
        .env("MUSTER_SERVER", order.join(","))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let folder = cluster.nodes[leader].folder.clone();
    until("a part of the image is durable", 30, || uploaded(&folder) > 4 << 20);
    cluster.kill_node(leader);
    let image = Answer::of(&push.wait_with_output().unwrap()).json();
    let number = |field: &str| image[field].as_u64().unwrap_or_else(|| panic!("{field}: {image}"));
    let size = image["size_bytes"].as_u64().or_else(|| image["size_bytes"].as_str()?.parse().ok());
    let (size, chunk) = (size.unwrap(), 1 << 20);
    // What was acknowledged is durable on a majority: the node that was asked next knew of it.
    let resumed = number("resumed_from");
    assert!(resumed > 2 * chunk && resumed < size, "it goes on where it was: {image}");
    assert!(number("sent_bytes") <= size + chunk, "nothing acknowledged is sent again: {image}");
    let listed = cluster.cli(&["-t", "acme", "image", "list", "-o", "json"]).json();
    assert_eq!(listed["items"][0]["digest"], image["digest"]);
    cluster.restart_node(leader);
    let digest = image["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    until("the node that died gets its copy", 60, || {
        cluster.nodes[leader].folder.join("blobs/blobs/sha256").join(&digest).exists()
    });
}

#[test]
fn a_deployment_survives_the_death_of_each_kind_of_process() {
    let mut cluster = acme(3, 2);
    let ticks = cluster.root().join("ticks");
    fs::create_dir_all(&ticks).unwrap();
    let image = images::ticker(cluster.root(), "1.0.0");
    let env = format!("TICKS={}", ticks.display());
    let words = ["-t", "acme", "deploy", image.to_str().unwrap(), "--name", "shop"];
    let flags = ["--cluster", "north", "--env", &env, "--on-disconnect", "stop"];
    cluster.cli(&[&words[..], &flags[..]].concat()).ok();
    // In the middle of the deployment.
    let leader = cluster.leader();
    cluster.kill_node(leader);
    cluster.cli(&["-t", "acme", "status", "shop", "--wait=90s"]).ok();
    cluster.restart_node(leader);

    let follower = (cluster.leader() + 1) % 3;
    cluster.kill_node(follower);
    cluster.cli(&["tenant", "create", "while-away"]).ok();
    cluster.restart_node(follower);
    let identity = cluster.nodes[0].folder.join("admin");
    let addr = cluster.client_addr(follower);
    until("the follower has caught up", 30, || {
        cluster.run(&identity, &addr, &["get", "tenant", "while-away"]).code == 0
    });

    let before = cluster.guard_pids(0);
    assert!(!before.is_empty(), "the first host has jobs");
    cluster.kill_agent(0);
    cluster.start_agent(0);
    cluster.cli(&["-t", "acme", "status", "shop", "--wait=90s"]).ok();
    assert_eq!(cluster.guard_pids(0), before, "an agent's death touches no job");

    let guard = *before.values().next().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(guard), Signal::SIGKILL).unwrap();
    until("another guard runs the job", 60, || {
        cluster.guard_pids(0).values().all(|pid| *pid != guard)
            && hosts(&cluster, "shop").len() == 4
    });

    let known = tenants(&cluster);
    for index in 0..3 {
        cluster.kill_node(index);
    }
    for index in 0..3 {
        cluster.restart_node(index);
    }
    until("all three serve again", 60, || cluster.cli(&["get", "tenants"]).code == 0);
    assert_eq!(tenants(&cluster), known, "every acknowledged write is there");
    cluster.cli(&["-t", "acme", "status", "shop", "--wait=90s"]).ok();
    assert_eq!(Ticks::read(&ticks).overlaps(), [], "no partition ran twice at once");
}

/// Whether the leader has a node in contact.
fn alive(cluster: &Cluster, index: usize) -> bool {
    let addr = cluster.client_addr(index);
    let status = cluster.cli(&["cluster", "status", "-o", "json"]);
    let Ok(status) = serde_json::from_str::<Value>(&status.stdout) else { return true };
    let members = status["members"].as_array().cloned().unwrap_or_default();
    let member = members.iter().find(|it| it["client_addr"] == addr.as_str());
    member.is_none_or(|member| member["alive"].as_bool() == Some(true))
}

/// Hosts in contact, each with the node that holds its session.
fn contacts(cluster: &Cluster) -> BTreeMap<String, u64> {
    let list = cluster.cli(&["-t", "acme", "get", "hosts", "-o", "json"]);
    let Ok(list) = serde_json::from_str::<Value>(&list.stdout) else { return BTreeMap::new() };
    let number = |id: &Value| id.as_u64().or_else(|| id.as_str()?.parse().ok());
    let contact = |host: &Value| {
        let connected = host["contact"]["state"] == "CONNECTED";
        let name = host["meta"]["name"].as_str()?.rsplit('/').next()?.to_owned();
        Some((name, number(&host["contact"]["node"])?)).filter(|_| connected)
    };
    list["items"].as_array().into_iter().flatten().filter_map(contact).collect()
}

/// Id of a node.
fn id(cluster: &Cluster, index: usize) -> u64 {
    let addr = cluster.client_addr(index);
    let status = cluster.cli(&["cluster", "status", "-o", "json"]).json();
    let members = status["members"].as_array().unwrap();
    let member = members.iter().find(|it| it["client_addr"] == addr.as_str()).unwrap();
    member["id"].as_u64().or_else(|| member["id"].as_str()?.parse().ok()).unwrap()
}

#[test]
fn a_stopped_control_node_cannot_keep_a_lease_alive() {
    let cluster = acme(3, 2);
    let ticks = cluster.root().join("ticks");
    fs::create_dir_all(&ticks).unwrap();
    let image = images::ticker(cluster.root(), "1.0.0");
    let env = format!("TICKS={}", ticks.display());
    let words = ["-t", "acme", "deploy", image.to_str().unwrap(), "--name", "shop"];
    let flags = ["--cluster", "north", "--env", &env, "--on-disconnect", "stop", "--wait=90s"];
    cluster.cli(&[&words[..], &flags[..]].concat()).ok();
    assert_eq!(contacts(&cluster).len(), 2);
    // A node that holds a session: the leader if it does.
    let leader = cluster.leader();
    let holders = contacts(&cluster);
    let holds = |index: usize| holders.values().any(|node| *node == id(&cluster, index));
    let stopped = if holds(leader) { leader } else { (0..3).find(|index| holds(*index)).unwrap() };
    let stopped_id = id(&cluster, stopped);
    println!("node {stopped_id} is stopped; the sessions are {holders:?}");
    cluster.nodes[stopped].process.as_ref().unwrap().signal(Signal::SIGSTOP);
    let began = Instant::now();
    until("the node is lost", 30, || !alive(&cluster, stopped));
    // By then every lease it granted is over: its hosts found another node, or are held for lost.
    until("it holds no session", 60, || {
        contacts(&cluster).values().all(|node| *node != stopped_id)
    });
    assert!(began.elapsed().as_millis() > 2_000, "it was stopped for longer than a lease");
    until("another node leads", 30, || cluster.cli(&["tenant", "create", "later"]).code == 0);
    until("all hosts are in contact again", 60, || contacts(&cluster).len() == 2);
    cluster.cli(&["-t", "acme", "status", "shop", "--wait=90s"]).ok();
    println!("its hosts are in contact elsewhere after {:?}", began.elapsed());
    cluster.nodes[stopped].process.as_ref().unwrap().signal(Signal::SIGCONT);
    until("the node is back", 30, || alive(&cluster, stopped));
    cluster.cli(&["-t", "acme", "status", "shop", "--wait=90s"]).ok();
    assert_eq!(Ticks::read(&ticks).overlaps(), [], "no partition ran twice at once");
    assert!(tenants(&cluster).contains(&"tenants/later".to_owned()));
}

/// Whether every `stop` job ends within so many seconds when all peers of the leader fall silent. Agents
/// reach it, and it must not let them go on. Afterwards they run again.
pub(crate) fn cut_off_leader_lets_jobs_stop(cluster: &Cluster, seconds: u64) -> bool {
    let ticks = cluster.root().join("ticks");
    fs::create_dir_all(&ticks).unwrap();
    let image = images::ticker(cluster.root(), "1.0.0");
    let env = format!("TICKS={}", ticks.display());
    let words = ["-t", "acme", "deploy", image.to_str().unwrap(), "--name", "shop"];
    let flags = ["--cluster", "north", "--env", &env, "--on-disconnect", "stop", "--wait=90s"];
    cluster.cli(&[&words[..], &flags[..]].concat()).ok();
    let leader = cluster.leader();
    let peers: Vec<_> = (0..3).filter(|index| *index != leader).collect();
    let signal = |signal| {
        for peer in &peers {
            cluster.nodes[*peer].process.as_ref().unwrap().signal(signal);
        }
    };
    signal(Signal::SIGSTOP);
    let began = Instant::now();
    let mut all = false;
    until("every partition has stopped, or the time is over", seconds + 5, || {
        all = stopped(&ticks) == 4;
        all || began.elapsed().as_secs() >= seconds
    });
    signal(Signal::SIGCONT);
    if all {
        until("they run again", 60, || hosts(cluster, "shop").len() == 4 && stopped(&ticks) == 0);
        cluster.cli(&["-t", "acme", "status", "shop", "--wait=90s"]).ok();
        assert_eq!(Ticks::read(&ticks).overlaps(), [], "no partition ran twice at once");
    }
    all
}

#[test]
fn a_control_node_that_is_cut_off_keeps_no_lease_alive() {
    let cluster = acme(3, 2);
    assert!(cut_off_leader_lets_jobs_stop(&cluster, 20), "every partition has stopped");
}

/// Partitions of which the last copy has said that it stops.
fn stopped(ticks: &Path) -> usize {
    let files = fs::read_dir(ticks).unwrap().flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|end| end == "ticks"));
    files.filter(|path| fs::read_to_string(path).unwrap().trim_end().ends_with("stop")).count()
}

#[test]
fn a_node_that_was_killed_reads_again_as_soon_as_it_is_up() {
    let mut cluster = acme(3, 1);
    let identity = cluster.nodes[0].folder.join("admin");
    let follower = (cluster.leader() + 1) % 3;
    let addr = cluster.client_addr(follower);
    for round in 0..5 {
        cluster.kill_node(follower);
        let tenant = format!("while-away-{round}");
        cluster.cli(&["tenant", "create", &tenant]).ok();
        let began = Instant::now();
        cluster.restart_node(follower);
        let up = began.elapsed();
        // A linearizable read: it knows what was written while it was away.
        until("it reads", 30, || {
            cluster.run(&identity, &addr, &["get", "tenant", &tenant]).code == 0
        });
        println!("a killed node is up after {up:?} and has read after {:?}", began.elapsed());
    }
}
