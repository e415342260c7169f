//! The fold: how each record changes the memory, and which records rebuild it.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{JobKey, Report, Uid};

use super::{Accepted, Fence, JobMemory, Launch, Memory, Record};

impl Record {
    /// The job a record is about, for those that change one job.
    pub fn key(&self) -> Option<&JobKey> {
        match self {
            Self::Accepted { key, .. }
            | Self::AcceptedOf { key, .. }
            | Self::Dropped { key }
            | Self::Launched { key, .. }
            | Self::Ended { key }
            | Self::Tried { key, .. }
            | Self::Ran { key }
            | Self::Forgiven { key }
            | Self::Forgotten { key }
            | Self::Job { key, .. }
            | Self::Tombstone { key, .. } => Some(key),
            Self::Reported { report } => Some(&report.key),
            Self::Heard { .. } | Self::Sent { .. } | Self::Unsent { .. } => None,
        }
    }
}

impl JobMemory {
    fn accept(&mut self, order: &Accepted, deployment: Option<Uid>) {
        self.fence = self.fence.max(order.fence());
        let before = self.order.as_ref().and_then(|order| order.deployment);
        if before.is_some() && deployment.is_some() && before != deployment {
            // What another deployment ran is nothing to fall back to.
            self.good = None;
        }
        self.order = Some(Accepted { deployment, ..order.clone() });
    }

    /// Applies a record about this job. Records about the whole memory change nothing here.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Accepted { order, .. } => self.accept(order, None),
            Record::AcceptedOf { order, deployment, .. } => self.accept(order, Some(*deployment)),
            Record::Dropped { .. } => self.order = None,
            Record::Launched { assignment, workload, data_left_behind, .. } => {
                let same = self.launch.as_ref().filter(|last| last.assignment == *assignment);
                self.launch = Some(Launch {
                    assignment: *assignment,
                    workload: workload.clone(),
                    starts: same.map_or(0, |last| last.starts).saturating_add(1),
                    ended: false,
                    data_left_behind: *data_left_behind
                        || same.is_some_and(|last| last.data_left_behind),
                });
            }
            Record::Ended { .. } => {
                if let Some(launch) = &mut self.launch {
                    launch.ended = true;
                }
            }
            Record::Tried { effort, .. } => self.effort = Some(effort.clone()),
            Record::Ran { .. } => {
                self.good = self.launch.as_ref().map(|launch| Arc::clone(&launch.workload));
            }
            Record::Forgiven { .. } => self.effort = None,
            Record::Reported { report } => self.reported = Some(report.clone()),
            Record::Job { job, .. } => *self = job.as_ref().clone(),
            Record::Heard { .. }
            | Record::Forgotten { .. }
            | Record::Sent { .. }
            | Record::Tombstone { .. }
            | Record::Unsent { .. } => {}
        }
    }
}

impl Memory {
    /// Applies one record. Never refuses: a record that makes no sense changes nothing.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Heard { revision } => self.heard = self.heard.max(*revision),
            Record::Sent { through } => {
                self.reports = self.reports.max(*through);
                self.unsent.retain(|(number, _)| number > through);
            }
            Record::Unsent { number, report } => self.keep(*number, report),
            Record::Tombstone { key, fence } => self.bury(key, *fence),
            Record::Forgotten { key } => {
                if let Some(job) = self.jobs.remove(key) {
                    self.bury(key, job.fence);
                }
            }
            Record::Accepted { key, .. }
            | Record::AcceptedOf { key, .. }
            | Record::Job { key, .. } => {
                let fence = self.exhume(key).unwrap_or_default();
                let job = self.jobs.entry(key.clone()).or_default();
                job.fence = job.fence.max(fence);
                job.apply(record);
            }
            Record::Reported { report } => {
                self.keep(self.reports + 1, report);
                self.change(&report.key, record);
            }
            Record::Dropped { key }
            | Record::Launched { key, .. }
            | Record::Ended { key }
            | Record::Tried { key, .. }
            | Record::Ran { key }
            | Record::Forgiven { key } => self.change(key, record),
        }
    }

    /// The records that rebuild this memory, what a rewritten log begins with.
    pub fn records(&self) -> Vec<Record> {
        let through = self.unsent.front().map_or(self.reports, |(oldest, _)| oldest - 1);
        let mut records = vec![Record::Heard { revision: self.heard }, Record::Sent { through }];
        for key in self.graves.values() {
            if let Some((_, fence)) = self.tombstones.get(key) {
                records.push(Record::Tombstone { key: key.clone(), fence: *fence });
            }
        }
        for (key, job) in &self.jobs {
            records.push(Record::Job { key: key.clone(), job: Box::new(job.clone()) });
            // The row of the job does not hold whose data it gets.
            let order = job.order.clone().filter(|order| order.deployment.is_some());
            records.extend(order.map(|order| order.record(key.clone())));
        }
        for (number, report) in &self.unsent {
            records.push(Record::Unsent { number: *number, report: report.clone() });
        }
        records
    }

    fn change(&mut self, key: &JobKey, record: &Record) {
        if let Some(job) = self.jobs.get_mut(key) {
            job.apply(record);
        }
    }

    fn keep(&mut self, number: u64, report: &Report) {
        self.reports = self.reports.max(number);
        self.unsent.push_back((number, report.clone()));
        if self.unsent.len() <= self.bounds.unsent_max {
            return;
        }
        let mut later = BTreeSet::new();
        let mut oldest_replaced = 0;
        for (at, (_, kept)) in self.unsent.iter().enumerate().rev() {
            if !later.insert(&kept.key) {
                oldest_replaced = at;
            }
        }
        self.unsent.remove(oldest_replaced);
    }

    fn bury(&mut self, key: &JobKey, fence: Fence) {
        self.exhume(key);
        let number = self.graves.last_key_value().map_or(0, |(newest, _)| newest + 1);
        self.graves.insert(number, key.clone());
        self.tombstones.insert(key.clone(), (number, fence));
        while self.graves.len() > self.bounds.tombstones_max {
            if let Some((_, oldest)) = self.graves.pop_first() {
                self.tombstones.remove(&oldest);
            }
        }
    }

    fn exhume(&mut self, key: &JobKey) -> Option<Fence> {
        let (number, fence) = self.tombstones.remove(key)?;
        self.graves.remove(&number);
        Some(fence)
    }
}
