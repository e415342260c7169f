//! What becomes of a job that runs when its deployment changes: an update keeps what it wrote, a deployment
//! made again under the same name begins anew, and what failed is tried again when somebody asks.

use crate::acme;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tests::{Cluster, until, until_some};

/// The counts that the partitions of the example keep in their data directories, as they are now.
fn counts(cluster: &Cluster) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut open: Vec<PathBuf> = cluster.agents.iter().map(|it| it.folder.clone()).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.file_name().is_some_and(|name| name == "count") {
                let text = fs::read_to_string(&path).unwrap_or_default();
                found.extend(text.trim().parse::<u64>().map(|count| (path, count)));
            }
        }
    }
    found
}

#[test]
fn partitions_go_on_counting_after_an_update_and_begin_anew_in_another_deployment() {
    let cluster = acme(1, 1);
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/ticker-wasm/image");
    let words = ["-t", "acme", "deploy", image.to_str().unwrap(), "--name", "count"];
    let flags = ["--cluster", "north", "--partitions", "2", "--wait=90s"];
    cluster.cli(&[&words[..], &flags[..]].concat()).ok();
    until("both have counted for a while", 30, || {
        let counts = counts(&cluster);
        counts.len() == 2 && counts.values().all(|count| *count >= 5)
    });
    let (before, guards) = (counts(&cluster), cluster.guard_pids(0));
    let update = ["--env", "COLOR=blue"];
    cluster.cli(&[&words[..], &flags[..], &update[..]].concat()).ok();
    let now = cluster.guard_pids(0);
    assert!(guards.iter().all(|(job, pid)| now.get(job) != Some(pid)), "{guards:?} {now:?}");
    let after = counts(&cluster);
    assert!(after.keys().eq(before.keys()), "{before:?} {after:?}");
    assert!(after.iter().all(|(path, count)| *count > before[path]), "{before:?} {after:?}");

    cluster.cli(&["-t", "acme", "delete", "deployment", "count"]).ok();
    until("it is gone", 30, || cluster.guard_pids(0).is_empty());
    let old = counts(&cluster);
    cluster.cli(&[&words[..], &flags[..]].concat()).ok();
    let all = until_some("the new ones count", 30, || {
        let all = counts(&cluster);
        (all.len() == 4).then_some(all)
    });
    for (path, count) in &old {
        assert_eq!(all[path], *count, "the data of the deployment before is left alone");
    }
}

/// An image whose program fails until there is a file.
fn waits_for(file: &Path, folder: &Path) -> PathBuf {
    let image = folder.join("waits");
    fs::create_dir_all(image.join("main")).unwrap();
    let application = json!({
        "schema_version": 1, "name": "waits", "version": "1.0.0", "driver": "exec",
        "num_partitions": 1, "on_disconnect": "keep_running", "stop_grace_ms": 500,
        "limits": { "cpu_millis": 100, "memory_bytes": 64 << 20 },
    });
    fs::write(image.join("application.json"), application.to_string()).unwrap();
    let package = json!({"name": "main", "version": "1.0.0"}).to_string();
    fs::write(image.join("main/package.json"), package).unwrap();
    let program = format!("#!/bin/sh\ntest -e {} || exit 3\nexec sleep 600\n", file.display());
    for arch in ["x86_64", "aarch64"] {
        fs::write(image.join(format!("main/package.exe.{arch}")), &program).unwrap();
    }
    image
}

#[test]
fn what_fails_says_when_it_is_tried_again_and_is_tried_at_once_on_demand() {
    let cluster = acme(1, 1);
    let file = cluster.root().join("now");
    let image = waits_for(&file, cluster.root());
    let deploy = ["-t", "acme", "deploy", image.to_str().unwrap(), "--cluster", "north"];
    cluster.cli(&deploy).ok();
    let status = || {
        let found = cluster.cli(&["-t", "acme", "get", "deployment", "waits", "-o", "json"]);
        found.json()["status"].clone()
    };
    until("it was tried a few times", 60, || {
        let status = status();
        status["attempt"].as_u64() >= Some(4) && status["next_retry_at"].is_string()
    });
    let why = cluster.cli(&["-t", "acme", "describe", "job", "waits/north/waits/0"]).ok();
    assert!(why.contains("CRASHED: the program ended by itself"), "{why}");
    fs::write(&file, "").unwrap();
    let retry = ["-t", "acme", "retry", "deployment", "waits", "--cluster", "north"];
    assert_eq!(cluster.cli(&retry).ok(), "deployment/waits tried again\n");
    cluster.cli(&["-t", "acme", "status", "waits", "--wait=60s"]).ok();
    let status = status();
    assert_eq!((&status["attempt"], &status["next_retry_at"]), (&json!(0), &json!(null)));
    let job = ["-t", "acme", "retry", "job", "waits/north/waits/0"];
    assert_eq!(cluster.cli(&job).ok(), "job/waits/north/waits/0 unchanged\n");
    let unknown = cluster.cli(&["-t", "acme", "retry", "deployment", "wait"]);
    assert!(unknown.code == 1 && unknown.stderr.contains("did you mean deployment waits?"));
}
