//! One job: which records and steps bring it closer to its order.

use std::sync::Arc;

use model::{JobKey, OnDisconnect, Slot, Workload};

use super::failure::{count, of_exit};
use super::report::report;
use super::{Busy, Found, Lease, Round, Step, World};
use crate::guard::state::{ExitReason, Phase as GuardPhase};
use crate::memory::{Accepted, Effort, JobMemory, Launch, Record};

/// Adds to `round` what is to be done for one job.
pub(super) fn reconcile(world: &World<'_>, key: &JobKey, round: &mut Round) {
    let Some(job) = world.memory.job(key) else {
        return stranger(world, key, round);
    };
    let mut turn = Turn {
        world,
        key,
        job: job.clone(),
        found: world.found.get(key),
        busy: world.busy.get(key).copied(),
        round,
    };
    match turn.job.order.clone() {
        None => turn.leave(),
        Some(order) if turn.found.is_some_and(|found| found.assignment > order.assignment) => {
            // The memory is older than the job (it was lost): a newer order will come.
        }
        Some(order) if order.scheduled.active => turn.run(&order),
        Some(order) => turn.stop(&order),
    }
}

/// A copy nobody here remembers, such as one whose order was dropped and forgotten while its guard
/// could not be reached.
fn stranger(world: &World<'_>, key: &JobKey, round: &mut Round) {
    let Some(found) = world.found.get(key) else { return };
    let ended = world.memory.fence(key).is_some_and(|fence| fence.assignment >= found.assignment);
    if world.busy.contains_key(key) || !(ended || world.heard) {
        return;
    }
    let (key, grace_ms) = (key.clone(), world.tuning.stop_grace_ms);
    round.steps.push(match found.is_up() {
        true => Step::Stop { key, grace_ms },
        false => Step::Forget { key },
    });
}

/// Whether two workloads run alike, so that changing one into the other needs no restart.
pub(super) fn same_program(one: &Workload, other: &Workload) -> bool {
    let of = |w: &Workload| {
        let identity = (w.driver, w.num_partitions, w.image, w.limits);
        (identity, w.on_disconnect, w.stop_grace_ms)
    };
    of(one) == of(other) && one.env == other.env
}

/// The job's part of a round. `job` is the memory with the round's records applied.
pub(super) struct Turn<'a> {
    pub(super) world: &'a World<'a>,
    pub(super) key: &'a JobKey,
    pub(super) job: JobMemory,
    pub(super) found: Option<&'a Found>,
    pub(super) busy: Option<Busy>,
    round: &'a mut Round,
}

