//! A full disk, and one that fails: the node says so and ends, or goes on without taking writes; when
//! the cause is gone, every acknowledged write is there.

use super::{busy_files, copy};
use crate::BINARY;
use identity::CertificateBundle;
use tests::{
    Cluster, Process, Settings, Writers,
    power::{Recorder, Trouble},
    tenants, until, until_some,
};

/// Lets files below `path` fail under load. Answers what the node said, if it ended.
fn trouble(trouble: Trouble, path: &str) -> Option<String> {
    let recorder = Recorder::build()?;
    let mut settings = Settings::new(1);
    settings.env = busy_files();
    settings.env.extend(recorder.env_with(trouble, path));
    settings.place = Some(recorder.under().to_owned());
    let mut cluster = Cluster::start(BINARY, settings);
    let servers = [cluster.client_addr(0)];
    let operator = recorder.under().join("operator");
    copy(&cluster.nodes[0].folder.join("admin"), &operator);
    let before = Writers::run("before", &servers, &operator, (4, 30));
    assert_eq!(before.acknowledged(), 120);
    recorder.begin_trouble();
    // So many that snapshots fall due.
    let during = Writers::run("during", &servers, &operator, (4, 60));
    until("it ended, or the trouble is over for it", 20, || {
        let running = cluster.nodes[0].process.as_mut().is_some_and(Process::is_running);
        !running || during.acknowledged() == 240
    });
    let said = cluster.node_log(0);
    let ended = !cluster.nodes[0].process.as_mut().is_some_and(Process::is_running);
    if !ended {
        cluster.kill_node(0);
    }
    recorder.end_trouble();
    cluster.set_env(busy_files());
    cluster.restart_node(0);
    let bundle = CertificateBundle::load(&operator).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found =
        until_some("it serves again", 60, || runtime.block_on(tenants(&servers[0], &bundle)).ok());
    let attempts = [before.attempts, during.attempts].concat();
    let (due, wrong) = Writers { attempts }.judge(u64::MAX, &found);
    println!("{trouble:?} in {path}: ended {ended}, {due} acknowledged writes are there");
    assert_eq!(wrong, Vec::<String>::new());
    ended.then_some(said)
}

#[test]
fn power_cut_trouble_full_disk_under_the_log_ends_the_node_and_loses_nothing() {
    let Some(said) = trouble(Trouble::Full, "/log/") else { return };
    assert!(said.contains("the disk is full"), "{said}");
}

#[test]
fn power_cut_trouble_failing_log_sync_ends_the_node_and_loses_nothing() {
    let Some(said) = trouble(Trouble::SyncError, "/log/") else { return };
    assert!(said.contains("could not") && said.contains("/log/"), "{said}");
}

#[test]
fn power_cut_trouble_under_the_store_ends_the_node_and_loses_nothing() {
    let Some(said) = trouble(Trouble::Full, "/kv/") else { return };
    assert!(said.contains("kv"), "{said}");
}

#[test]
fn power_cut_trouble_under_snapshots_ends_the_node_and_loses_nothing() {
    let Some(said) = trouble(Trouble::WriteError, "/snapshots/") else { return };
    assert!(said.contains("/snapshots/"), "{said}");
}
