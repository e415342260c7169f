//! Which running jobs may be updated now.
//!
//! Of each application on each cluster at most `strategy.max_unavailable` jobs are down at once
//! because of an update; how many more may go now is `model::rollout_room`'s to say, which counts a
//! job as up again when it has run as asked for the anti-flap time. So an update that does not run
//! stops the rollout after `max_unavailable` jobs. A job that does not run anyway is updated at once.
//! One on a host out of contact waits for its return: it could not act on the update now, and would
//! go down together with all others when it comes back.

use std::collections::BTreeMap;

use model::{Contact, Job, JobKey, Name, Phase, Placement, State, rollout_room};

/// What a rollout does next.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// Jobs to update now.
    pub(crate) go: Vec<JobKey>,
    /// Jobs that wait for others.
    pub(crate) held_back: usize,
    /// Jobs that wait for their host.
    pub(crate) out_of_contact: usize,
}

/// How a job stands in a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// A copy runs as told, for long enough.
    Up,
    /// None does, so an update takes nothing away.
    Down,
    /// All its copies are on hosts out of contact.
    Away,
}

/// Chooses among `updates`, jobs whose workload is to change, in key order.
pub(crate) fn turn(state: &State, updates: Vec<JobKey>) -> Turn {
    let mut turn = Turn::default();
    let mut room: BTreeMap<(Name, Name, Name), u64> = BTreeMap::new();
    for key in updates {
        let Some(job) = state.jobs.get(&key) else { continue };
        match standing(state, &key, job) {
            Standing::Away => turn.out_of_contact += 1,
            Standing::Down => turn.go.push(key),
            Standing::Up => {
                let JobKey { deployment, cluster, application, .. } = &key;
                let group = (deployment.clone(), cluster.clone(), application.clone());
                let room = room.entry(group).or_insert_with(|| rollout_room(state, &key));
                if *room == 0 {
                    turn.held_back += 1;
                } else {
                    *room -= 1;
                    turn.go.push(key);
                }
            }
        }
    }
    turn
}

fn standing(state: &State, key: &JobKey, job: &Job) -> Standing {
    let seen = |placement: &&Placement| {
        let host = state.host(&key.tenant, &placement.host);
        host.is_some_and(|host| matches!(host.contact, Contact::Connected { .. }))
    };
    let active = || job.placements.iter().filter(|placement| placement.scheduled.active);
    match () {
        () if active().filter(seen).any(runs) => Standing::Up,
        () if active().next().is_some() && !active().any(|placement| seen(&placement)) => {
            Standing::Away
        }
        () => Standing::Down,
    }
}

/// Whether a copy, as far as is known, runs what the job asks: then nothing is wrong with the job
/// but contact.
pub(crate) fn runs_as_asked(job: &Job) -> bool {
    let asked = job.workload.spec_revision;
    let active = job.placements.iter().filter(|copy| copy.scheduled.active);
    active.filter(|copy| copy.scheduled.workload.spec_revision == asked).any(runs)
}

/// Whether a copy runs what it was told, for the anti-flap time.
fn runs(placement: &Placement) -> bool {
    placement.current.as_ref().is_some_and(|current| {
        current.phase == Phase::Running
            && current.settled
            && current.spec_revision == placement.scheduled.workload.spec_revision
    })
}
