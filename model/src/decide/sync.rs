//! `SyncJobs`: each job is brought in line with what its deployment asks, step by step.

use super::{Decided, Decision};
use crate::{
    Event, Job, JobKey, OnDisconnect, Placement, Rejection, Removal, Reply, Retirement, State,
    Workload, expected_workload,
    feasible::{able, fits},
    rejection::Code,
    tally::{Standing, standing},
    workload::{End, Step, step, superfluous},
};

/// More steps than any job needs; a guard against a loop.
const STEPS_MAX: usize = 8;

impl Decision<'_> {
    pub(super) fn sync_jobs(&mut self, keys: &[JobKey]) -> Decided {
        Ok(Reply::Items(keys.iter().map(|key| self.sync_job(key)).collect()))
    }

    fn sync_job(&mut self, key: &JobKey) -> Result<(), Rejection> {
        let mut pruned = false;
        for _ in 0..STEPS_MAX {
            match step(&self.state, key) {
                Step::Nothing => return Ok(()),
                Step::Create => {
                    let uid = self.next_uid();
                    self.emit(Event::JobCreated { key: key.clone(), uid });
                }
                Step::Update => match self.update_job(key) {
                    // What was done stands; the update waits for its turn.
                    Err(_) if pruned => return Ok(()),
                    updated => updated?,
                },
                Step::Retire => self.emit(Event::JobRetired { key: key.clone() }),
                Step::Prune => {
                    self.prune_job(key);
                    pruned = true;
                }
                Step::Remove => self.emit(Event::JobRemoved { key: key.clone() }),
            }
        }
        debug_assert!(false, "job {key} takes more than {STEPS_MAX} steps");
        Ok(())
    }

    fn update_job(&mut self, key: &JobKey) -> Result<(), Rejection> {
        let (Some(job), Some(workload)) =
            (self.state.jobs.get(key).cloned(), expected_workload(&self.state, key))
        else {
            return Ok(());
        };
        let runs = matches!(standing(&self.state, &key.tenant, &job), Standing::Running(_));
        if runs && rollout_room(&self.state, key) == 0 {
            return Err(Code::RolloutLimit
                .reject(format!("job {key} cannot be updated while others are not running"))
                .at("strategy.max_unavailable"));
        }
        let active = || job.placements.iter().filter(|placement| placement.scheduled.active);
        let newest = active().next_back().map(|placement| placement.assignment);
        for placement in active() {
            // Only `replace` jobs may go on with several copies.
            let alone = Some(placement.assignment) == newest;
            let shared = workload.on_disconnect == OnDisconnect::Replace;
            if !(alone || shared) || !self.stays(key, placement, &workload) {
                self.emit(Event::PlacementRetired {
                    key: key.clone(),
                    assignment: placement.assignment,
                    why: Retirement::Unfit,
                });
            }
        }
        let revived = job.placements.last().filter(|_| !job.active);
        let revived = revived.filter(|placement| self.stays(key, placement, &workload));
        let revived = revived.map(|placement| placement.assignment);
        self.emit(Event::JobUpdated { key: key.clone(), revived });
        Ok(())
    }

    /// Whether a copy may go on with another workload where it is. A copy that becomes a `stop` job
    /// does not stay: its host, if it is out of contact, would not know.
    fn stays(&self, key: &JobKey, placement: &Placement, workload: &Workload) -> bool {
        let before = &placement.scheduled.workload;
        let stop = |workload: &Workload| workload.on_disconnect == OnDisconnect::Stop;
        if stop(workload) && !stop(before) {
            return false;
        }
        if able(&self.state, key, workload, &placement.host).is_err() {
            return false;
        }
        let grew = workload.limits.cpu_millis > before.limits.cpu_millis
            || workload.limits.memory_bytes > before.limits.memory_bytes;
        let Some(host) = self.state.host(&key.tenant, &placement.host).filter(|_| grew) else {
            return true;
        };
        let mut usage = self.state.usage(&key.tenant, &placement.host);
        usage.cpu_millis = usage.cpu_millis.saturating_sub(before.limits.cpu_millis);
        usage.memory_bytes = usage.memory_bytes.saturating_sub(before.limits.memory_bytes);
        fits(workload.limits, usage, host.capacity).is_ok()
    }

    fn prune_job(&mut self, key: &JobKey) {
        let Some(job) = self.state.jobs.get(key) else { return };
        let ends: Vec<_> = superfluous(&self.state, key, job)
            .into_iter()
            .filter_map(|(at, end)| Some((job.placements.get(at)?.assignment, end)))
            .collect();
        for (assignment, end) in ends {
            let key = key.clone();
            self.emit(match end {
                End::Retire(why) => Event::PlacementRetired { key, assignment, why },
                End::Drop => Event::PlacementRemoved { key, assignment, why: Removal::Dropped },
            });
        }
    }

    /// Takes the row of a job that is not to run and of which nothing is left.
    pub(super) fn remove_if_empty(&mut self, key: &JobKey) {
        let empty = |job: &Job| !job.active && job.placements.is_empty();
        if self.state.jobs.get(key).is_some_and(empty) {
            self.emit(Event::JobRemoved { key: key.clone() });
        }
    }
}

/// How many running partitions of the job's application on its cluster may be updated now: what
/// `strategy.max_unavailable` leaves after those that do not run. Partitions on hosts out of contact
/// do not count: no update put them there.
pub fn rollout_room(state: &State, key: &JobKey) -> u64 {
    let JobKey { tenant, deployment, cluster, application, .. } = key;
    let (Some(row), Some(workload)) =
        (state.deployment(tenant, deployment), expected_workload(state, key))
    else {
        return u64::MAX;
    };
    let at = (tenant.clone(), deployment.clone(), cluster.clone(), application.clone());
    let (available, unknown) =
        state.index.tallies.get(&at).map_or((0, 0), |tally| (tally.available(), tally.unknown));
    let total = u64::from(workload.num_partitions);
    let unavailable = total.saturating_sub(available).saturating_sub(unknown);
    u64::from(row.spec.strategy.max_unavailable).saturating_sub(unavailable)
}
