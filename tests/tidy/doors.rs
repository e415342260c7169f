//! An outside crate may be named only in the rooms that are its door.

use crate::tree::{FLOORS, manifest};
use std::collections::BTreeSet;

const TESTING: &[&str] = &["simulation", "tests"];

/// Crate and the rooms whose manifests may name it, besides simulation and tests. Every pair is in use.
const DOORS: &[(&str, &[&str])] = &[
    ("openraft", &["consensus"]),
    ("sled", &["storage"]),
    ("bincode", &["storage"]),
    ("ractor", &["actors"]),
    ("prost", &["api"]),
    ("tonic", &["api", "consensus", "agent", "console", "node"]),
    ("rustls", &["identity"]),
    ("rcgen", &["identity"]),
    ("tokio-rustls", &["identity"]),
    ("wasmtime", &["agent"]),
    ("wasmtime-wasi", &["agent"]),
    // The agent's, and that of `muster dev`, which stops by signal the processes that it started: they
    // are children of the binary, not of an agent.
    ("nix", &["agent", "muster"]),
    ("criterion", &["bench"]),
    ("clap", &["console", "muster"]),
    ("anyhow", &["muster"]),
    ("rand", &["node"]),
    ("imbl", &["model"]),
];

#[test]
fn outside_crates_are_named_only_at_their_doors() {
    let mut used = BTreeSet::new();
    for (room, _) in FLOORS {
        if TESTING.contains(room) {
            continue;
        }
        for name in named(&manifest(room)) {
            if let Some((door, rooms)) = DOORS.iter().find(|(door, _)| *door == name) {
                assert!(rooms.contains(room), "{name} must not be named in {room}: {rooms:?}");
                used.insert((*door, *room));
            }
        }
    }
    for (door, rooms) in DOORS {
        for room in *rooms {
            assert!(used.contains(&(*door, *room)), "{room} no longer names {door}: take it off");
        }
    }
}

#[test]
fn a_crate_is_found_in_every_section_and_under_another_name() {
    let text = "[dependencies]\na = '1'\n[dev-dependencies]\nb = '1'\n[build-dependencies]\nc = '1'\n\
        [target.'cfg(unix)'.dependencies]\nd = '1'\n[target.x.dev-dependencies.e]\nversion = '1'\n\
        [dependencies.alias]\npackage = 'f'\n";
    let found = named(&text.parse().unwrap());
    assert_eq!(found.into_iter().collect::<String>(), "abcdef");
}

/// The crates that a manifest names, in any section, by their own names.
fn named(manifest: &toml::Table) -> BTreeSet<String> {
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let targets = targets.into_iter().flat_map(|it| it.values()).filter_map(toml::Value::as_table);
    let mut found = BTreeSet::new();
    for part in targets.chain([manifest]) {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let table = part.get(section).and_then(toml::Value::as_table);
            for (name, wanted) in table.into_iter().flatten() {
                let own = wanted.get("package").and_then(toml::Value::as_str);
                found.insert(own.unwrap_or(name).to_owned());
            }
        }
    }
    found
}
