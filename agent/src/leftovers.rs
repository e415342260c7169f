//! Data of jobs that are gone, and when it is deleted.
//!
//! The rule: the data of a job stays as long as this agent remembers the job or its driver knows it.
//! When control has no order for it any more and nothing of it is left, its data is kept for
//! `data_keep_ms` more and then deleted, a few folders at each look at the machine. An order does not
//! tell why the one before was withdrawn: a deployment that was deleted and a job that was moved look
//! alike from here. So the time is what protects data: a job that comes back within it finds its data;
//! after it, it starts empty. Data belongs to the job of one deployment ([`Folder`]): a deployment made
//! again under the same name starts empty at once, and the data of the one before waits beside it.
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
use crate::naming::Folder;

/// Largest file read, in bytes: [`LeftoversConfig::tracked_max`] entries of the longest keys fit.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Parts into which the time is divided by writing it down.
const SAVES: u64 = 24;

/// A job that is gone, as written down.
#[derive(Serialize, Deserialize)]
struct Gone {
    #[serde(flatten)]
    folder: Folder,
    /// For how long, as far as it was counted.
    gone_ms: u64,
}

/// Counts for how long jobs with data have been gone.
#[derive(Debug)]
pub(crate) struct Leftovers {
    config: LeftoversConfig,
    path: PathBuf,
    gone: BTreeMap<Folder, u64>,
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
        let gone = known.into_iter().map(|one| (one.folder, one.gone_ms)).collect();
        Self { config, path, gone, counted_at_boot_ms: None, unsaved_ms: Some(0) }
    }

    /// The session began or ended: the time until orders are heard does not count.
    pub(crate) fn pause(&mut self) {
        self.counted_at_boot_ms = None;
    }

    /// Control has an order for a job of a deployment: its data is in use, or will be.
    pub(crate) fn wanted(&mut self, folder: &Folder) {
        let unowned = Folder { deployment: None, ..folder.clone() };
        for folder in [folder, &unowned] {
            if self.gone.remove(folder).is_some() {
                self.unsaved_ms = None;
            }
        }
    }

    /// Counts, for the data that nobody uses any more. Of the time since the last count at most
    /// `step_ms_max` counts: the machine may have been suspended. Which data is to be deleted now.
    pub(crate) fn count(
        &mut self,
        left: &BTreeSet<Folder>,
        now_boot_ms: u64,
        step_ms_max: u64,
    ) -> Vec<Folder> {
        let since = self.counted_at_boot_ms.map_or(0, |at| now_boot_ms.saturating_sub(at));
        let step_ms = since.min(step_ms_max);
        self.counted_at_boot_ms = Some(now_boot_ms);
        self.unsaved_ms = self.unsaved_ms.map(|unsaved| unsaved.saturating_add(step_ms));
        let before = self.gone.len();
        self.gone.retain(|folder, _| left.contains(folder));
        let mut changed = self.gone.len() != before;
        for gone_ms in self.gone.values_mut() {
            *gone_ms = gone_ms.saturating_add(step_ms);
        }
        for folder in left {
            if self.gone.len() >= self.config.tracked_max {
                break;
            }
            let gone_ms = *self.gone.get(folder).unwrap_or(&0);
            changed |= self.gone.insert(folder.clone(), gone_ms).is_none();
        }
        if changed {
            self.unsaved_ms = None;
        }
        let over = |(_, gone_ms): &(&Folder, &u64)| **gone_ms >= self.config.data_keep_ms;
        let due = self.gone.iter().filter(over).take(self.config.removed_max);
        due.map(|(folder, _)| folder.clone()).collect()
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
        let gone =
            |(folder, gone_ms): (&Folder, &u64)| Gone { folder: folder.clone(), gone_ms: *gone_ms };
        let gone: Vec<Gone> = self.gone.iter().map(gone).collect();
        let text = serde_json::to_vec(&gone).unwrap_or_default();
        disk.replace_file(&self.path, text.into()).await?;
        self.unsaved_ms = Some(0);
        Ok(())
    }
}

/// The data folders of a tenant's jobs below `root`. What cannot be listed, or is no folder of a job, is
/// left out.
pub(crate) async fn folders<D: Disk>(disk: D, root: PathBuf, tenant: Name) -> BTreeSet<Folder> {
    let mut folders = BTreeSet::new();
    let top = root.join("data").join(tenant.as_str());
    for (deployment, dir) in names(&disk, &top).await {
        for (cluster, dir) in names(&disk, &dir).await {
            for (application, dir) in names(&disk, &dir).await {
                for text in disk.list(&dir).await.unwrap_or_default() {
                    let Some((slot, owner)) = Folder::named(&text) else { continue };
                    let (tenant, deployment) = (tenant.clone(), deployment.clone());
                    let (cluster, application) = (cluster.clone(), application.clone());
                    let key = JobKey { tenant, deployment, cluster, application, slot };
                    folders.insert(Folder { key, deployment: owner });
                }
            }
        }
    }
    folders
}

