//! Whole-system tests: real processes of the real binary, killed, stopped and started again.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test binary may panic, and says what it measured"
)]

mod dev;
mod failover;
mod faults;
mod images;
mod isolation;
mod jepsen;
mod load;
mod loss;
mod membership;
mod outages;
mod overload;
mod planted_bugs;
mod power_cut;
mod refusals;
mod storage;
mod tour;
mod updates;
mod upgrade;
mod watchers;

use tests::{Cluster, Settings};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_muster");

/// Where clients run while the test stops and starts processes.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap()
}

/// A cluster of `nodes` control nodes with tenant `acme`, hosts `h1` to `h<hosts>` and cluster
/// `north` of all of them.
pub(crate) fn acme(nodes: usize, hosts: usize) -> Cluster {
    acme_of(BINARY, Settings::new(nodes), hosts)
}

/// The same of another binary or with other settings.
pub(crate) fn acme_of(binary: &str, settings: Settings, hosts: usize) -> Cluster {
    let mut cluster = Cluster::start(binary, settings);
    cluster.cli(&["tenant", "create", "acme"]).ok();
    let names: Vec<_> = (1..=hosts).map(|n| format!("h{n}")).collect();
    for name in &names {
        cluster.add_agent("acme", name, &[]);
    }
    let members = names.join(",");
    cluster.cli(&["-t", "acme", "cluster", "create", "north", "--members", &members]).ok();
    cluster
}
