//! A rolling upgrade: nodes are stopped and started with the next release one by one, under load.
//!
//! The next release is this source with the feature `next-rules`, which knows one rules level more and
//! by it takes longer display names. `MUSTER_NEXT_BINARY` names it; otherwise it is looked for beside
//! the binary under test as `muster-next`, where `.ci/run` puts it. Without it the test is skipped, but
//! never in CI.

use crate::{BINARY, runtime};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tests::{
    Answer, Change, Cluster, Operator, Process, Settings,
    history::{Call, Done, check},
    operator::request_id,
    until,
};
use tokio::time::{Instant, sleep};

const NODES: usize = 3;
const KEYS: u64 = 4;
const WRITERS: u64 = 4;
const READERS: u64 = 2;
/// A write that no node takes for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// A display name that only the next release takes.
const LONG: &str = "a name that is much longer than forty characters";

fn next_binary() -> Option<PathBuf> {
    let named = std::env::var_os("MUSTER_NEXT_BINARY").map(PathBuf::from);
    let next = named.unwrap_or_else(|| Path::new(BINARY).with_file_name("muster-next"));
    let found = next.exists();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{} is missing in CI", next.display());
        println!(
            "skipped: {} is missing; cargo build --release --bin muster --features muster/next-rules, \
             copy target/release/muster there, and build without the feature again",
            next.display()
        );
    }
    found.then_some(next)
}

/// What all clients share.
struct Clients {
    operator: Operator,
    began: Instant,
    over: AtomicBool,
    paused: AtomicBool,
    calls: Mutex<Vec<Call>>,
    failed: Mutex<Vec<String>>,
    numbers: AtomicU64,
}

impl Clients {
    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn note(&self, key: String, began: u64, done: Done) {
        let call = Call { key, began, ended: self.now(), done };
        self.calls.lock().unwrap().push(call);
    }

