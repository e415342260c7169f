//! Failures: how they are counted, when the next attempt is due, and when to fall back.

use model::{JobError, JobKey, Scheduled};
use planner::retry;

use super::Tuning;
use super::job::same_program;
use crate::guard::state::{ExitReason, JobExit};
use crate::memory::{Effort, JobMemory, Memory, Record};

/// Longest text of an error in a report, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;

/// Where a step failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Fetching the image: what runs was not touched.
    Fetch,
    /// Nothing was tried, because too little of the lease is left: no failure of the job.
    Lease,
    /// Nothing was tried, because the order changed meanwhile: it says nothing about the new one.
    Withdrawn,
    /// Preparing or starting.
    Start,
    /// It ran and ended.
    Run,
}

/// A failure of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Where.
    pub stage: Stage,
    /// Reason in one word, as in [`JobError::reason`].
    pub reason: String,
    /// One line for a person.
    pub text: String,
    /// The same order will fail again on this host.
    pub permanent: bool,
}

/// The records of a step that failed: to be written, synced and applied. Empty when the job has no
/// order to run any more, or when what failed was a stop: the next round tries that again.
pub fn failed(
    memory: &Memory,
    key: &JobKey,
    failure: &Failure,
    now_boot_ms: u64,
    tuning: &Tuning,
) -> Vec<Record> {
    let mut records = Vec::new();
    if let Some(job) = memory.job(key) {
        if failure.stage != Stage::Fetch {
            records.push(Record::Ended { key: key.clone() });
        }
        let tried = failure.stage != Stage::Withdrawn;
        if let Some(order) = job.order.as_ref().filter(|order| tried && order.scheduled.active) {
            let effort = count(key, job, &order.scheduled, failure, (now_boot_ms, tuning));
            records.push(Record::Tried { key: key.clone(), effort });
        }
    }
    records
}

/// The effort after one more failure.
pub(super) fn count(
    key: &JobKey,
    job: &JobMemory,
    order: &Scheduled,
    failure: &Failure,
    (now_boot_ms, tuning): (u64, &Tuning),
) -> Effort {
    let before = job.effort.as_ref().filter(|effort| effort.order == order.revision);
    let tried = u32::from(!matches!(failure.stage, Stage::Lease | Stage::Withdrawn));
    let attempt = before.map_or(0, |effort| effort.attempt).saturating_add(tried);
    let ran = u32::from(matches!(failure.stage, Stage::Start | Stage::Run));
    let failed_runs = before.map_or(0, |effort| effort.failed_runs).saturating_add(ran);
    let fell_back = before.is_some_and(|effort| effort.fell_back)
        || (failure.permanent || failed_runs >= tuning.fallback_after)
            && job.good.as_ref().is_some_and(|good| !same_program(good, &order.workload));
    let permanent = failure.permanent && !fell_back;
    // A guard that was lost, by a kill or a reboot, says nothing about the job: start it at once.
    let at_once = attempt == 1 && failure.reason == reason(ExitReason::GuardLost);
    let newly_back = fell_back && !before.is_some_and(|effort| effort.fell_back);
    let delay = match at_once || newly_back {
        true => 0,
        false => retry::next_delay_ms(retry::hash_of(key), attempt),
    };
    let next = match (permanent, newly_back, delay) {
        (true, ..) => "not tried again until the order changes".to_owned(),
        (false, true, _) => "the previous workload is started again".to_owned(),
        (false, false, 0) => "tried again at once".to_owned(),
        (false, false, delay) => {
            format!("next attempt in {}.{} s", delay / 1_000, delay / 100 % 10)
        }
    };
    let error = match (before, fell_back && !newly_back) {
        // What matters is why the update failed, not what befell the old workload since.
        (Some(before), true) => JobError { attempt, ..before.error.clone() },
        _ => JobError {
            reason: failure.reason.clone(),
            text: shortened(&format!("{}; {next}", failure.text)),
            retryable: !permanent && !fell_back,
            attempt,
        },
    };
    Effort {
        order: order.revision,
        attempt,
        failed_runs,
        next_at_boot_ms: now_boot_ms.saturating_add(delay),
        permanent,
        fell_back,
        error,
    }
}

/// The failure an exit is, if it is one: being told to stop and the end of a lease are none.
pub(super) fn of_exit(exit: Option<&JobExit>) -> Option<Failure> {
    let (why, text) = match exit {
        Some(exit) => (exit.reason, exit.message.clone()),
        None => (ExitReason::GuardLost, "the driver does not know how the job ended".to_owned()),
    };
    match why {
        ExitReason::Stopped | ExitReason::LeaseExpired => None,
        ExitReason::Completed
        | ExitReason::Crashed
        | ExitReason::Oom
        | ExitReason::StartFailed
        | ExitReason::GuardLost => Some(Failure {
            stage: Stage::Run,
            reason: reason(why).to_owned(),
            text,
            permanent: false,
        }),
    }
}

/// The word for an exit in reports.
pub(super) fn reason(exit: ExitReason) -> &'static str {
    match exit {
        ExitReason::Completed => "COMPLETED",
        ExitReason::Crashed => "CRASHED",
        ExitReason::Oom => "OOM",
        ExitReason::Stopped => "STOPPED",
        ExitReason::LeaseExpired => "LEASE_EXPIRED",
        ExitReason::StartFailed => "DRIVER",
        ExitReason::GuardLost => "GUARD_LOST",
    }
}

fn shortened(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
