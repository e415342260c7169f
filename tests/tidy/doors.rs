//! An outside crate may be named only in the rooms that are its door.

use crate::tree::{FLOORS, manifest};

const TESTING: &[&str] = &["simulation", "tests"];

/// Crate and the rooms whose manifests may name it, besides simulation and tests.
const DOORS: &[(&str, &[&str])] = &[
    ("openraft", &["consensus"]),
    ("sled", &["storage"]),
    ("bincode", &["storage"]),
    ("ractor", &["actors"]),
    ("prost", &["api", "consensus"]),
    ("tonic", &["api", "consensus", "agent", "console", "node"]),
    ("rustls", &["identity"]),
    ("rcgen", &["identity"]),
    ("tokio-rustls", &["identity"]),
    ("wasmtime", &["agent"]),
    ("wasmtime-wasi", &["agent"]),
    ("landlock", &["agent"]),
    ("criterion", &["bench"]),
    ("clap", &["console", "muster"]),
    ("ratatui", &["console"]),
    ("anyhow", &["muster", "console"]),
    ("rand", &["node", "bench"]),
    ("imbl", &["model"]),
];

#[test]
fn outside_crates_are_named_only_at_their_doors() {
    for (room, _) in FLOORS {
        if TESTING.contains(room) {
            continue;
        }
        let manifest = manifest(room);
        let Some(table) = manifest.get("dependencies").and_then(|it| it.as_table()) else {
            continue;
        };
        for name in table.keys() {
            if let Some((_, rooms)) = DOORS.iter().find(|(door, _)| door == name) {
                assert!(rooms.contains(room), "{name} must not be named in {room}: {rooms:?}");
            }
        }
    }
}
