//! A room depends only on lower floors, dev-dependencies included, and inherits the lints.

use crate::tree::{FLOORS, floor, manifest};

#[test]
fn a_room_depends_only_on_lower_floors() {
    for (room, own) in FLOORS {
        let manifest = manifest(room);
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = manifest.get(section).and_then(|it| it.as_table()) else { continue };
            for name in table.keys() {
                if let Some(other) = floor(name) {
                    assert!(
                        other < *own,
                        "{room} (floor {own}) must not depend on {name} (floor {other}) in {section}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_room_inherits_the_lints() {
    for (room, _) in FLOORS {
        let manifest = manifest(room);
        let inherits =
            manifest.get("lints").and_then(|it| it.get("workspace")).and_then(toml::Value::as_bool);
        assert_eq!(inherits, Some(true), "{room}/Cargo.toml needs [lints] workspace = true");
    }
}

#[test]
fn every_member_of_the_workspace_is_a_known_room() {
    let text = std::fs::read_to_string(crate::tree::root().join("Cargo.toml")).unwrap();
    let root: toml::Table = text.parse().unwrap();
    for member in root["workspace"]["members"].as_array().unwrap() {
        let member = member.as_str().unwrap();
        assert!(floor(member).is_some(), "{member} has no floor in tests/tidy/tree.rs");
    }
}
