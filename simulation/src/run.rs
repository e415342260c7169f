//! Runs: one seed, or many on all cores, with results in the order of their seeds.

use crate::{
    oracle::Violation,
    settings::Settings,
    world::{Stats, World},
};
use serde::Serialize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What came of one seed.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Steps taken under faults.
    pub steps: u64,
    /// What happened, in numbers.
    pub stats: Stats,
    /// The first broken rule, if any.
    pub violation: Option<Violation>,
    /// The trace, if it was asked for.
    #[serde(skip)]
    pub trace: String,
}

/// Runs one seed: steps under faults, then faults off and everything has to come right.
pub fn run_one(settings: Settings) -> Report {
    let mut world = World::new(settings);
    world.run_steps(settings.steps);
    if world.violation.is_none() {
        world.heal();
    }
    let steps = settings.steps;
    let (stats, violation, trace) = world.finish();
    Report { seed: settings.seed, steps, stats, violation, trace }
}

/// Runs seeds `from` to `from + seeds` on `threads` threads. Ends early after a violation, once all
/// earlier seeds are done. `progress` is told how many are done.
pub fn run_many(
    settings: Settings,
    (from, seeds): (u64, u64),
    threads: usize,
    progress: impl Fn(u64) + Sync,
) -> Vec<Report> {
    let next = AtomicU64::new(0);
    let stop_at = AtomicU64::new(seeds);
    let done = AtomicU64::new(0);
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= stop_at.load(Ordering::Relaxed) {
                        return;
                    }
                    let report = run_one(Settings { seed: from + number, ..settings });
                    if report.violation.is_some() && !settings.keep_going {
                        stop_at.fetch_min(number + 1, Ordering::Relaxed);
                    }
                    reports.lock().unwrap_or_else(|it| it.into_inner()).push(report);
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap_or_else(|it| it.into_inner());
    reports.sort_by_key(|report: &Report| report.seed);
    let first = reports.iter().position(|report| report.violation.is_some());
    if let Some(first) = first.filter(|_| !settings.keep_going) {
        reports.truncate(first + 1);
    }
    reports
}
