//! No host is given more than it has: counted from placements, not from the model's own index.
//!
//! A host whose capacity shrank may hold more than it has now; capacities do not change here.

use super::Found;
use model::{Change, Key, Name, Resources, Row, State};
use std::collections::BTreeSet;

/// Hosts that got a placement have room for all they hold.
pub(super) fn kept(state: &State, changes: &[Change]) -> Found {
    let mut hosts: BTreeSet<(&Name, &Name)> = BTreeSet::new();
    for change in changes {
        if let (Key::Job(key), Some(Row::Job(job))) = (&change.key, &change.after) {
            hosts.extend(job.placements.iter().map(|it| (&key.tenant, &it.host)));
        }
    }
    for (tenant, host) in hosts {
        let Some(row) = state.host(tenant, host) else {
            return Err(format!("a job is on {host}, which is not there"));
        };
        let mut sum = Resources::default();
        for (_, job) in state.jobs_on(tenant, host) {
            for placement in job.placements.iter().filter(|it| it.host == *host) {
                sum.cpu_millis += placement.scheduled.workload.limits.cpu_millis;
                sum.memory_bytes += placement.scheduled.workload.limits.memory_bytes;
            }
        }
        let over = sum.cpu_millis > row.capacity.cpu_millis
            || sum.memory_bytes > row.capacity.memory_bytes;
        if over {
            return Err(format!("host {host} has {:?} and holds {sum:?}", row.capacity));
        }
    }
    Ok(())
}
