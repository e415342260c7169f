//! `muster dev`: the main job, as the README's first command runs it; and a lone node that starts again.

use crate::BINARY;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{fs, path::Path, process::Command};
use tests::{Answer, Process, until, until_some};

#[test]
fn a_development_cluster_runs_both_examples_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    // The second time on what the first has left.
    for _ in 0..2 {
        let measured = Answer::of(&check(folder.path()).output().unwrap()).json();
        assert_eq!(measured["running"], "8/8");
        assert!(measured["seconds_to_status_running"].as_f64().unwrap() < 120.0);
        assert_eq!(measured["resident_bytes"]["nodes"].as_object().unwrap().len(), 3);
        assert_eq!(measured["resident_bytes"]["guards"].as_object().unwrap().len(), 8);
        let text = folder.path().to_str().unwrap();
        let left: Vec<_> = processes().into_iter().filter(|it| it.contains(text)).collect();
        assert_eq!(left, Vec::<String>::new(), "no process of the cluster is left");
    }
    let lock = fs::File::open(folder.path().join("dev.lock")).unwrap();
    lock.try_lock().unwrap();
    let refused = Answer::of(&check(folder.path()).output().unwrap());
    assert!(refused.code != 0 && refused.stderr.contains("another `muster dev`"), "{refused:?}");
}

#[test]
fn a_development_cluster_outlives_kills_and_counts_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("said");
    let mut dev = Command::new(BINARY);
    dev.args(["dev", "--data"]).arg(folder.path()).env("XDG_RUNTIME_DIR", folder.path());
    let mut dev = Process::start("dev", &mut dev, &log);
    let text = folder.path().to_str().unwrap();
    // Each as soon as it knows who it is, long before everything runs.
    for victim in ["node-1", "edge-2"] {
        let identity = folder.path().join(victim).join("identity/identity.pem");
        until("it is started", 60, || identity.exists());
        let pid = process(&format!("--data {text}/{victim} ")).unwrap();
        kill(pid, Signal::SIGKILL).unwrap();
    }
    let said = || fs::read_to_string(&log).unwrap();
    until("both were started again", 60, || {
        let said = said();
        ["node-1", "edge-2"].iter().all(|it| said.contains(&format!("{it} ended (signal: 9")))
    });
    let cli = |words: &[&str]| {
        let admin = folder.path().join("node-1/admin");
        let mut command = Command::new(BINARY);
        command.env("MUSTER_IDENTITY", admin).env_remove("MUSTER_SERVER").args(["-t", "dev"]);
        Answer::of(&command.args(words).output().unwrap())
    };
    let running = || {
        let found = cli(&["get", "deployments", "-o", "json"]);
        found.code == 0 && found.stdout.matches("\"RUNNING\"").count() == 2
    };
    until("both examples run", 120, || {
        assert!(dev.is_running(), "{}", said());
        running()
    });
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/ticker-exec/image");
    let flags = ["--name", "mine", "--cluster", "edge", "--partitions", "1", "--wait=60s"];
    cli(&[&["deploy", example][..], &flags[..]].concat()).ok();
    dev.signal(Signal::SIGTERM);
    until("it has ended", 60, || !dev.is_running());
    let measured = Answer::of(&check(folder.path()).output().unwrap()).json();
    assert_eq!(measured["running"], "8/8", "the user's own is left out");
}

#[test]
fn a_node_started_again_without_addresses_is_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    let serve = |flags: &[&str]| {
        let mut serve = Command::new(BINARY);
        Process::start("serve", serve.arg("serve").arg("--data").arg(&data).args(flags), &log)
    };
    let addresses = || fs::read_to_string(data.join("addr.json")).ok().filter(|it| !it.is_empty());
    let any = ["--bootstrap", "--client-addr", "127.0.0.1:0", "--peer-addr", "127.0.0.1:0"];
    let mut first = serve(&any);
    let before = until_some("it serves", 60, addresses);
    first.kill();
    let again = serve(&[]);
    let known: serde_json::Value = serde_json::from_str(&before).unwrap();
    until("it answers at the old address", 60, || {
        let mut asks = Command::new(BINARY);
        asks.env("MUSTER_IDENTITY", data.join("admin"));
        asks.env("MUSTER_SERVER", known["client"].as_str().unwrap());
        asks.args(["tenant", "list", "--timeout", "2"]).output().unwrap().status.success()
    });
    let now: serde_json::Value = serde_json::from_str(&addresses().unwrap()).unwrap();
    assert_eq!((&now["client"], &now["peer"]), (&known["client"], &known["peer"]));
    drop(again);
}

/// The process whose command line has these words.
fn process(words: &str) -> Option<Pid> {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|it| it.parse().ok()) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if format!("{} ", String::from_utf8_lossy(&line).replace('\0', " ")).contains(words) {
            return Some(Pid::from_raw(pid));
        }
    }
    None
}

fn check(folder: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["dev", "--check", "-o", "json", "--data"]).arg(folder);
    command.env("XDG_RUNTIME_DIR", folder);
    command
}

/// Command lines of all processes.
fn processes() -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        // A process may be gone before it is read.
        if let Ok(bytes) = std::fs::read(entry.path().join("cmdline")) {
            all.push(String::from_utf8_lossy(&bytes).replace('\0', " "));
        }
    }
    all
}
