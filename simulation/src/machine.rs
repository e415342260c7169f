//! A simulated edge machine: its clock, its guards and what they run, and what survives a reboot.
//!
//! Guards do by themselves what real ones do: a `stop` job begins to stop early enough to be dead at
//! the end of the lease, whether its agent lives or not. Time acts when somebody looks
//! ([`Machine::settle`]), in order of the moments at which it should have.

use agent::{
    guard::state::{ExitReason, JobExit, Phase},
    memory::Record,
    reconcile::{Failure, Found, Stage},
};
use model::{Assignment, Digest, JobKey, OnDisconnect, Resources, Workload};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Time kept for the kill at the end of a lease, in ms.
const KILL_MARGIN_MS: u64 = 500;

/// A guard with its job, up or down.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) assignment: Assignment,
    pub(crate) workload: Arc<Workload>,
    pub(crate) phase: Phase,
    pub(crate) started_at: u64,
    pub(crate) exit: Option<JobExit>,
    /// When and how it ends, as far as that is known now.
    ends: Option<(u64, JobExit)>,
    /// How long its programs take to stop when asked.
    stop_ms: u64,
}

impl Guard {
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running | Phase::Stopping)
    }

    fn ends_at(&mut self, at: u64, exit: JobExit) {
        if self.ends.as_ref().is_none_or(|(known, _)| at < *known) {
            self.ends = Some((at, exit));
        }
    }

    fn stop(&mut self, at: u64, grace_ms: u64, reason: ExitReason) {
        let killed = self.stop_ms > grace_ms;
        let mut exit = JobExit::because(reason, "it was told to stop");
        exit.killed = killed;
        self.ends_at(at.saturating_add(if killed { grace_ms } else { self.stop_ms }), exit);
        self.phase = Phase::Stopping;
    }

    /// What a round is told of it.
    pub(crate) fn found(&self) -> Found {
        Found {
            assignment: self.assignment,
            spec_revision: self.workload.spec_revision,
            phase: self.phase,
            started_at_boot_ms: self.started_at,
            exit: self.exit.clone(),
        }
    }
}

/// What befalls the programs of a start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fate {
    /// It ends by itself after so long.
    pub(crate) ends_after: Option<(u64, ExitReason)>,
    /// It takes so long to stop.
    pub(crate) stop_ms: u64,
    /// It does not come up at all.
    pub(crate) cannot_start: bool,
}

/// A machine.
#[derive(Debug)]
pub(crate) struct Machine {
    /// When it was switched on, in the world's time.
    pub(crate) booted_at: u64,
    /// How fast its clock runs: millionths more, or less, than a million.
    pub(crate) rate: u64,
    pub(crate) guards: BTreeMap<JobKey, Guard>,
    /// The lease the guards were told of, on this boot's clock.
    pub(crate) lease: u64,
    /// Guards ignore the end of the lease: a planted bug.
    pub(crate) deaf: bool,
    /// Records of the agent's memory that are on disk.
    pub(crate) records: Vec<Record>,
    pub(crate) images: BTreeSet<Digest>,
    /// Jobs whose data directory holds something.
    pub(crate) data: BTreeSet<JobKey>,
    pub(crate) capacity: Resources,
}

impl Machine {
    pub(crate) fn new(rate: u64, capacity: Resources) -> Self {
        Self {
            booted_at: 0,
            rate,
            guards: BTreeMap::new(),
            lease: 0,
            deaf: false,
            records: Vec::new(),
            images: BTreeSet::new(),
            data: BTreeSet::new(),
            capacity,
        }
    }

    /// Its clock since boot.
    pub(crate) fn boot_ms(&self, now: u64) -> u64 {
        let passed = u128::from(now - self.booted_at);
        (passed * u128::from(self.rate) / 1_000_000) as u64
    }

    /// The world's time at which its clock will surely show this.
    pub(crate) fn world_ms(&self, boot_ms: u64) -> u64 {
        let passed = u128::from(boot_ms) * 1_000_000 / u128::from(self.rate);
        self.booted_at.saturating_add(passed as u64 + 1)
    }

    /// When a `stop` job begins to stop for want of a lease.
    fn bound(&self, workload: &Workload) -> Option<u64> {
        let reserve = workload.stop_grace_ms.saturating_add(KILL_MARGIN_MS);
        let fenced = workload.on_disconnect == OnDisconnect::Stop && !self.deaf;
        fenced.then(|| self.lease.saturating_sub(reserve))
    }

