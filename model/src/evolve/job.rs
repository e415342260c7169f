//! What events do to jobs and their placements.

use super::Write;
use crate::{
    Assignment, Job, JobKey, Name, Phase, Placement, Scheduled, Trouble, Uid,
    due::PROGRESS_DEADLINE, expected_workload, tally,
};

/// Reason of the trouble of a job that no host can take.
const UNSCHEDULABLE: &str = "UNSCHEDULABLE";

impl Write<'_> {
    /// Changes a job. Work that stops to run as asked starts its progress deadline anew; work that
    /// does has no trouble.
    fn change_job(&mut self, key: &JobKey, change: impl FnOnce(&mut Job)) {
        let Some(mut job) = self.state.jobs.get(key).cloned() else { return };
        let ran = tally::runs_as_asked(&job);
        change(&mut job);
        let runs = tally::runs_as_asked(&job);
        if ran && !runs {
            job.progress_since = self.context.time;
        }
        if runs {
            job.trouble = None;
        }
        job.revision = self.context.revision;
        self.state.put_job(key, Some(job));
    }

    pub(super) fn change_placement(
        &mut self,
        key: &JobKey,
        assignment: Assignment,
        change: impl FnOnce(&mut Placement),
    ) {
        self.change_job(key, |job| {
            let mut placements = job.placements.iter_mut();
            if let Some(placement) = placements.find(|p| p.assignment == assignment) {
                change(placement);
            }
        });
    }

    pub(super) fn job_created(&mut self, key: &JobKey, uid: Uid) {
        let Some(workload) = expected_workload(self.state, key) else { return };
        let job = Job {
            uid,
            revision: self.context.revision,
            created_at: self.context.time,
            active: true,
            workload,
            placements: Vec::new(),
            trouble: None,
            due_at: None,
            progress_since: self.context.time,
            data_on: None,
        };
        self.state.put_job(key, Some(job));
    }

    pub(super) fn job_updated(&mut self, key: &JobKey, revived: Option<Assignment>) {
        let Some(workload) = expected_workload(self.state, key) else { return };
        let (revision, now) = (self.context.revision, self.context.time);
        self.change_job(key, |job| {
            job.active = true;
            job.trouble = None;
            job.progress_since = now;
            for placement in &mut job.placements {
                let scheduled = &mut placement.scheduled;
                scheduled.active |= revived == Some(placement.assignment);
                if scheduled.active {
                    scheduled.workload = workload.clone();
                    scheduled.revision = revision;
                }
            }
            job.workload = workload;
        });
    }

    pub(super) fn job_retired(&mut self, key: &JobKey) {
        let revision = self.context.revision;
        self.change_job(key, |job| {
            job.active = false;
            job.trouble = None;
            for placement in &mut job.placements {
                if placement.scheduled.active {
                    placement.scheduled.active = false;
                    placement.scheduled.revision = revision;
                }
            }
        });
    }

    pub(super) fn placement_removed(&mut self, key: &JobKey, assignment: Assignment) {
        let now = self.context.time;
        self.change_job(key, |job| {
            let Some(at) = job.placements.iter().position(|p| p.assignment == assignment) else {
                return;
            };
            let gone = job.placements.remove(at);
            let started = gone.current.as_ref().is_some_and(|current| match current.phase {
                Phase::Accepted | Phase::Downloading => false,
                Phase::Starting
                | Phase::Running
                | Phase::Stopping
                | Phase::Stopped
                | Phase::Failing
                | Phase::Failed => true,
            });
            if started {
                job.data_on = Some(gone.host);
            }
            if job.placements.is_empty() {
                job.progress_since = now;
            }
            job.placements.shrink_to_fit();
        });
    }

    pub(super) fn job_assigned(&mut self, key: &JobKey, host: &Name) {
        let (revision, now) = (self.context.revision, self.context.time);
        let host = self.state.shared_host(&key.tenant, host);
        self.change_job(key, |job| {
            let workload = job.workload.clone();
            job.trouble = None;
            job.progress_since = now;
            job.placements.reserve_exact(1);
            job.placements.push(Placement {
                assignment: Assignment(revision.0),
                host,
                scheduled: Scheduled { active: true, workload, revision },
                current: None,
            });
        });
    }

    pub(super) fn job_explained(&mut self, key: &JobKey, text: &str) {
        let now = self.context.time;
        self.change_job(key, |job| {
            let before = job.trouble.take();
            job.trouble = Some(Box::new(Trouble {
                reason: before.as_ref().map_or(UNSCHEDULABLE.into(), |b| b.reason.clone()),
                text: text.into(),
                since: before.as_ref().map_or(now, |b| b.since),
                attempt: before.map_or(1, |b| b.attempt.saturating_add(1)),
                next_retry_at: None,
            }));
        });
    }

    /// Copies that do not run get their order anew: agents count attempts by order.
    pub(super) fn job_retried(&mut self, key: &JobKey) {
        let (revision, now) = (self.context.revision, self.context.time);
        self.change_job(key, |job| {
            job.trouble = None;
            job.progress_since = now;
            for placement in &mut job.placements {
                if placement.scheduled.active && !tally::runs_as_told(placement) {
                    placement.scheduled.revision = revision;
                }
            }
        });
    }

    pub(super) fn job_stalled(&mut self, key: &JobKey) {
        let now = self.context.time;
        self.change_job(key, |job| {
            let before = job.trouble.take();
            let text = "does not run as asked within the progress deadline".to_owned();
            job.trouble = Some(Box::new(Trouble {
                reason: PROGRESS_DEADLINE.into(),
                text: before.as_ref().map_or(text, |b| b.text.clone()),
                since: now,
                attempt: before.map_or(1, |b| b.attempt),
                next_retry_at: None,
            }));
        });
    }
}
