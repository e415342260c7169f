//! `muster storage`: a stopped node's folder is told as it is, damage is named, nothing is changed.

use crate::BINARY;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tests::{Answer, Cluster, Settings, Writers};

/// A node that was killed under load, with several segments and a snapshot.
fn stopped() -> Cluster {
    let mut settings = Settings::new(1);
    for (name, value) in [
        ("MUSTER_LOG__SEGMENT_BYTES", "65536"),
        ("MUSTER_RAFT__SNAPSHOT_EVERY_ENTRIES", "40"),
        ("MUSTER_RAFT__LOG_KEEP_ENTRIES", "20"),
        ("MUSTER_RAFT__DUTY_MS", "50"),
    ] {
        settings.env.insert(name.to_owned(), value.to_owned());
    }
    let mut cluster = Cluster::start(BINARY, settings);
    let operator = cluster.nodes[0].folder.join("admin");
    let writers = Writers::run("w", &[cluster.client_addr(0)], &operator, (2, 100));
    assert_eq!(writers.acknowledged(), 200);
    let folder = cluster.nodes[0].folder.clone();
    let running = storage(&cluster, "verify", &folder, &[]);
    assert_eq!(running.code, 1, "{running:?}");
    assert!(running.stderr.contains("a node is running"), "{running:?}");
    cluster.kill_node(0);
    cluster
}

fn storage(cluster: &Cluster, verb: &str, folder: &Path, flags: &[&str]) -> Answer {
    let mut words = vec!["storage", verb, folder.to_str().unwrap()];
    words.extend_from_slice(flags);
    cluster.cli(&words)
}

/// Every file below a folder.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn first_file(folder: &Path, begins: &str) -> PathBuf {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begins))
    };
    entries.filter(named).max().expect("there is such a file")
}

/// Damages a file, says what `verify` finds, and mends it again.
fn verify_damaged(cluster: &Cluster, path: &Path, damage: impl Fn(&mut Vec<u8>)) -> String {
    let folder = &cluster.nodes[0].folder;
    let before = fs::read(path).unwrap();
    let mut bytes = before.clone();
    damage(&mut bytes);
    fs::write(path, &bytes).unwrap();
    let answer = storage(cluster, "verify", folder, &[]);
    fs::write(path, before).unwrap();
    assert_eq!(answer.code, 4, "{}: {answer:?}", path.display());
    assert!(answer.stdout.contains("DAMAGED"), "{answer:?}");
    assert!(answer.stdout.contains("remedy: "), "{answer:?}");
    answer.stdout
}

#[test]
fn a_stopped_nodes_folder_is_told_as_it_is_and_not_changed() {
    let cluster = stopped();
    let folder = &cluster.nodes[0].folder;
    let before = content(folder);
    let report = storage(&cluster, "inspect", folder, &["-o", "json"]).json();
    assert_eq!(report["whole"], true, "{report:#}");
    assert_eq!(report["node_id"], 1);
    assert_eq!(report["store"]["agrees_with_log"], true, "{report:#}");
    // The store may be behind the log: what it had not written when the node was killed.
    assert!(report["store"]["rows"]["Tenant"].as_u64().unwrap() > 20, "{report:#}");
    assert!(report["snapshots"][0]["index"].as_u64().unwrap() >= 40, "{report:#}");
    assert!(report["log"]["purged_index"].as_u64().unwrap() > 0, "{report:#}");
    let last = report["log"]["last_index"].as_u64().unwrap();
    assert!(report["store"]["applied_index"].as_u64().unwrap() <= last, "{report:#}");
    let table = storage(&cluster, "inspect", folder, &[]).ok();
    for line in ["log format                1", "rows of Tenant", "SEGMENT", "SNAPSHOT", "whole: "]
    {
        assert!(table.contains(line), "{line}: {table}");
    }
    let yaml = storage(&cluster, "inspect", folder, &["-o", "yaml"]).ok();
    assert!(yaml.contains("whole: true"), "{yaml}");
    assert!(storage(&cluster, "verify", folder, &[]).ok().starts_with("whole: "));
    assert!(content(folder) == before, "the folder was changed");
    let other = storage(&cluster, "verify", &folder.join("admin"), &[]);
    assert_eq!(other.code, 1, "{other:?}");
    assert!(other.stderr.contains("is not the data folder"), "{other:?}");
}

#[test]
fn damage_in_each_kind_of_file_is_named_with_its_remedy() {
    let cluster = stopped();
    let folder = &cluster.nodes[0].folder;
    let report = storage(&cluster, "inspect", folder, &["-o", "json"]).json();
    let held = |it: &&Value| it["entries"].as_u64().unwrap_or(0) > 10;
    let segments = report["log"]["segments"].as_array().unwrap();
    let segment = segments.iter().find(held).expect("a segment holds entries");
    let middle = segment["end"].as_u64().unwrap() as usize / 2;
    let segment = folder.join("log").join(segment["file"].as_str().unwrap());
    let said = verify_damaged(&cluster, &segment, |bytes| bytes[middle] ^= 1);
    assert!(said.contains("segment-") && said.contains("under a new id"), "{said}");

    let snapshot = first_file(&folder.join("snapshots"), "snapshot-");
    let said = verify_damaged(&cluster, &snapshot, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    assert!(said.contains("snapshot-") && said.contains("remedy: nothing"), "{said}");

    let said = verify_damaged(&cluster, &folder.join("kv/conf"), |bytes| bytes[3] ^= 1);
    assert!(said.contains("/kv") && said.contains("remedy: nothing"), "{said}");

    let said = verify_damaged(&cluster, &folder.join("identity/node.json"), |bytes| bytes[0] ^= 1);
    assert!(said.contains("node.json"), "{said}");

    let blob = folder.join("blobs/blobs/sha256").join("0".repeat(64));
    fs::write(&blob, "something else").unwrap();
    let said = storage(&cluster, "verify", folder, &[]);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.stdout.contains("does not have the digest"), "{said:?}");
    fs::remove_file(&blob).unwrap();
    storage(&cluster, "verify", folder, &[]).ok();
}
