//! Who gets which host: assignment, its refusal, eviction.

use super::{Decided, Decision, check};
use crate::{
    Assign, Assignment, Event, Job, JobKey, Name, OnDisconnect, Placement, Rejection, Removal,
    Reply, Revision, State, expected_workload, feasible,
    index::{in_contact, is_replaceable},
    limits::TEXT_MAX_BYTES,
    rejection::Code,
};

/// Most copies of a `replace` job, those on lost hosts included.
const COPIES_MAX: usize = 8;

impl Decision<'_> {
    pub(super) fn assign_jobs(&mut self, items: &[Assign]) -> Decided {
        Ok(Reply::Items(items.iter().map(|item| self.assign_job(item)).collect()))
    }

    fn assign_job(&mut self, item: &Assign) -> Result<(), Rejection> {
        let Assign { key, host, seen } = item;
        let job = self.need_job(key, *seen)?;
        if job.revision == self.context.revision {
            return Err(stale(key, job.revision));
        }
        self.need_wanted(key, job)?;
        let here = |placement: &Placement| placement.host == *host;
        if !is_placeable(&self.state, key) || job.placements.iter().any(here) {
            return Err(placed(key));
        }
        let usage = self.state.usage(&key.tenant, host);
        feasible(&self.state, key, &job.workload, host, usage).map_err(|obstacle| {
            Code::Unfeasible
                .reject(format!("job {key} cannot run on host {host}: {obstacle}"))
                .at("host")
                .with("obstacle", obstacle)
        })?;
        self.emit(Event::JobAssigned { key: key.clone(), host: host.clone() });
        Ok(())
    }

    pub(super) fn explain_jobs(&mut self, items: &[(JobKey, Revision, String)]) -> Decided {
        let explain = |(key, seen, text): &(JobKey, Revision, String)| {
            self.explain_job(key, *seen, check::cut(text, TEXT_MAX_BYTES))
        };
        Ok(Reply::Items(items.iter().map(explain).collect()))
    }

    fn explain_job(&mut self, key: &JobKey, seen: Revision, text: &str) -> Result<(), Rejection> {
        let job = self.need_job(key, seen)?;
        self.need_wanted(key, job)?;
        if !is_placeable(&self.state, key) {
            return Err(placed(key));
        }
        if job.trouble.as_ref().is_none_or(|trouble| trouble.text != text) {
            self.emit(Event::JobExplained { key: key.clone(), text: text.into() });
        }
        Ok(())
    }

    pub(super) fn evict_jobs(&mut self, items: &[(JobKey, Assignment)]) -> Decided {
        let evict = |(key, assignment): &(JobKey, Assignment)| self.evict_job(key, *assignment);
        Ok(Reply::Items(items.iter().map(evict).collect()))
    }

    fn evict_job(&mut self, key: &JobKey, assignment: Assignment) -> Result<(), Rejection> {
        let Some(job) = self.state.jobs.get(key) else {
            return Err(check::unknown(Code::UnknownJob, "job", key, "key"));
        };
        let Some(placement) = job.placements.iter().find(|it| it.assignment == assignment) else {
            return Err(stale(key, job.revision));
        };
        if !is_evictable(&self.state, &key.tenant, placement) {
            let policy = placement.scheduled.workload.on_disconnect.as_str();
            return Err(Code::NotEvictable
                .reject(format!("job {key} cannot be taken from host {}", placement.host))
                .at("assignment")
                .with("on_disconnect", policy));
        }
        let why = Removal::Evicted;
        self.emit(Event::PlacementRemoved { key: key.clone(), assignment, why });
        self.remove_if_empty(key);
        Ok(())
    }

    fn need_job(&self, key: &JobKey, seen: Revision) -> Result<&Job, Rejection> {
        let Some(job) = self.state.jobs.get(key) else {
            return Err(check::unknown(Code::UnknownJob, "job", key, "key"));
        };
        match job.revision == seen {
            true => Ok(job),
            false => Err(stale(key, job.revision)),
        }
    }

    fn need_wanted(&self, key: &JobKey, job: &Job) -> Result<(), Rejection> {
        match job.active && expected_workload(&self.state, key).is_some() {
            true => Ok(()),
            false => Err(Code::JobInactive.reject(format!("job {key} is not to run")).at("key")),
        }
    }
}

fn stale(key: &JobKey, current: Revision) -> Rejection {
    Code::StalePlan
        .reject(format!("job {key} has moved on to revision {current}"))
        .at("seen")
        .with("current_revision", current)
}

fn placed(key: &JobKey) -> Rejection {
    Code::Placed.reject(format!("job {key} has a host already")).at("key")
}

/// Whether a job may get (another) host now. Jobs under `stop` and `keep_running` have one copy at
/// most, and a copy that is still stopping counts; jobs under `replace` get another one when every
/// active copy is on a host that was lost for longer than the grace, or was declared lost.
pub fn is_placeable(state: &State, key: &JobKey) -> bool {
    let Some(job) = state.jobs.get(key) else { return false };
    if !job.active || job.placements.is_empty() {
        return job.active;
    }
    let replace = |policy: OnDisconnect| policy == OnDisconnect::Replace;
    let shared = replace(job.workload.on_disconnect)
        && job.placements.iter().all(|it| replace(it.scheduled.workload.on_disconnect));
    let given_up = |placement: &Placement| {
        !placement.scheduled.active || is_replaceable(state.host(&key.tenant, &placement.host))
    };
    shared && job.placements.len() < COPIES_MAX && job.placements.iter().all(given_up)
}

/// Whether a copy may be taken from its host: the host is out of contact, and either the policy the
/// copy was told of is `stop` (it is dead by now) or an operator declared the host lost.
pub fn is_evictable(state: &State, tenant: &Name, placement: &Placement) -> bool {
    let Some(host) = state.host(tenant, &placement.host) else { return true };
    if in_contact(host) {
        return false;
    }
    match placement.scheduled.workload.on_disconnect {
        OnDisconnect::Stop => true,
        OnDisconnect::KeepRunning | OnDisconnect::Replace => host.declared_lost,
    }
}
