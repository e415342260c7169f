//! An update replaces what runs and keeps what it wrote.

use crate::acme;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tests::{Cluster, until};

/// The counts that the partitions of the example keep in their data directories, as they are now.
fn counts(cluster: &Cluster) -> Vec<u64> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = cluster.agents.iter().map(|it| it.folder.clone()).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.file_name().is_some_and(|name| name == "count") {
                let text = fs::read_to_string(&path).unwrap_or_default();
                found.extend(text.trim().parse::<u64>());
            }
        }
    }
    found
}

#[test]
fn partitions_go_on_counting_after_an_update() {
    let cluster = acme(1, 1);
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/ticker-wasm/image");
    let words = ["-t", "acme", "deploy", image.to_str().unwrap(), "--name", "count"];
    let flags = ["--cluster", "north", "--partitions", "2", "--wait=90s"];
    cluster.cli(&[&words[..], &flags[..]].concat()).ok();
    until("both have counted for a while", 30, || {
        let counts = counts(&cluster);
        counts.len() == 2 && counts.iter().all(|count| *count >= 5)
    });
    let (before, guards) = (counts(&cluster), cluster.guard_pids(0));
    let update = ["--env", "COLOR=blue"];
    cluster.cli(&[&words[..], &flags[..], &update[..]].concat()).ok();
    let now = cluster.guard_pids(0);
    assert!(guards.iter().all(|(job, pid)| now.get(job) != Some(pid)), "{guards:?} {now:?}");
    let least = before.iter().min().copied().unwrap_or_default();
    let after = counts(&cluster);
    assert!(after.len() == 2 && after.iter().all(|count| *count > least), "{before:?} {after:?}");
}