    /// Lets everything happen that should have happened by now.
    pub(crate) fn settle(&mut self, now: u64) {
        let boot = self.boot_ms(now);
        let bounds: Vec<Option<u64>> =
            self.guards.values().map(|guard| self.bound(&guard.workload)).collect();
        for (guard, bound) in self.guards.values_mut().zip(bounds) {
            if !guard.is_up() {
                continue;
            }
            if let Some(bound) = bound.filter(|bound| boot >= *bound) {
                let grace = guard.workload.stop_grace_ms;
                if guard.ends.as_ref().is_none_or(|(at, _)| *at > bound) {
                    guard.stop(bound, grace, ExitReason::LeaseExpired);
                }
            }
            if guard.ends.as_ref().is_some_and(|(at, _)| *at <= boot)
                && let Some((_, exit)) = guard.ends.take()
            {
                guard.phase = Phase::Exited;
                guard.exit = Some(exit);
            }
        }
    }

    /// The agent passes a lease on to the guards.
    pub(crate) fn renew(&mut self, now: u64, until_boot_ms: u64) {
        self.settle(now);
        self.lease = until_boot_ms;
    }

    /// Starts a job of which nothing runs.
    pub(crate) fn start(
        &mut self,
        now: u64,
        key: &JobKey,
        (assignment, workload): (Assignment, &Arc<Workload>),
        fate: Fate,
    ) -> Result<(), Failure> {
        self.settle(now);
        let boot = self.boot_ms(now);
        if let Some(guard) = self.guards.get(key).filter(|guard| guard.is_up()) {
            let same = guard.assignment == assignment && guard.workload == *workload;
            return match same && guard.phase == Phase::Running {
                true => Ok(()),
                false => Err(failure(Stage::Start, "STILL_RUNNING", false)),
            };
        }
        if self.bound(workload).is_some_and(|bound| boot >= bound) {
            return Err(failure(Stage::Lease, "NO_LEASE", false));
        }
        let mut guard = Guard {
            assignment,
            workload: workload.clone(),
            phase: Phase::Running,
            started_at: boot,
            exit: None,
            ends: None,
            stop_ms: fate.stop_ms,
        };
        if let Some((after, reason)) = fate.ends_after {
            guard.ends_at(boot + after, JobExit::because(reason, "it ended by itself"));
        }
        if fate.cannot_start {
            guard.phase = Phase::Exited;
            guard.exit = Some(JobExit::because(ExitReason::StartFailed, "it does not start"));
        }
        self.guards.insert(key.clone(), guard);
        if fate.cannot_start {
            return Err(failure(Stage::Start, "PROGRAM", true));
        }
        self.data.insert(key.clone());
        Ok(())
    }

    /// Asks a job to stop; the world's time at which it has.
    pub(crate) fn stop(&mut self, now: u64, key: &JobKey, grace_ms: u64) -> u64 {
        self.settle(now);
        let boot = self.boot_ms(now);
        let Some(guard) = self.guards.get_mut(key).filter(|guard| guard.is_up()) else {
            return now;
        };
        guard.stop(boot, grace_ms, ExitReason::Stopped);
        let ends = guard.ends.as_ref().map_or(boot, |(at, _)| *at);
        self.world_ms(ends)
    }

    /// Forgets a job of which nothing runs.
    pub(crate) fn forget(&mut self, now: u64, key: &JobKey) -> Result<(), Failure> {
        self.settle(now);
        if self.guards.get(key).is_some_and(Guard::is_up) {
            return Err(failure(Stage::Start, "STILL_RUNNING", false));
        }
        self.guards.remove(key);
        Ok(())
    }

    /// A guard dies without a word, and its job with it.
    pub(crate) fn kill_guard(&mut self, now: u64, key: &JobKey) {
        self.settle(now);
        if let Some(guard) = self.guards.get_mut(key).filter(|guard| guard.is_up()) {
            guard.phase = Phase::Exited;
            guard.ends = None;
            guard.exit = Some(JobExit::because(ExitReason::GuardLost, "the guard is gone"));
        }
    }

    /// Programs that would have ended by themselves go on.
    pub(crate) fn calm(&mut self, now: u64) {
        self.settle(now);
        for guard in self.guards.values_mut().filter(|guard| guard.phase == Phase::Running) {
            guard.ends = None;
        }
    }

    /// Everything that ran is gone; the clock begins again.
    pub(crate) fn reboot(&mut self, now: u64) {
        self.settle(now);
        let keys: Vec<JobKey> = self.guards.keys().cloned().collect();
        for key in keys {
            self.kill_guard(now, &key);
        }
        self.booted_at = now;
        self.lease = 0;
        for guard in self.guards.values_mut() {
            guard.started_at = 0;
        }
    }
}

pub(crate) fn failure(stage: Stage, reason: &str, permanent: bool) -> Failure {
    Failure { stage, reason: reason.to_owned(), text: format!("it failed: {reason}"), permanent }
}
