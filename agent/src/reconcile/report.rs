//! What control is told of a job: made again in every round, noted when it differs from the last.

use model::{Digest, JobError, OnDisconnect, Phase, Report, Revision};

use super::failure::reason;
use super::job::{Turn, same_program};
use super::{Busy, Found};
use crate::guard::state::{ExitReason, Phase as GuardPhase};
use crate::memory::{Accepted, Record};

/// Notes a report if there is something new to say.
pub(super) fn report(turn: &mut Turn<'_>, order: &Accepted) {
    let (spec_revision, image) = running(turn, order);
    let launch = turn.job.launch.as_ref().filter(|last| last.assignment == order.assignment);
    let report = Report {
        key: turn.key.clone(),
        assignment: order.assignment,
        order: order.scheduled.revision,
        phase: phase(turn, order),
        spec_revision,
        image,
        restarts: launch.map_or(0, |last| last.starts.saturating_sub(1)),
        data_left_behind: launch.is_some_and(|last| last.data_left_behind),
        error: error(turn, order),
    };
    if turn.job.reported.as_ref() != Some(&report) {
        turn.note(Record::Reported { report });
    }
}

/// The phase, from what the driver says and what is under way.
fn phase(turn: &Turn<'_>, order: &Accepted) -> Phase {
    let up = turn.found.filter(|found| found.is_up());
    if !order.scheduled.active {
        return if up.is_some() || turn.is_moving() { Phase::Stopping } else { Phase::Stopped };
    }
    if turn.is_done() {
        return Phase::Stopped;
    }
    let effort = turn.effort(order);
    if effort.is_some_and(|effort| effort.permanent || effort.fell_back) {
        return Phase::Failed;
    }
    let goal = turn.goal(order);
    match (turn.busy, up) {
        (Some(Busy::Stopping), _) => Phase::Stopping,
        (Some(Busy::Starting), _) => Phase::Starting,
        (busy, Some(found)) if turn.runs(order, &goal) => match (found.phase, busy) {
            (GuardPhase::Running, _) => Phase::Running,
            (GuardPhase::Stopping, _) => Phase::Stopping,
            (GuardPhase::Prepared | GuardPhase::Starting | GuardPhase::Exited, _) => {
                Phase::Starting
            }
        },
        (Some(Busy::Fetching(_)), _) => Phase::Downloading,
        (None, _) if effort.is_some() || lease_ended(turn) => Phase::Failing,
        (None, _) => Phase::Accepted,
    }
}

/// The spec and image that run; while nothing runs, those that are meant to.
fn running(turn: &Turn<'_>, order: &Accepted) -> (Revision, Digest) {
    let goal = turn.goal(order);
    let meant = (goal.spec_revision, goal.image);
    let Some(found) = turn.found.filter(|found| found.is_up()) else {
        return meant;
    };
    if let Some(launch) = turn.launch_of(found) {
        let adopted = same_program(&launch.workload, &goal);
        let spec_revision = if adopted { goal.spec_revision } else { found.spec_revision };
        return (spec_revision, launch.workload.image);
    }
    let spec_revision = found.spec_revision;
    let good = turn.job.good.as_ref().filter(|good| good.spec_revision == spec_revision);
    let said = turn.job.reported.as_ref().filter(|said| said.spec_revision == spec_revision);
    match (good, said) {
        (Some(good), _) => (spec_revision, good.image),
        (None, Some(said)) => (spec_revision, said.image),
        (None, None) => (spec_revision, meant.1),
    }
}

/// The last error, until what runs has run long enough.
fn error(turn: &Turn<'_>, order: &Accepted) -> Option<JobError> {
    if !order.scheduled.active {
        return None;
    }
    let settled = |found: &Found| {
        let age = turn.world.now_boot_ms.saturating_sub(found.started_at_boot_ms);
        let asked = turn.runs(order, &order.scheduled.workload);
        asked && found.phase == GuardPhase::Running && age >= turn.world.tuning.settle_ms
    };
    match turn.effort(order) {
        Some(effort) if effort.fell_back => Some(effort.error.clone()),
        Some(_) if turn.found.is_some_and(settled) => None,
        Some(effort) => Some(effort.error.clone()),
        None if lease_ended(turn) => Some(JobError {
            reason: reason(ExitReason::LeaseExpired).to_owned(),
            text: "stopped at the end of the host's lease; starts under a new one".to_owned(),
            retryable: true,
            attempt: 0,
        }),
        None => None,
    }
}

/// Whether it is down because the host's lease ended, and waits for another.
fn lease_ended(turn: &Turn<'_>) -> bool {
    let ended = |found: &Found| {
        found.exit.as_ref().is_some_and(|exit| exit.reason == ExitReason::LeaseExpired)
    };
    let order = turn.job.order.as_ref();
    let fenced =
        order.is_some_and(|order| order.scheduled.workload.on_disconnect == OnDisconnect::Stop);
    fenced && turn.busy.is_none() && turn.found.is_some_and(ended)
}