async fn names<D: Disk>(disk: &D, dir: &Path) -> Vec<(Name, PathBuf)> {
    let listed = disk.list(dir).await.unwrap_or_default();
    let named = |text: String| Some((Name::new(&text).ok()?, dir.join(text)));
    listed.into_iter().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use model::{Revision, Slot, Uid};
    use storage::disk::real::{RealDisk, RealDiskConfig};

    use super::*;

    const HOUR_MS: u64 = 60 * 60 * 1_000;

    fn folder(number: u32) -> Folder {
        let name = |text: &str| Name::new(text).unwrap();
        let key = JobKey {
            tenant: name("acme"),
            deployment: name("shop"),
            cluster: name("north"),
            application: name("web"),
            slot: Slot::Partition(number),
        };
        Folder { key, deployment: Some(Uid { revision: Revision(41), ordinal: 0 }) }
    }

    async fn open(place: &Path, config: LeftoversConfig) -> (RealDisk, Leftovers) {
        let disk = RealDisk::start(&RealDiskConfig::new()).unwrap();
        let leftovers = Leftovers::open(&disk, place.join("leftovers.json"), config).await;
        (disk, leftovers)
    }

    #[tokio::test]
    async fn data_is_kept_for_its_time_across_restarts_and_not_for_lost_contact() {
        let place = tempfile::tempdir().unwrap();
        let left = BTreeSet::from([folder(1)]);
        let mut now = 0;
        let mut hours_counted = 0;
        // Every hour the agent is started again, and out of touch for ten.
        loop {
            let (disk, mut leftovers) = open(place.path(), LeftoversConfig::default()).await;
            leftovers.count(&left, now, HOUR_MS);
            leftovers.pause();
            now += 10 * HOUR_MS;
            leftovers.count(&left, now, HOUR_MS);
            now += HOUR_MS;
            let due = leftovers.count(&left, now, HOUR_MS);
            leftovers.save(&disk).await.unwrap();
            hours_counted += 1;
            if !due.is_empty() {
                assert_eq!(due, [folder(1)]);
                break;
            }
            assert!(hours_counted < 100, "never due");
        }
        assert_eq!(hours_counted, 24);
    }

    #[tokio::test]
    async fn a_job_that_comes_back_keeps_its_data_and_a_suspended_machine_counts_little() {
        let place = tempfile::tempdir().unwrap();
        let (_disk, mut leftovers) = open(place.path(), LeftoversConfig::default()).await;
        let left = BTreeSet::from([folder(1), folder(2)]);
        leftovers.count(&left, 0, 2 * HOUR_MS);
        assert!(leftovers.count(&left, 500 * HOUR_MS, 2 * HOUR_MS).is_empty(), "it was suspended");
        let mut now = 500 * HOUR_MS;
        for _ in 0..21 {
            now += HOUR_MS;
            assert!(leftovers.count(&left, now, 2 * HOUR_MS).is_empty());
        }
        leftovers.wanted(&folder(1));
        now += HOUR_MS;
        assert_eq!(leftovers.count(&left, now, 2 * HOUR_MS), [folder(2)], "1 begins anew");
    }

    #[tokio::test]
    async fn a_deployment_made_again_leaves_the_data_of_the_one_before_to_its_time() {
        let place = tempfile::tempdir().unwrap();
        let (_disk, mut leftovers) = open(place.path(), LeftoversConfig::default()).await;
        let left = BTreeSet::from([folder(1)]);
        leftovers.count(&left, 0, HOUR_MS);
        leftovers.count(&left, HOUR_MS, HOUR_MS);
        let uid = Uid { revision: Revision(99), ordinal: 0 };
        leftovers.wanted(&Folder { deployment: Some(uid), ..folder(1) });
        assert_eq!(leftovers.gone[&folder(1)], HOUR_MS, "another one is wanted");
    }

    #[tokio::test]
    async fn what_was_counted_before_owners_were_kept_is_read() {
        let place = tempfile::tempdir().unwrap();
        let unowned = Folder { deployment: None, ..folder(1) };
        let key = serde_json::to_value(&unowned.key).unwrap();
        let text = serde_json::json!([{ "key": key, "gone_ms": 7 }]).to_string();
        std::fs::write(place.path().join("leftovers.json"), text).unwrap();
        let (_disk, leftovers) = open(place.path(), LeftoversConfig::default()).await;
        assert_eq!(leftovers.gone, BTreeMap::from([(unowned, 7)]));
    }

    #[tokio::test]
    async fn a_look_deletes_no_more_than_it_may_and_tracks_no_more() {
        let place = tempfile::tempdir().unwrap();
        let config = LeftoversConfig { data_keep_ms: 0, removed_max: 2, tracked_max: 3 };
        let (_disk, mut leftovers) = open(place.path(), config).await;
        let left: BTreeSet<Folder> = (0..5).map(folder).collect();
        assert_eq!(leftovers.count(&left, 0, HOUR_MS), [folder(0), folder(1)]);
        assert_eq!(leftovers.gone.len(), 3);
        let left: BTreeSet<Folder> = (2..5).map(folder).collect();
        assert_eq!(leftovers.count(&left, 1, HOUR_MS), [folder(2), folder(3)]);
        assert_eq!(leftovers.gone.len(), 3);
    }

    #[tokio::test]
    async fn the_folders_of_jobs_are_read_back_as_their_keys_and_owners() {
        let place = tempfile::tempdir().unwrap();
        let disk = RealDisk::start(&RealDiskConfig::new()).unwrap();
        let mut made = BTreeSet::new();
        for slot in [Slot::Partition(4), Slot::Run(2), Slot::Host(Name::new("till-1").unwrap())] {
            let Folder { key, deployment } = folder(0);
            let key = JobKey { slot, ..key };
            for deployment in [deployment, None] {
                let folder = Folder { key: key.clone(), deployment };
                std::fs::create_dir_all(folder.path(place.path())).unwrap();
                made.insert(folder);
            }
        }
        let other = place.path().join("data/acme/shop/north/web/lost+found");
        std::fs::create_dir_all(other).unwrap();
        std::fs::create_dir_all(place.path().join("data/other/shop/north/web/1")).unwrap();
        let tenant = Name::new("acme").unwrap();
        assert_eq!(folders(disk, place.path().to_owned(), tenant).await, made);
    }
}
