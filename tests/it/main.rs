//! Whole-system tests: real processes of the real binary, killed, stopped and started again.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test binary may panic")]

mod dev;
mod images;
mod isolation;
mod loss;
mod outages;
mod power_cut;
mod refusals;
mod storage;
mod tour;
mod updates;

use tests::{Cluster, Settings};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_muster");

/// A cluster of `nodes` control nodes with tenant `acme`, hosts `h1` to `h<hosts>` and cluster
/// `north` of all of them.
pub(crate) fn acme(nodes: usize, hosts: usize) -> Cluster {
    let mut cluster = Cluster::start(BINARY, Settings::new(nodes));
    cluster.cli(&["tenant", "create", "acme"]).ok();
    let names: Vec<_> = (1..=hosts).map(|n| format!("h{n}")).collect();
    for name in &names {
        cluster.add_agent("acme", name, &[]);
    }
    let members = names.join(",");
    cluster.cli(&["-t", "acme", "cluster", "create", "north", "--members", &members]).ok();
    cluster
}
