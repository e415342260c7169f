//! When time alone changes a row next. Functions of the row, so that an index of them can be rebuilt.

use crate::{
    Contact, Deployment, Host, Job, Phase, Placement, Timestamp,
    limits::{ANTI_FLAP_MS, NO_TARGET_GRACE_MS, PROGRESS_DEADLINE_MS, REPLACE_GRACE_MS},
    tally,
};

/// Reason of the trouble of a job that missed its progress deadline.
pub(crate) const PROGRESS_DEADLINE: &str = "PROGRESS_DEADLINE";

/// When the copy has run long enough, if it runs and has not yet.
pub(crate) fn of_placement(placement: &Placement) -> Option<Timestamp> {
    let current = placement.current.as_ref()?;
    let waits = placement.scheduled.active && current.phase == Phase::Running && !current.settled;
    waits.then(|| current.since.plus_ms(ANTI_FLAP_MS))
}

/// When the job counts as stalled, if it does not run as asked and nothing worse is known.
pub(crate) fn of_progress(job: &Job) -> Option<Timestamp> {
    let stalled = tally::is_stalled(job) || tally::has_failed(job) || tally::runs_as_asked(job);
    (job.active && !stalled).then(|| job.progress_since.plus_ms(PROGRESS_DEADLINE_MS))
}

/// When time alone changes the job next.
pub(crate) fn of_job(job: &Job) -> Option<Timestamp> {
    job.placements.iter().filter_map(of_placement).chain(of_progress(job)).min()
}

/// When a deployment without targets gives up waiting for one.
pub(crate) fn of_deployment(deployment: &Deployment) -> Option<Timestamp> {
    let waits = deployment.in_progress && deployment.meta.deletion.is_none();
    let since = deployment.targetless_since.filter(|_| waits)?;
    Some(since.plus_ms(NO_TARGET_GRACE_MS))
}

/// When the `replace` jobs of a lost host may be replaced.
pub(crate) fn of_host(host: &Host) -> Option<Timestamp> {
    match host.contact {
        Contact::Lost { since, .. } if !host.replaceable => Some(since.plus_ms(REPLACE_GRACE_MS)),
        Contact::Lost { .. } | Contact::Connected { .. } | Contact::Never => None,
    }
}
