//! Limits are real: a job over its memory dies, and the reason is known.

use crate::{acme, images};
use tests::until;

#[test]
fn an_exec_job_over_its_memory_dies_with_reason_oom() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: limits of memory need root, or a delegated control group");
        return;
    }
    let cluster = acme(1, 1);
    let image = images::hog(cluster.root());
    let words = ["-t", "acme", "deploy", image.to_str().unwrap(), "--name", "hog"];
    let flags = ["--cluster", "north", "--partitions", "1", "--memory", "32MiB"];
    cluster.cli(&[&words[..], &flags[..]].concat()).ok();
    until("the job is reported as out of memory", 60, || {
        let list = cluster.cli(&["-t", "acme", "get", "jobs", "-o", "json"]).json();
        list["items"][0]["placements"][0]["current"]["error"]["reason"] == "OOM"
    });
}
