//! `Settle`: what is due by time alone is carried out. With nothing due, nothing happens.

use super::{Decided, Decision, done};
use crate::{Assignment, Due, Event, JobKey, Name, due, limits::ITEMS_MAX};

impl Decision<'_> {
    pub(super) fn settle(&mut self, tenant: &Name) -> Decided {
        self.need_tenant(tenant)?;
        let due = self.state.due_by(tenant, self.context.time);
        let due: Vec<Due> = due.take(ITEMS_MAX).cloned().collect();
        let changed = !due.is_empty();
        for due in due {
            match due {
                Due::Job(key) => self.settle_job(&key),
                Due::Deployment(deployment) => {
                    let tenant = tenant.clone();
                    self.emit(Event::DeploymentGraceEnded { tenant, deployment });
                }
                Due::Host(host) => {
                    self.emit(Event::HostGraceEnded { tenant: tenant.clone(), host });
                }
            }
        }
        done("", changed)
    }

    fn settle_job(&mut self, key: &JobKey) {
        let now = self.context.time;
        let Some(job) = self.state.jobs.get(key) else { return };
        let healthy: Vec<Assignment> = job
            .placements
            .iter()
            .filter(|placement| due::of_placement(placement).is_some_and(|at| at <= now))
            .map(|placement| placement.assignment)
            .collect();
        for assignment in healthy {
            self.emit(Event::JobSettled { key: key.clone(), assignment });
        }
        let deadline = self.state.jobs.get(key).and_then(due::of_progress);
        if deadline.is_some_and(|at| at <= now) {
            self.emit(Event::JobStalled { key: key.clone() });
        }
    }
}
