//! Checks the dependencies between an image's modules and puts the modules in order.
//!
//! There is no package manager in between: what a module depends on is in the same image, in a
//! version it accepts, and nothing depends on itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::app_image::{
    module::Draft,
    violation::{Findings, ViolationCode, printable},
};

/// The positions of the modules, each after those it depends on, else by name.
pub(crate) fn order(modules: &[(String, Draft)], findings: &mut Findings) -> Vec<usize> {
    let mut by_name: BTreeMap<&str, usize> = BTreeMap::new();
    for (position, (_, module)) in modules.iter().enumerate() {
        by_name.entry(&module.name).or_insert(position);
    }
    // A module whose name could not be read might be the one that is missing.
    let complete = !by_name.contains_key("");
    for (path, module) in modules {
        for (name, requirement) in &module.dependencies {
            let field = format!("dependencies.{name}");
            let Some(position) = by_name.get(name.as_str()) else {
                if complete {
                    let detail = format!("the image has no module `{}`", printable(name));
                    findings.add_field(ViolationCode::DependencyMissing, path, &field, detail);
                }
                continue;
            };
            let version = &modules[*position].1.version;
            if !requirement.matches(version) {
                let detail = format!("`{requirement}` is asked for, the image has {version}");
                findings.add_field(ViolationCode::DependencyVersion, path, &field, detail);
            }
        }
    }
    let mut waiting: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, position) in &by_name {
        let dependencies = modules[*position].1.dependencies.keys().map(String::as_str);
        waiting.insert(name, dependencies.filter(|d| by_name.contains_key(d)).collect());
    }
    let mut order = Vec::new();
    while !waiting.is_empty() {
        let ready = waiting.iter().find(|(_, dependencies)| dependencies.is_empty());
        if let Some(name) = ready.map(|(name, _)| *name) {
            order.push(by_name[name]);
            remove(&mut waiting, name);
            continue;
        }
        let cycle = cycle(&waiting);
        let (path, _) = &modules[by_name[cycle[0]]];
        let detail = format!("{} -> {}", cycle.join(" -> "), cycle[0]);
        findings.add_field(ViolationCode::DependencyCycle, path, "dependencies", detail);
        for name in cycle {
            remove(&mut waiting, name);
        }
    }
    order
}

/// Takes a module out of those that wait and out of what they wait for.
fn remove<'a>(waiting: &mut BTreeMap<&'a str, BTreeSet<&'a str>>, name: &'a str) {
    waiting.remove(name);
    for dependencies in waiting.values_mut() {
        dependencies.remove(name);
    }
}

/// A cycle among modules that all wait for each other, beginning with its first name.
fn cycle<'a>(waiting: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<&'a str> {
    let mut walk: Vec<&str> = Vec::new();
    let mut next = waiting.keys().next().copied();
    while let Some(name) = next {
        if let Some(start) = walk.iter().position(|passed| *passed == name) {
            let mut cycle = walk.split_off(start);
            let first = cycle.iter().enumerate().min_by_key(|(_, name)| **name);
            let first = first.map_or(0, |(position, _)| position);
            cycle.rotate_left(first);
            return cycle;
        }
        walk.push(name);
        // Nobody here is ready, so everybody waits for somebody who is here.
        next = waiting.get(name).and_then(|dependencies| dependencies.first().copied());
    }
    walk
}
