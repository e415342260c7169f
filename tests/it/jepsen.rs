//! Clients that write, read and watch while control nodes are killed, stopped, parted from each other and
//! given bad clocks and disks: what the clients were answered can have happened one after the other, no
//! write that was acknowledged is lost and none is done twice, every watcher saw all of it, and at the end
//! all nodes have the same state.
//!
//! `MUSTER_JEPSEN_SECONDS` says how long it goes on (30 s otherwise), `MUSTER_JEPSEN_SEED` which faults.
//! `planted_bugs` shows that it finds what it is for.

mod clients;
mod nemesis;

pub(crate) use nemesis::Trouble;

use crate::{BINARY, runtime};
use clients::Shared;
use nemesis::Nemesis;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use storage::Dice;
use tests::{
    Cluster, Faults, Settings,
    history::{Anomaly, Done, check, check_watched},
    until, until_some,
};

/// The nodes it begins with, and those it may have in the end.
const NODES: usize = 3;
const NODES_MAX: usize = 4;

/// Longest time from the last fault until every watcher has seen the last write.
const CATCH_UP: Duration = Duration::from_secs(30);

/// What is to happen.
pub(crate) struct Plan {
    /// The binary under test.
    pub(crate) binary: String,
    /// Settings of the nodes, beside those that make little load meet much.
    pub(crate) env: BTreeMap<String, String>,
    /// For how long there are faults.
    pub(crate) length: Duration,
    /// Which faults.
    pub(crate) seed: u64,
    /// Of which kinds; those that cannot be made here are left out.
    pub(crate) troubles: &'static [Trouble],
    /// End with the first anomaly.
    pub(crate) until_found: bool,
}

/// A little load is to meet everything: few events are kept for watchers, so that they read the journal;
/// snapshots are made and sent; states are compared often.
fn busy() -> BTreeMap<String, String> {
    let settings = [
        ("MUSTER_RAFT__WATCH_EVENTS_MAX", "16"),
        ("MUSTER_WATCH__BOOKMARK_MS", "100"),
        ("MUSTER_RAFT__SNAPSHOT_EVERY_ENTRIES", "400"),
        ("MUSTER_RAFT__LOG_KEEP_ENTRIES", "100"),
        ("MUSTER_RAFT__HASH_CHECK_ENTRIES", "32"),
    ];
    settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What the clients were answered, judged as far as it goes.
fn judge(shared: &Shared) -> Result<(), Anomaly> {
    // Watchers first: they have seen no write that the calls do not know.
    let watched = shared.watched();
    let calls = shared.calls();
    check(&calls)?;
    watched.iter().try_for_each(|watched| check_watched(&calls, watched))
}

/// Carries out a plan; the first anomaly is the error.
pub(crate) fn run(plan: &Plan) -> Result<(), Anomaly> {
    println!("seed {}", plan.seed);
    let runtime = runtime();
    let faults = Faults::build(NODES_MAX).map(Arc::new);
    let mut settings = Settings::new(NODES);
    settings.env = busy();
    settings.env.extend(plan.env.clone());
    settings.faults.clone_from(&faults);
    let cluster = Cluster::start(&plan.binary, settings);
    let shared = Arc::new(runtime.block_on(async { Shared::new(&cluster) }));
    let clients = clients::start(&runtime, &shared);
    let mut nemesis = Nemesis::new(cluster, faults, Dice::new(plan.seed), plan.troubles);
    let mut found = Ok(());
    while shared.elapsed() < plan.length && found.is_ok() {
        // Processes are started and waited for on this thread; the clients go on on theirs.
        nemesis.strike(&runtime);
        if plan.until_found {
            found = judge(&shared);
        }
    }
    let cluster = nemesis.end();
    shared.end_calls();
    runtime.block_on(clients.calls.join_all());
    if found.is_ok() {
        found = settle(&cluster, &shared, &runtime);
    }
    report(&shared, plan.until_found);
    if found.is_ok() {
        shared.end_watches();
        let watches = async { tokio::time::timeout(CATCH_UP, clients.watches.join_all()).await };
        let caught_up = runtime.block_on(watches).is_ok();
        found = judge(&shared);
        if found.is_ok() && !caught_up {
            let text = format!("a watcher did not see the last write within {CATCH_UP:?}");
            found = Err(Anomaly(text));
        }
    }
    found
}

/// All is well again: the cluster takes writes, every node reads the newest of each register, and all have
/// the same state.
fn settle(
    cluster: &Cluster,
    shared: &Shared,
    runtime: &tokio::runtime::Runtime,
) -> Result<(), Anomaly> {
    until("the cluster writes again", 60, || cluster.cli(&["tenant", "create", "end"]).code == 0);
    until("every register is read through every node", 60, || {
        runtime.block_on(shared.read_everything())
    });
    let node = |index| {
        let values = cluster.inspect(index, "ledger")?["values"].clone();
        Some((values["revision"].as_str()?.to_owned(), values["state_hash"].as_str()?.to_owned()))
    };
    let states = until_some("all nodes are at the same revision", 60, || {
        let states: Option<Vec<_>> = (0..cluster.nodes.len()).map(node).collect();
        states.filter(|states| states.iter().all(|(revision, _)| *revision == states[0].0))
    });
    match states.iter().all(|state| *state == states[0]) {
        true => Ok(()),
        false => Err(Anomaly(format!("nodes differ: {states:?}"))),
    }
}

/// Prints what was done; unless it was to end early, it has to be something.
fn report(shared: &Shared, may_be_little: bool) {
    let calls = shared.calls();
    let count = |of: fn(&Done) -> bool| calls.iter().filter(|call| of(&call.done)).count();
    let watched = shared.watched();
    let streams: usize = watched.iter().map(|watched| watched.streams.len()).sum();
    let events: usize =
        watched.iter().flat_map(|it| &it.streams).map(|stream| stream.seen.len()).sum();
    let writes = count(|done| matches!(done, Done::Wrote(..)));
    let reads = count(|done| matches!(done, Done::Read(_)));
    println!(
        "{writes} writes, {} unknown, {} refused, {reads} reads; {streams} watches, {events} events",
        count(|done| matches!(done, Done::Attempted(_))),
        count(|done| matches!(done, Done::Refused(_))),
    );
    assert!(may_be_little || (writes > 100 && reads > 100 && events > 100), "something happened");
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn what_clients_were_answered_can_have_happened() {
    let plan = Plan {
        binary: BINARY.to_owned(),
        env: BTreeMap::new(),
        length: Duration::from_secs(setting("MUSTER_JEPSEN_SECONDS", 30)),
        seed: setting("MUSTER_JEPSEN_SEED", 1),
        troubles: Trouble::ALL,
        until_found: false,
    };
    run(&plan).unwrap_or_else(|anomaly| panic!("{anomaly}"));
}
