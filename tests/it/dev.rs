//! `muster dev --check`: the main job, as the README's first command runs it.

use crate::BINARY;
use std::{fs, path::Path, process::Command};
use tests::Answer;

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