impl Turn<'_> {
    /// No order: nothing of it stays.
    fn leave(&mut self) {
        if self.is_moving() {
            return;
        }
        let key = self.key.clone();
        match self.found {
            Some(found) if found.is_up() => {
                let grace_ms = self.grace_ms();
                self.step(Step::Stop { key, grace_ms });
            }
            Some(_) => self.step(Step::Forget { key }),
            None => self.note(Record::Forgotten { key }),
        }
    }

    /// The order says stop.
    fn stop(&mut self, order: &Accepted) {
        let up = self.found.is_some_and(Found::is_up);
        if !up && !self.is_moving() && self.job.launch.as_ref().is_some_and(|last| !last.ended) {
            self.note(Record::Ended { key: self.key.clone() });
        }
        report(self, order);
        if up && !self.is_moving() {
            let grace_ms = self.grace_ms();
            self.step(Step::Stop { key: self.key.clone(), grace_ms });
        }
    }

    /// The order says run.
    fn run(&mut self, order: &Accepted) {
        self.count_exit(order);
        self.trust(order);
        let up = self.found.is_some_and(Found::is_up);
        let goal = self.goal(order);
        let step = match () {
            () if self.is_moving() => None,
            () if up && self.must_die(&goal) => Some(Step::Kill { key: self.key.clone() }),
            () if up && self.runs(order, &goal) => None,
            () if self.is_done() => None,
            () => self.advance(order, &goal, up),
        };
        if let Some(Step::Start { .. } | Step::Replace { .. }) = &step {
            let data_left_behind = order.data_elsewhere && !self.world.data.contains(self.key);
            self.note(Record::Launched {
                key: self.key.clone(),
                assignment: order.assignment,
                workload: goal,
                data_left_behind,
            });
        }
        // The report says what the round begins, not what it found.
        self.busy = step.as_ref().map(Step::busy).or(self.busy);
        report(self, order);
        if let Some(step) = step {
            self.step(step);
        }
    }

    /// The next step towards running `goal`, unless something has to be waited for.
    fn advance(&mut self, order: &Accepted, goal: &Arc<Workload>, up: bool) -> Option<Step> {
        let key = self.key.clone();
        if let Some(effort) = self.effort(order).cloned() {
            if effort.permanent {
                return None;
            }
            if effort.next_at_boot_ms > self.world.now_boot_ms {
                self.wake_at(effort.next_at_boot_ms);
                return None;
            }
        }
        if !self.world.images.contains(&goal.image) {
            let image = goal.image;
            let fetching = self.busy == Some(Busy::Fetching(image));
            return (!fetching).then_some(Step::FetchImage { key, image });
        }
        if !self.may_start(goal) {
            return None;
        }
        let (assignment, workload, deployment) = (order.assignment, goal.clone(), order.deployment);
        Some(match up {
            true => {
                let grace_ms = self.grace_ms();
                Step::Replace { key, grace_ms, assignment, workload, deployment }
            }
            false => Step::Start { key, assignment, workload, deployment },
        })
    }

    /// Notes the end of the last launch, and counts it if it was a failure.
    fn count_exit(&mut self, order: &Accepted) {
        let Some(found) = self.found.filter(|found| found.phase == GuardPhase::Exited) else {
            return;
        };
        let launched = self.launch_of(found).is_some_and(|launch| !launch.ended);
        if !launched || self.is_moving() {
            return;
        }
        self.note(Record::Ended { key: self.key.clone() });
        let failure = of_exit(found.exit.as_ref());
        if let Some(failure) = failure.filter(|_| !self.is_done()) {
            let at = (self.world.now_boot_ms, self.world.tuning);
            let effort = count(self.key, &self.job, &order.scheduled, &failure, at);
            self.note(Record::Tried { key: self.key.clone(), effort });
        }
    }

    /// Notes that what runs has run long enough.
    fn trust(&mut self, order: &Accepted) {
        let Some(found) = self.found.filter(|found| found.phase == GuardPhase::Running) else {
            return;
        };
        let Some(launch) = self.launch_of(found) else { return };
        let trusted = self.job.good.as_ref().is_some_and(|good| *good == launch.workload);
        let settled_at = found.started_at_boot_ms.saturating_add(self.world.tuning.settle_ms);
        let forgiven_at = found.started_at_boot_ms.saturating_add(self.world.tuning.forgive_ms);
        // What runs for an earlier assignment may be of another deployment; it is replaced in any case.
        if !trusted && found.assignment == order.assignment {
            match settled_at <= self.world.now_boot_ms {
                true => self.note(Record::Ran { key: self.key.clone() }),
                false => self.wake_at(settled_at),
            }
        }
        let tried = self.job.effort.as_ref().is_some_and(|effort| !effort.fell_back);
        if tried && self.runs(order, &order.scheduled.workload) {
            let settled = settled_at <= self.world.now_boot_ms;
            match forgiven_at <= self.world.now_boot_ms {
                true => self.note(Record::Forgiven { key: self.key.clone() }),
                false => self.wake_at(if settled { forgiven_at } else { settled_at }),
            }
        }
    }

    /// What to run: what the order says, or what ran before if that failed.
    pub(super) fn goal(&self, order: &Accepted) -> Arc<Workload> {
        let fell_back = self.effort(order).is_some_and(|effort| effort.fell_back);
        match self.job.good.as_ref().filter(|_| fell_back) {
            Some(good) => good.clone(),
            None => order.scheduled.workload.clone(),
        }
    }

    /// Whether what is up is `goal`, under the order's assignment.
    pub(super) fn runs(&self, order: &Accepted, goal: &Workload) -> bool {
        self.found.is_some_and(|found| {
            found.assignment == order.assignment
                && match self.launch_of(found) {
                    Some(launch) => same_program(&launch.workload, goal),
                    None => found.spec_revision == goal.spec_revision,
                }
        })
    }

    /// Failures under the order in force.
    pub(super) fn effort(&self, order: &Accepted) -> Option<&Effort> {
        self.job.effort.as_ref().filter(|effort| effort.order == order.scheduled.revision)
    }

    /// What is remembered of the launch that a driver speaks of.
    pub(super) fn launch_of(&self, found: &Found) -> Option<&Launch> {
        self.job.launch.as_ref().filter(|launch| {
            launch.assignment == found.assignment
                && launch.workload.spec_revision == found.spec_revision
        })
    }

    /// Whether it is something that ends, and has ended well.
    pub(super) fn is_done(&self) -> bool {
        let completed = |found: &Found| {
            found.exit.as_ref().is_some_and(|exit| exit.reason == ExitReason::Completed)
        };
        matches!(self.key.slot, Slot::Run(_)) && self.found.is_some_and(completed)
    }

    /// Whether a step is under way that another must not cross.
    pub(super) fn is_moving(&self) -> bool {
        matches!(self.busy, Some(Busy::Starting | Busy::Stopping))
    }

    /// Whether it may start now: see the rules of this room's head.
    pub(super) fn may_start(&self, workload: &Workload) -> bool {
        workload.on_disconnect != OnDisconnect::Stop || (self.world.heard && self.lease_lives())
    }

    /// Whether it must not run any more. Its guard has seen to that; this is for one that could not.
    fn must_die(&self, goal: &Workload) -> bool {
        let running = self.found.and_then(|found| self.launch_of(found));
        let policy = running.map_or(goal.on_disconnect, |launch| launch.workload.on_disconnect);
        policy == OnDisconnect::Stop && self.world.lease != Lease::Never && !self.lease_lives()
    }

    fn lease_lives(&self) -> bool {
        match self.world.lease {
            Lease::Alive { until_boot_ms } => until_boot_ms > self.world.now_boot_ms,
            Lease::Never | Lease::Expired => false,
        }
    }

    fn grace_ms(&self) -> u64 {
        let launch = self.found.and_then(|found| self.launch_of(found));
        launch.map_or(self.world.tuning.stop_grace_ms, |launch| launch.workload.stop_grace_ms)
    }

    /// Adds a record, and remembers it for the rest of the turn.
    pub(super) fn note(&mut self, record: Record) {
        self.job.apply(&record);
        self.round.records.push(record);
    }

    fn step(&mut self, step: Step) {
        self.round.steps.push(step);
    }

    fn wake_at(&mut self, at: u64) {
        let at = self.round.wake_at_boot_ms.map_or(at, |earlier| earlier.min(at));
        self.round.wake_at_boot_ms = Some(at);
    }
}
