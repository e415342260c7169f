//! Reads the checkout: which rooms there are, which files they hold, what their manifests say.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The rooms with their floors, lowest first (ARCHITECTURE.md, "The house").
pub(crate) const FLOORS: &[(&str, u32)] = &[
    ("model", 0),
    ("planner", 1),
    ("api", 1),
    ("storage", 1),
    ("artifact", 2),
    ("identity", 2),
    ("consensus", 3),
    ("agent", 3),
    ("console", 3),
    ("actors", 4),
    ("node", 5),
    ("simulation", 6),
    ("bench", 6),
    ("tests", 6),
    ("muster", 7),
];

/// The floor of a room.
pub(crate) fn floor(room: &str) -> Option<u32> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// A room's manifest.
pub(crate) fn manifest(room: &str) -> toml::Table {
    let path = root().join(room).join("Cargo.toml");
    fs::read_to_string(path).unwrap().parse().unwrap()
}

/// Every `.rs` file of the rooms, as (path from the root, text), in order.
pub(crate) fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (room, _) in FLOORS {
        collect(&root().join(room), &mut found);
    }
    found.sort();
    assert!(found.len() > 50, "the walk must find the code");
    found
}

fn collect(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Compares what sins now with the list of known sinners: both ways.
pub(crate) fn compare(rule: &str, found: &[String], known: &[&str]) {
    let fresh: Vec<_> = found.iter().filter(|name| !known.contains(&name.as_str())).collect();
    let stale: Vec<_> = known.iter().filter(|name| !found.iter().any(|it| it == *name)).collect();
    assert!(fresh.is_empty(), "{rule}: {fresh:#?}");
    assert!(stale.is_empty(), "{rule}: these no longer sin, take them off the list: {stale:#?}");
}
