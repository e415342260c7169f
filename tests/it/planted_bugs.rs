//! Bugs that are planted in a binary of their own are found, each by the test that is there for it.
//!
//! | bug | found by |
//! |---|---|
//! | `ack-before-sync` | power cuts: an acknowledged write is not there |
//! | `read-without-read-index` | Jepsen: a read is older than a write that was acknowledged before it |
//! | `read-without-quorum` | Jepsen: the same, once the leader is cut off |
//! | `skip-journal-entry` | Jepsen: a watcher does not see an acknowledged write |
//! | `lease-without-quorum` | outages: jobs under `stop` go on at a node that is cut off |
//!
//! The binary is made by `cargo build --release --bin muster --features muster/planted-bugs` and
//! `cp target/release/muster target/release/muster-planted`, as the gate does.

use crate::{
    BINARY, acme_of,
    jepsen::{Plan, Trouble, run},
    outages::cut_off_leader_lets_jobs_stop,
    power_cut::{images, record_of},
};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};
use tests::Settings;

/// Longest time until a bug is found.
const LENGTH: Duration = Duration::from_secs(40);

/// The binary with the bugs; `None` where it was not made, which the gate does not let pass.
fn binary() -> Option<String> {
    let binary = PathBuf::from(BINARY).with_file_name("muster-planted");
    if binary.exists() {
        return Some(binary.to_str().unwrap().to_owned());
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing", binary.display());
    println!(
        "skipped: {} is not there; tests/it/planted_bugs.rs says how to make it",
        binary.display()
    );
    None
}

fn planted(bug: &str) -> BTreeMap<String, String> {
    // The binary also knows the next rules, which the others, who open what it wrote, do not.
    let settings = [("PLANTED_BUG", bug), ("RAISE_RULES", "false")];
    settings.map(|(name, value)| (format!("MUSTER_RAFT__{name}"), value.to_owned())).into()
}

/// Runs clients under some kinds of trouble; answers what was found.
fn jepsen(bug: &str, troubles: &'static [Trouble]) -> Option<String> {
    let (binary, env) = (binary()?, planted(bug));
    let plan = Plan { binary, env, length: LENGTH, seed: 1, troubles, until_found: true };
    let found = run(&plan).expect_err("the bug is found").0;
    println!("{bug}: {found}");
    Some(found)
}

#[test]
fn planted_bugs_ack_before_sync_is_found() {
    let Some(binary) = binary() else { return };
    let Some(recording) = record_of(&binary, planted("ack-before-sync"), 1, (8, 40)) else {
        return;
    };
    let wrong = images::wrong(&recording, 63, 1);
    println!("ack-before-sync: {} wrong, such as {:?}", wrong.len(), wrong.first());
    assert!(wrong.iter().any(|wrong| wrong.contains("lost")), "the bug is found");
}

#[test]
fn planted_bugs_read_without_read_index_is_found() {
    let Some(found) = jepsen("read-without-read-index", &[Trouble::Isolate, Trouble::Stop]) else {
        return;
    };
    assert!(found.contains("came after"), "{found}");
}

#[test]
fn planted_bugs_read_without_quorum_is_found() {
    let Some(found) = jepsen("read-without-quorum", &[Trouble::IsolateLeader]) else { return };
    assert!(found.contains("came after"), "{found}");
}

#[test]
fn planted_bugs_skip_journal_entry_is_found() {
    let Some(found) = jepsen("skip-journal-entry", &[Trouble::Kill]) else { return };
    assert!(found.contains("watch"), "{found}");
}

#[test]
fn planted_bugs_lease_without_quorum_is_found() {
    let Some(binary) = binary() else { return };
    let mut settings = Settings::new(3);
    settings.env = planted("lease-without-quorum");
    let cluster = acme_of(&binary, settings, 2);
    // As long as without the bug.
    let stopped = cut_off_leader_lets_jobs_stop(&cluster, 20);
    println!("lease-without-quorum: all jobs stopped within 20 s: {stopped}");
    assert!(!stopped, "the bug is found");
}
