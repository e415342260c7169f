//! How a job stands, and how many jobs of an application stand how: what the rollup adds up.

use crate::{
    Job, JobError, Name, Phase, Placement, Revision, State, due::PROGRESS_DEADLINE,
    index::in_contact,
};
use std::collections::BTreeMap;

/// How one job stands. A function of its row and of whether its hosts are in contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Standing {
    /// Not to run; on its way out.
    Retired,
    /// A copy runs what it was told, at this spec revision, for longer than the anti-flap time.
    Running(Revision),
    /// None does, yet.
    Pending,
    /// None does that can be seen, and one is on a host out of contact.
    Unknown,
    /// A copy failed for good, at this spec revision.
    Failed(Revision),
    /// No progress within the deadline, at this spec revision.
    Stalled(Revision),
    /// None does: so many attempts failed at this spec revision, and another follows.
    Retrying(Revision, u32),
}

/// Number of jobs of one application on one cluster, by standing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// All job rows, retired ones too.
    pub(crate) rows: u64,
    /// Running, by spec revision.
    pub(crate) running: BTreeMap<Revision, u64>,
    /// On hosts out of contact.
    pub(crate) unknown: u64,
    /// Failed, by spec revision.
    pub(crate) failed: BTreeMap<Revision, u64>,
    /// Stalled.
    pub(crate) stalled: u64,
}

impl Tally {
    /// Counts one more.
    pub(crate) fn add(&mut self, standing: Standing) {
        self.rows += 1;
        match standing {
            Standing::Retired | Standing::Pending | Standing::Retrying(..) => {}
            Standing::Running(revision) => *self.running.entry(revision).or_default() += 1,
            Standing::Unknown => self.unknown += 1,
            Standing::Failed(revision) => *self.failed.entry(revision).or_default() += 1,
            Standing::Stalled(_) => self.stalled += 1,
        }
    }

    /// Counts one less.
    pub(crate) fn take(&mut self, standing: Standing) {
        self.rows -= 1;
        match standing {
            Standing::Retired | Standing::Pending | Standing::Retrying(..) => {}
            Standing::Running(revision) => take_one(&mut self.running, revision),
            Standing::Unknown => self.unknown -= 1,
            Standing::Failed(revision) => take_one(&mut self.failed, revision),
            Standing::Stalled(_) => self.stalled -= 1,
        }
    }

    /// Running at any spec revision.
    pub(crate) fn available(&self) -> u64 {
        self.running.values().sum()
    }
}

/// Counts one less at a revision.
fn take_one(counts: &mut BTreeMap<Revision, u64>, revision: Revision) {
    let left = counts.remove(&revision).unwrap_or(1) - 1;
    if left > 0 {
        counts.insert(revision, left);
    }
}

/// Whether the copy runs what it was told, long enough.
pub(crate) fn runs_as_told(placement: &Placement) -> bool {
    let Some(current) = &placement.current else { return false };
    let scheduled = &placement.scheduled;
    scheduled.active
        && current.phase == Phase::Running
        && current.settled
        && current.spec_revision == scheduled.workload.spec_revision
}

/// Whether a copy runs what the job asks, long enough, contact aside.
pub(crate) fn runs_as_asked(job: &Job) -> bool {
    let at = job.workload.spec_revision;
    let asked = |placement: &&Placement| placement.scheduled.workload.spec_revision == at;
    job.placements.iter().filter(asked).any(runs_as_told)
}

/// Whether a copy failed for good under the order in force.
pub(crate) fn failed_for_good(placement: &Placement) -> bool {
    let Some(current) = &placement.current else { return false };
    placement.scheduled.active
        && current.phase == Phase::Failed
        && current.order == placement.scheduled.revision
}

/// Whether any copy did.
pub(crate) fn has_failed(job: &Job) -> bool {
    job.placements.iter().any(failed_for_good)
}

/// The error under the order in force of the copy that was tried most often.
pub(crate) fn worst_error(job: &Job) -> Option<&JobError> {
    let active = job.placements.iter().filter(|placement| placement.scheduled.active);
    let errors = active.filter_map(|placement| {
        let current = placement.current.as_ref()?;
        let in_force = current.order == placement.scheduled.revision;
        current.error.as_deref().filter(|_| in_force)
    });
    errors.max_by_key(|error| error.attempt)
}

/// Whether the job missed its progress deadline.
pub(crate) fn is_stalled(job: &Job) -> bool {
    job.trouble.as_ref().is_some_and(|trouble| trouble.reason == PROGRESS_DEADLINE)
}

/// Whether something about a job failed or waits that may be tried at once: the job as a whole has
/// trouble, or a copy an error.
pub(crate) fn may_be_retried(job: &Job) -> bool {
    let wrong = job.trouble.is_some() || has_failed(job) || worst_error(job).is_some();
    job.active && wrong && !runs_as_asked(job)
}

/// How a job stands.
pub(crate) fn standing(state: &State, tenant: &Name, job: &Job) -> Standing {
    if !job.active {
        return Standing::Retired;
    }
    let seen = |placement: &Placement| state.host(tenant, &placement.host).is_some_and(in_contact);
    let active = || job.placements.iter().filter(|placement| placement.scheduled.active);
    let running = active().filter(|placement| runs_as_told(placement) && seen(placement));
    if let Some(newest) = running.map(|p| p.scheduled.workload.spec_revision).max() {
        Standing::Running(newest)
    } else if active().any(|placement| !seen(placement)) {
        Standing::Unknown
    } else if has_failed(job) {
        Standing::Failed(job.workload.spec_revision)
    } else if is_stalled(job) {
        Standing::Stalled(job.workload.spec_revision)
    } else {
        match worst_error(job).map_or(0, |error| error.attempt) {
            0 => Standing::Pending,
            attempt => Standing::Retrying(job.workload.spec_revision, attempt),
        }
    }
}
