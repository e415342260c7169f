//! Why a job fits nowhere: hosts counted by the first rule they fail, with the first few names.
//!
//! The text follows from the state alone, so that planning again says the same and proposes nothing.

use std::collections::BTreeMap;

use model::{Job, JobKey, Obstacle, State, feasible};

use super::field::Field;

/// Names shown per rule.
const NAMES_MAX: usize = 3;

/// One line, shorter than the longest text of a trouble, such as
/// `no host fits: 2 out of contact (edge-1, edge-2), 1 not enough memory (edge-3)`.
pub(super) fn text(state: &State, field: &Field<'_>, key: &JobKey, job: &Job) -> String {
    let mut failing: BTreeMap<Option<Obstacle>, (usize, Vec<&str>)> = BTreeMap::new();
    for host in field.hosts() {
        let name = field.name(host);
        let obstacle = feasible(state, key, &job.workload, name, field.usage(host)).err();
        let (count, names) = failing.entry(obstacle).or_default();
        *count += 1;
        if names.len() < NAMES_MAX {
            names.push(name.as_str());
        }
    }
    if failing.is_empty() {
        return "no host fits: the cluster has none".to_owned();
    }
    let rules = failing.iter().map(|(obstacle, (count, names))| {
        let rule = obstacle.map_or("still holds an earlier copy", Obstacle::as_str);
        let more = if *count > names.len() { ", ..." } else { "" };
        format!("{count} {rule} ({}{more})", names.join(", "))
    });
    format!("no host fits: {}", rules.collect::<Vec<_>>().join("; "))
}