    fn written(&self) -> usize {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|call| matches!(call.done, Done::Wrote(..))).count()
    }

    /// Writes through one node after the other, as a client with several addresses does, each write
    /// with one request id until it is done.
    async fn write(self: Arc<Self>, writer: u64) {
        while !self.over.load(Ordering::Relaxed) {
            if self.paused.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(10)).await;
                continue;
            }
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let (key, value) = (format!("key-{}", number % KEYS), format!("v{number}"));
            let (began, id) = (self.now(), request_id(u128::from(number)));
            let until = Instant::now() + PATIENCE;
            let mut node = (writer + number) as usize;
            loop {
                let written = self.operator.write(node % NODES, &key, &value, &id).await;
                match written {
                    Change::Done(revision) => {
                        self.note(key, began, Done::Wrote(value, revision));
                        break;
                    }
                    Change::Refused(why) | Change::Unknown(why) if Instant::now() >= until => {
                        self.note(key, began, Done::Attempted(value));
                        self.failed.lock().unwrap().push(why);
                        break;
                    }
                    Change::Refused(_) | Change::Unknown(_) => node += 1,
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn read(self: Arc<Self>, reader: u64) {
        while !self.over.load(Ordering::Relaxed) {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let key = format!("key-{}", number % KEYS);
            let began = self.now();
            match self.operator.read((reader + number) as usize % NODES, &key).await {
                Ok(found) => self.note(key, began, Done::Read(found)),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(u64::MAX)
}

/// What a node says of its own ledger.
fn ledger(cluster: &Cluster, node: usize, value: &str) -> Option<String> {
    let identity = cluster.nodes[0].folder.join("admin");
    let answer = cluster.run(
        &identity,
        &cluster.client_addr(node),
        &["inspect", "ledger", "--depth", "1", "-o", "json"],
    );
    let tree: Value = serde_json::from_str(&answer.stdout).ok()?;
    tree["values"][value].as_str().map(str::to_owned)
}

/// Waits until all nodes have one revision, and compares the hashes of their states.
fn compare(cluster: &Cluster) -> String {
    let mut hashes = Vec::new();
    until("all nodes have one revision", 60, || {
        let both =
            |node| Some((ledger(cluster, node, "revision")?, ledger(cluster, node, "state_hash")?));
        let seen: Option<Vec<_>> = (0..NODES).map(both).collect();
        let Some(seen) = seen else { return false };
        hashes = seen.iter().map(|(_, hash)| hash.clone()).collect();
        let settled =
            (0..NODES).all(|node| ledger(cluster, node, "revision").as_ref() == Some(&seen[0].0));
        settled && seen.iter().all(|(revision, _)| *revision == seen[0].0)
    });
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    hashes.remove(0)
}

/// The level in force, and the levels that the members know, as every node says alike.
fn rules(cluster: &Cluster) -> (u64, Vec<u64>) {
    let status = cluster.cli(&["cluster", "status", "-o", "json"]).json();
    let members = status["members"].as_array().unwrap();
    let known = members.iter().map(|member| number(&member["rules_max"])).collect();
    (number(&status["rules"]), known)
}

fn long_name(cluster: &Cluster, node: usize, name: &str) -> Answer {
    let identity = cluster.nodes[0].folder.join("admin");
    let words = ["tenant", "create", name, "--display-name", LONG];
    cluster.run(&identity, &cluster.client_addr(node), &words)
}

/// A process that must end by itself, with an error that says why; `before` was in its log already.
fn is_refused(mut process: Process, log: &Path, before: &str, level: u64) {
    until("the older release ends", 60, || !process.is_running());
    let said = fs::read_to_string(log).unwrap_or_default();
    let said = said.strip_prefix(before).unwrap();
    assert!(said.contains(&format!("rules level {level} is in force")), "{said}");
    assert!(
        said.contains("start the node with the release that the other control nodes run"),
        "{said}"
    );
}

/// The cluster, and what goes on in it meanwhile.
struct Upgrade {
    cluster: Cluster,
    clients: Arc<Clients>,
    next: PathBuf,
    /// The level that the release before knows; the next one knows one more.
    old: u64,
}

impl Upgrade {
    fn some_more(&self) {
        let before = self.clients.written();
        until("writes go on", 60, || self.clients.written() > before + 50);
    }

    fn compare_paused(&self) {
        self.clients.paused.store(true, Ordering::Relaxed);
        compare(&self.cluster);
        self.clients.paused.store(false, Ordering::Relaxed);
    }

    /// One node gets the next release; unless it is the last, nothing is decided otherwise.
    fn upgrade(&mut self, node: usize) {
        self.some_more();
        assert_eq!(rules(&self.cluster).0, self.old, "the level rises with the last node");
        let refused = long_name(&self.cluster, node, &format!("long-{node}"));
        assert!(refused.code != 0 && refused.stderr.contains("DISPLAY_NAME"), "{refused:?}");
        self.cluster.stop_node(node);
        self.some_more();
        self.cluster.set_binary(self.next.clone());
        self.cluster.restart_node(node);
        until("it says what it knows", 60, || rules(&self.cluster).1[node] == self.old + 1);
        if node + 1 < NODES {
            self.some_more();
            let (level, known) = rules(&self.cluster);
            assert_eq!((level, known.contains(&self.old)), (self.old, true), "{known:?}");
            self.compare_paused();
        }
    }

    /// The older release is refused, on a node's folder and as a newcomer.
    fn refuse_older(&mut self) {
        let (cluster, last) = (&mut self.cluster, NODES - 1);
        cluster.stop_node(last);
        cluster.set_binary(BINARY.into());
        let before = cluster.node_log(last);
        cluster.spawn_node(last);
        let process = cluster.nodes[last].process.take().unwrap();
        is_refused(
            process,
            &cluster.root().join(format!("node-{NODES}.log")),
            &before,
            self.old + 1,
        );
        let (folder, log) = (cluster.root().join("newcomer"), cluster.root().join("newcomer.log"));
        fs::create_dir(&folder).unwrap();
        let token = cluster.token(&["--kind", "node"]);
        let mut command = Command::new(BINARY);
        command.arg("serve").arg("--data").arg(&folder).args(["--client-addr", "127.0.0.1:0"]);
        command.args(["--peer-addr", "127.0.0.1:0", "--join", &token]);
        command.args(["--server", &cluster.client_addr(0)]);
        is_refused(Process::start("newcomer", &mut command, &log), &log, "", self.old + 1);
        cluster.set_binary(self.next.clone());
        cluster.restart_node(last);
        self.some_more();
    }

    /// All of the log is decided again from its first entry, each by the level it was decided by.
    fn replay(&mut self) {
        let cluster = &mut self.cluster;
        // Control nodes that were out of contact are noted; tenants have only what clients wrote.
        let rows = |cluster: &Cluster| cluster.cli(&["tenant", "list", "-o", "json"]).ok();
        compare(cluster);
        let before = rows(cluster);
        for node in 0..NODES {
            cluster.stop_node(node);
            fs::remove_dir_all(cluster.nodes[node].folder.join("kv")).unwrap();
        }
        for node in 0..NODES {
            cluster.spawn_node(node);
        }
        until("all of them serve", 60, || cluster.cli(&["tenant", "get", "long-0"]).code == 0);
        compare(cluster);
        assert_eq!(before, rows(cluster));
    }
}

#[test]
fn nodes_are_upgraded_one_by_one_under_load() {
    let Some(next) = next_binary() else { return };
    let mut settings = Settings::new(NODES);
    settings.env.insert("MUSTER_RAFT__HASH_CHECK_ENTRIES".into(), "16".into());
    let cluster = Cluster::start(BINARY, settings);
    let runtime = runtime();
    let clients = Arc::new(Clients {
        operator: runtime.block_on(async { Operator::open(&cluster) }),
        began: Instant::now(),
        over: AtomicBool::new(false),
        paused: AtomicBool::new(false),
        calls: Mutex::default(),
        failed: Mutex::default(),
        numbers: AtomicU64::new(1),
    });
    let running: Vec<_> = (0..WRITERS)
        .map(|writer| runtime.spawn(clients.clone().write(writer)))
        .chain((0..READERS).map(|reader| runtime.spawn(clients.clone().read(reader))))
        .collect();
    let old = rules(&cluster).1[0];
    until("the release before decides by all it knows", 60, || {
        rules(&cluster) == (old, vec![old; NODES])
    });
    let mut upgrade = Upgrade { cluster, clients, next, old };
    for node in 0..NODES {
        upgrade.upgrade(node);
    }
    until("the level rises by itself", 60, || {
        rules(&upgrade.cluster) == (old + 1, vec![old + 1; NODES])
    });
    for node in 0..NODES {
        until("the new rule holds at every node", 30, || {
            long_name(&upgrade.cluster, node, &format!("long-{node}")).code == 0
        });
    }
    upgrade.some_more();
    upgrade.compare_paused();
    upgrade.refuse_older();
    upgrade.clients.over.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        for client in running {
            client.await.unwrap();
        }
    });
    let failed = std::mem::take(&mut *upgrade.clients.failed.lock().unwrap());
    assert!(failed.is_empty(), "{failed:?}");
    let calls = std::mem::take(&mut *upgrade.clients.calls.lock().unwrap());
    println!("{} calls over the upgrade", calls.len());
    check(&calls).unwrap_or_else(|anomaly| panic!("{anomaly}"));
    upgrade.replay();
    for node in 0..NODES {
        let log = upgrade.cluster.node_log(node);
        assert!(!log.contains("differ in their state"), "node {}: {log}", node + 1);
    }
}
