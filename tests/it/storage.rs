//! `muster storage`: a stopped node's folder is told as it is, damage is named, nothing is changed.

use crate::BINARY;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use storage::{Batch, Kv, keyspace::Space, kv::KvHome};
use tests::{Answer, Cluster, Settings, Writers, until};

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
    until("the log was purged", 30, || {
        let ledger = cluster.inspect(0, "ledger").unwrap_or_default();
        ledger["values"]["purged_index"].as_str().is_some_and(|it| it.parse::<u64>().is_ok())
    });
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
        // What was being written when the node was killed ends with `.new`, and is nothing yet.
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with(begins) && !name.ends_with(".new")
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
    for line in [
        "folder format             1",
        "log format                1",
        "snapshot format           1",
        "store format              1",
        "rows of Tenant",
        "SEGMENT",
        "SNAPSHOT",
        "whole: ",
    ] {
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

/// The checksum that headers end with.
fn crc32(bytes: &[u8]) -> [u8; 4] {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
        }
    }
    (!sum).to_le_bytes()
}

/// Gives a header of `length` bytes, with its format at 8, the next format.
fn renew(bytes: &mut [u8], length: usize) {
    bytes[8] += 1;
    let sum = crc32(&bytes[..length - 4]);
    bytes[length - 4..length].copy_from_slice(&sum);
}

fn renew_store(folder: &Path) {
    let config = storage::kv::sled::SledConfig::new(folder);
    let kv = storage::kv::sled::SledHome::new(config).open().unwrap();
    let mut batch = Batch::new();
    let newer = storage::codec::encode(&(storage::kv::FORMAT + 1)).unwrap();
    batch.put(Space::Meta.key(b"format"), newer);
    kv.apply(batch).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(kv.sync()).unwrap();
}

#[test]
fn a_folder_of_a_newer_release_is_refused_by_name_and_left_as_it_is() {
    let mut cluster = stopped();
    let folder = cluster.nodes[0].folder.clone();
    let snapshot = first_file(&folder.join("snapshots"), "snapshot-");
    let newest_segment = || {
        let report = storage(&cluster, "inspect", &folder, &["-o", "json"]).json();
        let segments = report["log"]["segments"].as_array().unwrap().clone();
        let newest = segments.iter().max_by_key(|it| it["generation"].as_u64()).unwrap();
        folder.join("log").join(newest["file"].as_str().unwrap())
    };
    let segment = newest_segment();
    let node_json = folder.join("identity/node.json");
    type Renewal<'a> = (PathBuf, &'a dyn Fn(&Path));
    let renewals: [Renewal<'_>; 4] = [
        (segment, &|path| rewrite(path, |bytes| renew(bytes, 64))),
        (snapshot, &|path| rewrite(path, |bytes| renew(bytes, 16))),
        (node_json, &|path| {
            let text = fs::read_to_string(path).unwrap().replace("\"format\": 1", "\"format\": 2");
            fs::write(path, text).unwrap();
        }),
        (folder.join("kv"), &|path| renew_store(path)),
    ];
    for (path, renew) in renewals {
        let saved = cluster.root().join("saved");
        copy_all(&folder, &saved);
        renew(&path);
        let before = content(&folder);
        cluster.spawn_node(0);
        let name = path.display().to_string();
        until(&format!("the node refuses {name}"), 30, || {
            !cluster.nodes[0].process.as_mut().is_some_and(tests::Process::is_running)
        });
        let said = cluster.node_log(0);
        let said = said.lines().rev().take(20).collect::<Vec<_>>().join("\n");
        for word in [name.as_str(), "format", "2", "up to 1", "upgrade muster"] {
            assert!(said.contains(word), "{word} of {name}: {said}");
        }
        let after = content(&folder);
        let kept = [path.clone(), folder.join("identity"), folder.join("snapshots")];
        for file in before.keys().filter(|file| !file.starts_with(folder.join("kv"))) {
            let same = after.get(file) == before.get(file);
            assert!(same || !kept.iter().any(|it| file.starts_with(it)), "{}", file.display());
        }
        let verified = storage(&cluster, "verify", &folder, &[]);
        assert_eq!(verified.code, 4, "{verified:?}");
        assert!(verified.stdout.contains("upgrade muster"), "{name}: {verified:?}");
        fs::remove_dir_all(&folder).unwrap();
        fs::rename(&saved, &folder).unwrap();
    }
    cluster.restart_node(0);
}

fn rewrite(path: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn copy_all(from: &Path, to: &Path) {
    for (path, bytes) in content(from) {
        let to = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(&to, bytes).unwrap();
        fs::set_permissions(&to, fs::metadata(&path).unwrap().permissions()).unwrap();
    }
}
