//! (1) At most one copy of a `stop` job runs, counted by guards that really run, at every start. The
//! same of `keep_running`, but for copies that control gave up because somebody said so: a host
//! declared lost, or something deleted by force.

use super::{Found, Oracles};
use crate::edge::EdgeHost;
use model::{Applied, Event, JobKey, Key, OnDisconnect, Removal, Row};

/// Notes copies that were taken away without a word of their host, and those that a `replace` policy
/// put another copy beside.
pub(super) fn note_given_up(oracles: &mut Oracles, applied: &Applied) {
    for change in &applied.changes {
        if let (Key::Job(key), Some(Row::Job(job))) = (&change.key, &change.after) {
            for older in job.placements.iter().rev().skip(1) {
                oracles.given_up.insert((key.clone(), older.assignment));
            }
        }
    }
    for event in &applied.events {
        if let Event::PlacementRemoved { key, assignment, why } = event {
            match why {
                Removal::Evicted | Removal::Dropped => {
                    oracles.given_up.insert((key.clone(), *assignment));
                }
                Removal::Stopped => {}
            }
        }
    }
}

/// The copy that was just started is the only one.
pub(super) fn alone(
    hosts: &mut [EdgeHost],
    oracles: &Oracles,
    (host, key): (usize, &JobKey),
    now: u64,
) -> Found {
    let Some(started) = hosts[host].machine.guards.get(key).cloned() else { return Ok(()) };
    let policy = started.workload.on_disconnect;
    if policy == OnDisconnect::Replace {
        return Ok(());
    }
    // A host that nobody can reach goes on by the orders it has: it was given up for that.
    if policy == OnDisconnect::KeepRunning
        && oracles.given_up.contains(&(key.clone(), started.assignment))
    {
        return Ok(());
    }
    for (number, other) in hosts.iter_mut().enumerate().filter(|(number, _)| *number != host) {
        other.machine.settle(now);
        let Some(guard) = other.machine.guards.get(key).filter(|guard| guard.is_up()) else {
            continue;
        };
        let given_up = oracles.given_up.contains(&(key.clone(), guard.assignment));
        let excused = match guard.workload.on_disconnect {
            OnDisconnect::Stop => policy != OnDisconnect::Stop && given_up,
            OnDisconnect::KeepRunning => given_up,
            OnDisconnect::Replace => true,
        };
        if !excused {
            return Err(format!(
                "{key} ({}) starts on host {host} under {} while it runs on host {number} under {}",
                policy.as_str(),
                started.assignment,
                guard.assignment,
            ));
        }
    }
    Ok(())
}
