//! Steps of a round, carried out by the simulated machine; each takes its time, and one that an agent
//! began and did not live to see may or may not have had its effect.

use crate::{
    event::{Event, Stage},
    machine::{Fate, failure},
    world::World,
};
use agent::{
    guard::state::ExitReason,
    reconcile::{Stage as FailedAt, Step},
};
use model::{Assignment, Digest, JobKey, Workload};
use std::sync::Arc;

/// Images whose last byte is this cannot be had, for good.
pub(crate) const NO_IMAGE: u8 = 0xee;
/// Images whose last byte is this never come up.
pub(crate) const NO_START: u8 = 0xdd;

impl World {
    /// A step goes on.
    pub(crate) fn step_on(&mut self, host: usize, incarnation: u64, step: Step, stage: Stage) {
        if !self.is_alive(host, incarnation) {
            return;
        }
        let now = self.now;
        match (stage, &step) {
            (Stage::Done(result), step) => {
                self.over(host, step, result);
            }
            (Stage::Begin, Step::FetchImage { image, .. }) => {
                let result = self.fetch(host, *image);
                let at = now + self.dice.range(50, 1_500);
                self.later(at, (host, incarnation), step, Stage::Done(result));
            }
            (Stage::Begin | Stage::Second, Step::Start { key, assignment, workload, .. })
            | (Stage::Second, Step::Replace { key, assignment, workload, .. }) => {
                let result = self.start(host, key, (*assignment, workload));
                if self.violation.is_some() {
                    return;
                }
                let at = now + self.dice.range(1, 250);
                self.later(at, (host, incarnation), step, Stage::Done(result));
            }
            (Stage::Begin, Step::Replace { key, grace_ms, .. }) => {
                let ends = self.hosts[host].machine.stop(now, key, *grace_ms);
                self.later(ends.max(now + 1), (host, incarnation), step, Stage::Second);
            }
            (Stage::Begin | Stage::Second, Step::Stop { key, grace_ms }) => {
                let ends = self.hosts[host].machine.stop(now, key, *grace_ms);
                self.later(ends.max(now + 1), (host, incarnation), step, Stage::Done(Ok(true)));
            }
            (Stage::Begin | Stage::Second, Step::Kill { key }) => {
                let ends = self.hosts[host].machine.stop(now, key, 0);
                self.later(ends.max(now + 1), (host, incarnation), step, Stage::Done(Ok(true)));
            }
            (Stage::Begin | Stage::Second, Step::Forget { key }) => {
                let result = self.hosts[host].machine.forget(now, key).map(|()| true);
                self.later(now + 1, (host, incarnation), step, Stage::Done(result));
            }
            (Stage::Second, Step::FetchImage { .. }) => {}
        }
    }

    fn later(&mut self, at: u64, (host, incarnation): (usize, u64), step: Step, stage: Stage) {
        self.at(at, Event::Step { host, incarnation, step: Box::new(step), stage });
    }

    fn fetch(&mut self, host: usize, image: Digest) -> Result<bool, agent::reconcile::Failure> {
        let nodes = self.nodes.len();
        let reachable = self.network.reachable(host, nodes);
        let up = reachable.into_iter().any(|node| self.nodes[node].up);
        let jobs = self.settings.faults.jobs && !self.healing;
        if image.0[31] == NO_IMAGE {
            return Err(failure(FailedAt::Fetch, "IMAGE", true));
        }
        match !up || (jobs && self.dice.permille(50)) {
            true => Err(failure(FailedAt::Fetch, "IMAGE", false)),
            false => Ok(true),
        }
    }

    fn start(
        &mut self,
        host: usize,
        key: &JobKey,
        (assignment, workload): (Assignment, &Arc<Workload>),
    ) -> Result<bool, agent::reconcile::Failure> {
        let fate = self.fate(workload);
        let now = self.now;
        self.trace.line(now, || format!("host {host} starts {key} under {assignment}"));
        let before = self.hosts[host].machine.guards.get(key).map(|it| it.started_at);
        let result = self.hosts[host].machine.start(now, key, (assignment, workload), fate);
        let guard = self.hosts[host].machine.guards.get(key);
        let started = result.is_ok() && guard.map(|it| it.started_at) != before;
        if started {
            self.stats.starts += 1;
            self.check_start(host, key);
        }
        result.map(|()| true)
    }

    /// What will become of a start.
    fn fate(&mut self, workload: &Workload) -> Fate {
        let trouble = self.settings.faults.jobs && !self.healing;
        let mut fate = Fate { stop_ms: self.dice.range(5, 400), ..Fate::default() };
        fate.cannot_start = workload.image.0[31] == NO_START;
        if trouble {
            if self.dice.permille(150) {
                fate.stop_ms = self.dice.range(500, 30_000);
            }
            if self.dice.permille(80) {
                let after = self.dice.range(1, 30_000);
                let reason = match self.dice.below(4) {
                    0 => ExitReason::Oom,
                    1 => ExitReason::Completed,
                    2 => ExitReason::GuardLost,
                    _ => ExitReason::Crashed,
                };
                fate.ends_after = Some((after, reason));
            }
        }
        fate
    }
}
