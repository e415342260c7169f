//! What the agent knows of its host: jobs found and looked at, data, the machine itself.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{Digest, JobKey};
use storage::Disk;
use tokio::time::sleep;

use super::{Core, RECOVERIES_MAX, RunError};
use crate::driver::Phase;
use crate::executor::{Look, found};
use crate::leftovers;
use crate::memory::Memory;
use crate::naming::{self, Folder};
use crate::reconcile::{Busy, Found};

impl<D: Disk> Core<D> {
    /// Finds what runs on this host before anything is decided.
    pub(super) async fn recover(&mut self) -> Result<(), RunError> {
        self.images = self.parts.images.present().await?;
        let mut attempts = 0;
        loop {
            match self.parts.driver.recover().await {
                Ok(all) => {
                    for recovered in all {
                        let Some((key, spec_revision)) = naming::of_spec(&recovered.spec) else {
                            tracing::warn!(job = %recovered.job, "left a job alone that no agent started");
                            continue;
                        };
                        let assignment = model::Assignment(recovered.spec.assignment);
                        let found = found((assignment, spec_revision), &recovered.state);
                        tracing::info!(job = %key, phase = ?found.phase, "found a job");
                        self.found.insert(key, found);
                    }
                    break;
                }
                Err(error) => {
                    attempts += 1;
                    tracing::warn!(%error, attempts, "could not find out what runs here");
                    if attempts >= RECOVERIES_MAX {
                        self.presume().await;
                        break;
                    }
                    sleep(Duration::from_millis(self.config.work.retry_ms)).await;
                }
            }
        }
        let remembered: Vec<_> = self.log.memory().jobs().map(|(key, _)| key.clone()).collect();
        for key in remembered {
            self.look_for_data(&key).await;
        }
        Ok(())
    }

    /// Asks for the jobs remembered one by one. A guard that does not answer lives: its job is held for
    /// running, so that it is not started twice.
    async fn presume(&mut self) {
        let launches: Vec<_> = self
            .log
            .memory()
            .jobs()
            .filter_map(|(key, job)| Some((key.clone(), job.launch.clone()?)))
            .collect();
        for (key, launch) in launches {
            let placed = (launch.assignment, launch.workload.spec_revision);
            let known = match self.executor.look(&key).await {
                Look::Known(state) => found(placed, &state),
                Look::Gone => continue,
                Look::Unclear => Found {
                    assignment: placed.0,
                    spec_revision: placed.1,
                    phase: Phase::Running,
                    started_at_boot_ms: self.parts.driver.boottime_ms(),
                    exit: None,
                },
            };
            self.found.insert(key, known);
        }
    }

    pub(super) async fn look_for_data(&mut self, key: &JobKey) {
        let order = self.log.memory().job(key).and_then(|job| job.order.as_ref());
        let Some(order) = order.filter(|order| order.data_elsewhere) else { return };
        let folder = Folder { key: key.clone(), deployment: order.deployment };
        match self.executor.has_data(&folder).await {
            true => self.data.insert(key.clone()),
            false => self.data.remove(key),
        };
    }

    /// Asks the guards of all jobs that are up, unless the last look is still under way.
    pub(super) fn look_around(&mut self) {
        if !self.looks.is_empty() {
            return;
        }
        let moving =
            |key: &JobKey| matches!(self.busy.get(key), Some(Busy::Starting | Busy::Stopping));
        let up = self.found.iter().filter(|(key, found)| found.is_up() && !moving(key));
        let turn = |key: &JobKey| self.turns.get(key).copied().unwrap_or_default();
        let asked: Vec<_> = up.map(|(key, _)| (key.clone(), turn(key))).collect();
        if asked.is_empty() {
            return;
        }
        let executor = self.executor.clone();
        self.looks.spawn(async move {
            let look = |(key, turn): (JobKey, u64)| {
                let executor = executor.clone();
                async move {
                    let look = executor.look(&key).await;
                    (key, turn, look)
                }
            };
            futures::future::join_all(asked.into_iter().map(look)).await
        });
    }

    /// What the guards said. What has moved since it was asked is left out.
    pub(super) fn seen(&mut self, looks: Vec<(JobKey, u64, Look)>) {
        for (key, turn, look) in looks {
            if self.turns.get(&key).copied().unwrap_or_default() == turn {
                self.note(&key, None, look);
            }
        }
    }

    /// Looks at the machine again, and removes images that nobody needs.
    pub(super) async fn discover(&mut self) {
        let profile = (self.parts.profile)();
        self.introduce.send_if_modified(|introduction| {
            let changed = introduction.profile != profile;
            introduction.profile = profile;
            changed
        });
        if self.heard && self.walks.is_empty() {
            let (disk, data) = (self.parts.disk.clone(), self.config.data.clone());
            self.walks.spawn(leftovers::folders(disk, data, self.parts.tenant.clone()));
        }
        if self.busy.values().any(|busy| matches!(busy, Busy::Fetching(_))) {
            return;
        }
        match self.parts.images.retain(in_use(self.log.memory())).await {
            Ok(left) => self.images = left,
            Err(error) => tracing::warn!(%error, "could not remove images that are not used"),
        }
    }

    /// Whether a job uses a data folder, or may.
    fn uses(&self, folder: &Folder) -> bool {
        let Folder { key, deployment } = folder;
        let job = self.log.memory().job(key);
        let order = job.and_then(|job| job.order.as_ref());
        let ordered = order.and_then(|order| Some((order.assignment, order.deployment?)));
        match (ordered, deployment) {
            // Data of a deployment of the same name before. What was started for an earlier assignment may
            // be of it.
            (Some((assignment, wanted)), Some(owner)) if *owner != wanted => {
                self.found.get(key).is_some_and(|found| found.assignment < assignment)
            }
            _ => job.is_some() || self.found.contains_key(key) || self.busy.contains_key(key),
        }
    }

    /// Deletes the data of jobs that have been gone for long enough: see `leftovers`.
    pub(super) async fn clear_away(&mut self, folders: BTreeSet<Folder>) {
        while self.removals.try_join_next().is_some() {}
        if !self.heard || !self.removals.is_empty() {
            return;
        }
        let left: BTreeSet<_> = folders.into_iter().filter(|folder| !self.uses(folder)).collect();
        let now = self.parts.driver.boottime_ms();
        let step_ms_max = self.config.work.discover_every_ms.saturating_mul(2);
        for folder in self.leftovers.count(&left, now, step_ms_max) {
            let executor = self.executor.clone();
            let key = folder.key.clone();
            if self.busy.contains_key(&key) {
                // Data of another deployment of that name is being deleted: this is due again next time.
                continue;
            }
            if self.log.memory().job(&key).is_some() {
                // Another deployment's job of that name goes on meanwhile.
                self.removals.spawn(async move { executor.remove_data(&folder).await });
                continue;
            }
            // Busy, so that a new order for it waits until its old data is gone.
            self.busy.insert(key.clone(), Busy::Stopping);
            self.turn(&key);
            self.steps.spawn(executor.forget_data(folder));
        }
        if let Err(error) = self.leftovers.save(&self.parts.disk).await {
            tracing::warn!(%error, "could not write down since when jobs are gone");
        }
    }
}

/// Images that a job runs, is to run, or may fall back to.
fn in_use(memory: &Memory) -> BTreeSet<Digest> {
    let mut images = BTreeSet::new();
    for (_, job) in memory.jobs() {
        images.extend(job.order.iter().map(|order| order.scheduled.workload.image));
        images.extend(job.launch.iter().map(|launch| launch.workload.image));
        images.extend(job.good.iter().map(|good| good.image));
    }
    images
}
