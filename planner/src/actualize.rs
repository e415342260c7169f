//! From deployments to jobs (PART-10): which jobs are to be created, updated, retired or removed.
//!
//! `SyncJobs` carries only keys; what each job becomes is derived by `decide`. Creations and
//! retirements are proposed at once; updates of running jobs as the rollout allows.

use model::{
    Caller, Command, Globals, JobKey, Name, Stamp, State, expected_jobs, is_in_line, is_update,
};

use crate::{Plan, Report, chunk::chunks, rollout};

/// `SyncJobs` for every job of a deployment, or of all deployments of the tenant, that is not as
/// its deployment asks and may change now.
pub fn actualize(state: &State, tenant: &Name, deployment: Option<&Name>) -> Plan {
    let mut report = Report::default();
    let mut keys = Vec::new();
    let deployments: Vec<&Name> = match deployment {
        Some(deployment) => vec![deployment],
        None => deployments_of(state, tenant),
    };
    for deployment in deployments {
        let (mut now, mut updates) = (Vec::new(), Vec::new());
        for key in expected_jobs(state, tenant, deployment) {
            if !is_in_line(state, &key) {
                if is_update(state, &key) { &mut updates } else { &mut now }.push(key);
            }
        }
        if !updates.is_empty() {
            let turn = rollout::turn(&after(state, &now), updates);
            report.held_back += turn.held_back;
            report.out_of_contact += turn.out_of_contact;
            now.extend(turn.go);
        }
        keys.extend(now);
    }
    sync(keys, report)
}

/// The state once these jobs are in line: copies that end leave less room for updates.
fn after(state: &State, keys: &[JobKey]) -> State {
    let mut fork = state.clone();
    let Globals { time, rules, .. } = state.globals;
    let stamp = Stamp { time, rules, caller: Caller::System, request_id: None };
    for keys in chunks(keys.to_vec()) {
        fork.apply(&stamp, &Command::SyncJobs { keys });
    }
    fork
}

/// `SyncJobs` for jobs on one cluster that are to end, or copies of them.
pub(crate) fn on_cluster(state: &State, tenant: &Name, cluster: &Name) -> Plan {
    let jobs = state.jobs_in(tenant, cluster).map(|(key, _)| key);
    let ending = jobs.filter(|key| !is_in_line(state, key) && !is_update(state, key));
    sync(ending.cloned().collect(), Report::default())
}

fn sync(keys: Vec<JobKey>, mut report: Report) -> Plan {
    report.synced += keys.len();
    let commands = chunks(keys).into_iter().map(|keys| Command::SyncJobs { keys }).collect();
    Plan { commands, report }
}

/// Deployments of a tenant, in order.
fn deployments_of<'a>(state: &'a State, tenant: &Name) -> Vec<&'a Name> {
    // The first of all names in order.
    let first = Name::new("0").unwrap_or_else(|_| tenant.clone());
    let from = (tenant.clone(), first);
    let rows = state.deployments.range(from..).map(|(key, _)| key);
    rows.take_while(|(of, _)| of == tenant).map(|(_, name)| name).collect()
}
