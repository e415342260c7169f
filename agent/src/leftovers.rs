//! Data of jobs that are gone, and when it is deleted.
//!
//! The rule: the data of a job stays as long as this agent remembers the job or its driver knows it.
//! When control has no order for it any more and nothing of it is left, its data is kept for
//! `data_keep_ms` more and then deleted, a few folders at each look at the machine. An order does not
//! tell why the one before was withdrawn: a deployment that was deleted and a job that was moved look
//! alike from here. So the time is what protects data: a job that comes back within it finds its data,
//! and so does one of a deployment that was created again under the same name within it; after it,
//! both start empty.
//!
//! Only time counts in which orders were heard in the session in force, from one look to the next: an
//! agent without a link, or one that lost its memory, does not know what is gone. It is counted on the
//! boot clock and added up in a file: the wall clock of an edge machine may jump by years.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use model::{JobKey, Name};
use serde::{Deserialize, Serialize};
use storage::{Disk, Fault};

use crate::config::LeftoversConfig;
use crate::naming;

/// Largest file read, in bytes: [`LeftoversConfig::tracked_max`] entries of the longest keys fit.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Parts into which the time is divided by writing it down.
const SAVES: u64 = 24;

/// A job that is gone, as written down.
#[derive(Serialize, Deserialize)]
struct Gone {
    key: JobKey,
    /// For how long, as far as it was counted.
    gone_ms: u64,
}

/// Counts for how long jobs with data have been gone.
#[derive(Debug)]
pub(crate) struct Leftovers {
    config: LeftoversConfig,
    path: PathBuf,
    gone: BTreeMap<JobKey, u64>,
    /// When it was counted last; `None` when the time since does not count.
    counted_at_boot_ms: Option<u64>,
    /// Time counted that is not written down; `None` if which jobs are gone is not.
    unsaved_ms: Option<u64>,
}

impl Leftovers {
    /// Reads what was written down. A file that cannot be read costs time, not data: all counts begin
    /// anew.
    pub(crate) async fn open<D: Disk>(disk: &D, path: PathBuf, config: LeftoversConfig) -> Self {
        let text = disk.read_file(&path, FILE_BYTES_MAX).await.unwrap_or_default();
        let known: Vec<Gone> = serde_json::from_slice(&text).unwrap_or_default();
        let gone = known.into_iter().map(|one| (one.key, one.gone_ms)).collect();
        Self { config, path, gone, counted_at_boot_ms: None, unsaved_ms: Some(0) }
    }

    /// The session began or ended: the time until orders are heard does not count.
    pub(crate) fn pause(&mut self) {
        self.counted_at_boot_ms = None;
    }

    /// Control has an order for a job: its data is in use.
    pub(crate) fn wanted(&mut self, key: &JobKey) {
        if self.gone.remove(key).is_some() {
            self.unsaved_ms = None;
        }
    }

    /// Counts, for the jobs that have data and are known to nobody any more. Of the time since the last
    /// count at most `step_ms_max` counts: the machine may have been suspended. Which jobs' data is to
    /// be deleted now.
    pub(crate) fn count(
        &mut self,
        left: &BTreeSet<JobKey>,
        now_boot_ms: u64,
        step_ms_max: u64,
    ) -> Vec<JobKey> {
        let since = self.counted_at_boot_ms.map_or(0, |at| now_boot_ms.saturating_sub(at));
        let step_ms = since.min(step_ms_max);
        self.counted_at_boot_ms = Some(now_boot_ms);
        self.unsaved_ms = self.unsaved_ms.map(|unsaved| unsaved.saturating_add(step_ms));
        let before = self.gone.len();
        self.gone.retain(|key, _| left.contains(key));
        let mut changed = self.gone.len() != before;
        for gone_ms in self.gone.values_mut() {
            *gone_ms = gone_ms.saturating_add(step_ms);
        }
        for key in left {
            if self.gone.len() >= self.config.tracked_max {
                break;
            }
            changed |= self.gone.insert(key.clone(), *self.gone.get(key).unwrap_or(&0)).is_none();
        }
        if changed {
            self.unsaved_ms = None;
        }
        let over = |(_, gone_ms): &(&JobKey, &u64)| **gone_ms >= self.config.data_keep_ms;
        let due = self.gone.iter().filter(over).take(self.config.removed_max);
        due.map(|(key, _)| key.clone()).collect()
    }

    /// Writes down what was counted, if enough of it is new.
    ///
    /// # Errors
    /// When the disk fails; the counts of this run are still right.
    pub(crate) async fn save<D: Disk>(&mut self, disk: &D) -> Result<(), Fault> {
        if self.unsaved_ms.is_some_and(|unsaved| unsaved < self.config.data_keep_ms / SAVES) {
            return Ok(());
        }
        if self.unsaved_ms.is_some() && self.gone.is_empty() {
            return Ok(());
        }
        let gone = |(key, gone_ms): (&JobKey, &u64)| Gone { key: key.clone(), gone_ms: *gone_ms };
        let gone: Vec<Gone> = self.gone.iter().map(gone).collect();
        let text = serde_json::to_vec(&gone).unwrap_or_default();
        disk.replace_file(&self.path, text.into()).await?;
        self.unsaved_ms = Some(0);
        Ok(())
    }
}

