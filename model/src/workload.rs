//! From what a deployment asks to what each job is to run: pure derivation (PART-10).

use crate::{
    Application, DeploymentSpec, Job, JobKey, Name, Revision, Slot, State, Value, Workload,
    feasible, index::in_contact,
};
use std::{collections::BTreeMap, sync::Arc};

/// The applications of a spec with what they run, spec revision left at 0. Empty if the package is
/// not there.
pub(crate) fn applications(
    state: &State,
    tenant: &Name,
    spec: &DeploymentSpec,
) -> Vec<(Name, Workload)> {
    let at = (tenant.clone(), spec.package.clone(), spec.version.clone());
    let Some(package) = state.packages.get(&at) else { return Vec::new() };
    let one = |application| (Application::name_of(application), workload(application, spec));
    package.applications.iter().map(one).collect()
}

impl Application {
    fn name_of(&self) -> Name {
        self.name.clone()
    }
}

fn workload(application: &Application, spec: &DeploymentSpec) -> Workload {
    let changes = spec.overrides.get(&application.name);
    let mut env: BTreeMap<String, Value> = application.env.clone();
    env.extend(changes.into_iter().flat_map(|changes| changes.env.clone()));
    let main = application.artifacts.iter().find(|(role, _)| role.as_str() == "main");
    let num_partitions = changes.and_then(|changes| changes.num_partitions);
    Workload {
        spec_revision: Revision::default(),
        version: application.version.clone(),
        driver: application.driver,
        num_partitions: num_partitions.unwrap_or(application.num_partitions),
        image: main.map_or(crate::Digest([0; 32]), |(_, digest)| *digest),
        limits: changes.and_then(|changes| changes.limits).unwrap_or(application.limits),
        on_disconnect: application.on_disconnect,
        stop_grace_ms: application.stop_grace_ms,
        env,
        zones: application.zones.clone(),
    }
}

/// Keys of the jobs of a deployment that should exist, or still exist and must go, in key order.
/// The planner compares them with what is there.
pub fn expected_jobs(state: &State, tenant: &Name, deployment: &Name) -> Vec<JobKey> {
    let mut keys: Vec<JobKey> =
        state.jobs_of(tenant, deployment).map(|(key, _)| key.clone()).collect();
    for ((_, _, cluster), part) in state.parts_of(tenant, deployment) {
        if !part.targeted {
            continue;
        }
        for ((_, _, application), workload) in state.workloads_of(tenant, deployment) {
            keys.extend((0..workload.num_partitions).map(|partition| JobKey {
                tenant: tenant.clone(),
                deployment: deployment.clone(),
                cluster: cluster.clone(),
                application: application.clone(),
                slot: Slot::Partition(partition),
            }));
        }
    }
    keys.retain({
        let wanted = state
            .deployments
            .get(&(tenant.clone(), deployment.clone()))
            .is_some_and(|row| row.meta.deletion.is_none());
        move |key| wanted || state.jobs.contains(key)
    });
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// What a job is to run; `None` if it should not be active.
pub fn expected_workload(state: &State, key: &JobKey) -> Option<Arc<Workload>> {
    let JobKey { tenant, deployment, cluster, application, slot } = key;
    let row = state.deployments.get(&(tenant.clone(), deployment.clone()))?;
    let at = (tenant.clone(), deployment.clone(), cluster.clone());
    let part = state.deployment_clusters.get(&at)?;
    if row.meta.deletion.is_some() || !part.targeted {
        return None;
    }
    let at = (tenant.clone(), deployment.clone(), application.clone());
    let workload = state.index.workloads.get(&at)?;
    match slot {
        Slot::Partition(n) => (*n < workload.num_partitions).then(|| workload.clone()),
        Slot::Host(_) | Slot::Run(_) => None,
    }
}

/// What `SyncJobs` has to do for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Nothing,
    /// Create it.
    Create,
    /// Give it the workload its deployment asks for now, or make it active again.
    Update,
    /// Make it inactive.
    Retire,
    /// End copies: of a job that goes on, on hosts that do not fit or beside a newer copy; of any,
    /// on hosts that cannot be asked and need not be.
    Prune,
    /// Take the row away: it is inactive and nothing is left of it.
    Remove,
}

/// The next step for a job. `SyncJobs` takes steps until there is nothing to do.
pub(crate) fn step(state: &State, key: &JobKey) -> Step {
    match (state.jobs.get(key), expected_workload(state, key)) {
        (None, None) => Step::Nothing,
        (None, Some(_)) => Step::Create,
        (Some(job), None) if job.active => Step::Retire,
        (Some(job), None) if job.placements.is_empty() => Step::Remove,
        // Before an update: a copy that no longer belongs on its host ends whatever a rollout allows.
        (Some(job), _) if !superfluous(state, key, job).is_empty() => Step::Prune,
        (Some(job), Some(workload)) if !job.active || job.workload != workload => Step::Update,
        (Some(_), _) => Step::Nothing,
    }
}

/// Whether `SyncJobs` would change nothing about this job.
pub fn is_in_line(state: &State, key: &JobKey) -> bool {
    step(state, key) == Step::Nothing
}

/// Whether all that `SyncJobs` would do to a job is to give it another workload: what a rollout
/// holds back. Copies that have to end first make it more than that.
pub fn is_update(state: &State, key: &JobKey) -> bool {
    step(state, key) == Step::Update && state.jobs.get(key).is_some_and(|job| job.active)
}

/// A copy that is to end, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its host is told to stop it.
    Retire(crate::event::Retirement),
    /// It is taken away without asking.
    Drop,
}

/// Copies of a job that have to end now, by their position.
pub(crate) fn superfluous(state: &State, key: &JobKey, job: &Job) -> Vec<(usize, End)> {
    use crate::event::Retirement;
    let mut ends = Vec::new();
    let newest_runs = job.placements.last().is_some_and(|newest| {
        let host = state.host(&key.tenant, &newest.host);
        let runs = newest.current.as_ref().is_some_and(|c| c.phase == crate::Phase::Running);
        newest.scheduled.active && runs && host.is_some_and(in_contact)
    });
    for (position, placement) in job.placements.iter().enumerate() {
        let host = state.host(&key.tenant, &placement.host);
        let seen = host.is_some_and(in_contact);
        let distrusted = host.is_none_or(|host| host.state == crate::HostState::Untrusted);
        if !seen && (distrusted || forced(state, key, &placement.host, job.active)) {
            ends.push((position, End::Drop));
        } else if placement.scheduled.active {
            let older = position + 1 < job.placements.len();
            if feasible::belongs(state, key, &placement.host).is_err() {
                ends.push((position, End::Retire(Retirement::Unfit)));
            } else if older && newest_runs && seen {
                ends.push((position, End::Retire(Retirement::Duplicate)));
            }
        }
    }
    ends
}

/// Whether a copy on `host` goes by force: its host is deleted by force, or the job is on its way
/// out with something that is.
fn forced(state: &State, key: &JobKey, host: &Name, active: bool) -> bool {
    let by = |meta: Option<&crate::Meta>| {
        meta.and_then(|meta| meta.deletion.as_ref()).is_some_and(|deletion| deletion.force)
    };
    let at = |name: &Name| (key.tenant.clone(), name.clone());
    by(state.hosts.get(&at(host)).map(|row| &row.meta))
        || !active
            && (by(state.deployments.get(&at(&key.deployment)).map(|row| &row.meta))
                || by(state.clusters.get(&at(&key.cluster)).map(|row| &row.meta)))
}
