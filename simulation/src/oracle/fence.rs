//! The fence: an agent never acts on an older assignment than the newest it took, across restarts of
//! agent and machine; control never takes a report under an assignment that is not in force.

use super::{Found, Oracles};
use agent::{
    memory::{Fence, Record},
    reconcile::Step,
};
use model::{Applied, Command, Event, Key, Reply, Row};

/// Notes orders an agent took.
pub(super) fn note(oracles: &mut Oracles, host: usize, records: &[Record]) {
    for record in records {
        if let Some((key, order)) = record.accepted() {
            let fence: Fence = order.fence();
            let newest = oracles.fences.entry((host, key.clone())).or_default();
            *newest = fence.max(*newest);
        }
    }
}

/// A start is under the newest assignment taken for the job.
pub(super) fn is_newest(oracles: &Oracles, host: usize, step: &Step) -> Found {
    let (Step::Start { key, assignment, .. } | Step::Replace { key, assignment, .. }) = step else {
        return Ok(());
    };
    let newest = oracles.fences.get(&(host, key.clone())).copied().unwrap_or_default();
    match *assignment >= newest.assignment {
        true => Ok(()),
        false => Err(format!("{key} starts under {assignment}, but {newest} was taken before")),
    }
}

/// Reports that were taken were made under an assignment of that host.
pub(super) fn reports_in_force(command: &Command, applied: &Applied) -> Found {
    let Command::ReportJobs { host, items, .. } = command else { return Ok(()) };
    let Ok(Reply::Items(answers)) = &applied.outcome.result else { return Ok(()) };
    for event in &applied.events {
        let Event::JobReported { key, assignment, .. } = event else { continue };
        let reported = items.iter().zip(answers);
        let asked = reported
            .filter(|(_, answer)| answer.is_ok())
            .any(|(item, _)| item.key == *key && item.assignment == *assignment);
        let row = applied.changes.iter().find(|change| change.key == Key::Job(key.clone()));
        let held = match row.and_then(|change| change.before.as_ref()) {
            Some(Row::Job(job)) => {
                job.placements.iter().any(|it| it.host == *host && it.assignment == *assignment)
            }
            _ => false,
        };
        // A report that changes nothing in the end leaves no change.
        if !asked || (row.is_some() && !held) {
            return Err(format!("a report of {host} on {key} under {assignment} was taken"));
        }
    }
    Ok(())
}