/// The jobs of a tenant that have a data folder below `root`. What cannot be listed, or is no folder of
/// a job, is left out.
pub(crate) async fn folders<D: Disk>(disk: D, root: PathBuf, tenant: Name) -> BTreeSet<JobKey> {
    let mut keys = BTreeSet::new();
    let top = root.join("data").join(tenant.as_str());
    for (deployment, dir) in names(&disk, &top).await {
        for (cluster, dir) in names(&disk, &dir).await {
            for (application, dir) in names(&disk, &dir).await {
                for slot in disk.list(&dir).await.unwrap_or_default() {
                    let Some(slot) = naming::slot(&slot) else { continue };
                    let (tenant, deployment) = (tenant.clone(), deployment.clone());
                    let (cluster, application) = (cluster.clone(), application.clone());
                    keys.insert(JobKey { tenant, deployment, cluster, application, slot });
                }
            }
        }
    }
    keys
}

async fn names<D: Disk>(disk: &D, dir: &Path) -> Vec<(Name, PathBuf)> {
    let listed = disk.list(dir).await.unwrap_or_default();
    let named = |text: String| Some((Name::new(&text).ok()?, dir.join(text)));
    listed.into_iter().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use model::Slot;
    use storage::disk::real::{RealDisk, RealDiskConfig};

    use super::*;

    const HOUR_MS: u64 = 60 * 60 * 1_000;

    fn key(number: u32) -> JobKey {
        let name = |text: &str| Name::new(text).unwrap();
        JobKey {
            tenant: name("acme"),
            deployment: name("shop"),
            cluster: name("north"),
            application: name("web"),
            slot: Slot::Partition(number),
        }
    }

    async fn open(folder: &Path, config: LeftoversConfig) -> (RealDisk, Leftovers) {
        let disk = RealDisk::start(&RealDiskConfig::new()).unwrap();
        let leftovers = Leftovers::open(&disk, folder.join("leftovers.json"), config).await;
        (disk, leftovers)
    }

    #[tokio::test]
    async fn data_is_kept_for_its_time_across_restarts_and_not_for_lost_contact() {
        let folder = tempfile::tempdir().unwrap();
        let left = BTreeSet::from([key(1)]);
        let mut now = 0;
        let mut hours_counted = 0;
        // Every hour the agent is started again, and out of touch for ten.
        loop {
            let (disk, mut leftovers) = open(folder.path(), LeftoversConfig::default()).await;
            leftovers.count(&left, now, HOUR_MS);
            leftovers.pause();
            now += 10 * HOUR_MS;
            leftovers.count(&left, now, HOUR_MS);
            now += HOUR_MS;
            let due = leftovers.count(&left, now, HOUR_MS);
            leftovers.save(&disk).await.unwrap();
            hours_counted += 1;
            if !due.is_empty() {
                assert_eq!(due, [key(1)]);
                break;
            }
            assert!(hours_counted < 100, "never due");
        }
        assert_eq!(hours_counted, 24);
    }

    #[tokio::test]
    async fn a_job_that_comes_back_keeps_its_data_and_a_suspended_machine_counts_little() {
        let folder = tempfile::tempdir().unwrap();
        let (_disk, mut leftovers) = open(folder.path(), LeftoversConfig::default()).await;
        let left = BTreeSet::from([key(1), key(2)]);
        leftovers.count(&left, 0, 2 * HOUR_MS);
        assert!(leftovers.count(&left, 500 * HOUR_MS, 2 * HOUR_MS).is_empty(), "it was suspended");
        let mut now = 500 * HOUR_MS;
        for _ in 0..21 {
            now += HOUR_MS;
            assert!(leftovers.count(&left, now, 2 * HOUR_MS).is_empty());
        }
        leftovers.wanted(&key(1));
        now += HOUR_MS;
        assert_eq!(leftovers.count(&left, now, 2 * HOUR_MS), [key(2)], "1 begins anew");
    }

    #[tokio::test]
    async fn a_look_deletes_no_more_than_it_may_and_tracks_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let config = LeftoversConfig { data_keep_ms: 0, removed_max: 2, tracked_max: 3 };
        let (_disk, mut leftovers) = open(folder.path(), config).await;
        let left: BTreeSet<JobKey> = (0..5).map(key).collect();
        assert_eq!(leftovers.count(&left, 0, HOUR_MS), [key(0), key(1)]);
        assert_eq!(leftovers.gone.len(), 3);
        let left: BTreeSet<JobKey> = (2..5).map(key).collect();
        assert_eq!(leftovers.count(&left, 1, HOUR_MS), [key(2), key(3)]);
        assert_eq!(leftovers.gone.len(), 3);
    }

    #[tokio::test]
    async fn the_folders_of_jobs_are_read_back_as_their_keys() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::start(&RealDiskConfig::new()).unwrap();
        let mut keys = BTreeSet::new();
        for slot in [Slot::Partition(4), Slot::Run(2), Slot::Host(Name::new("till-1").unwrap())] {
            let key = JobKey { slot, ..key(0) };
            std::fs::create_dir_all(naming::data_dir(folder.path(), &key)).unwrap();
            keys.insert(key);
        }
        let other = folder.path().join("data/acme/shop/north/web/lost+found");
        std::fs::create_dir_all(other).unwrap();
        std::fs::create_dir_all(folder.path().join("data/other/shop/north/web/1")).unwrap();
        let tenant = Name::new("acme").unwrap();
        assert_eq!(folders(disk, folder.path().to_owned(), tenant).await, keys);
    }
}
