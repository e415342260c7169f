//! Raft's own suite for stores, on our log, machine and snapshots, over both kinds of disk.

use crate::{
    keep::{JournalLimits, Keep, Position},
    log_store::LogStore,
    machine::{Machine, Shared},
    publish::{Published, RingLimits},
    snapshot_files::SnapshotFiles,
    types::Types,
};
use model::{NodeId, State};
use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use std::{path::PathBuf, sync::Arc};
use storage::{
    Disk,
    disk::{
        real::{RealDisk, RealDiskConfig},
        simulated::{SimulatedDisk, SimulatedDiskConfig},
    },
    kv::{
        KvHome,
        simulated::{SimulatedHome, SimulatedKvConfig},
    },
    log::{Log, LogConfig},
};

async fn build<D: Disk>(disk: D, dir: PathBuf) -> (LogStore<D>, Machine) {
    disk.create_dir(&dir).await.unwrap();
    let config = LogConfig { segment_bytes: 64 << 10, ..LogConfig::new() };
    Log::make(&disk, &dir.join("log"), &config).await.unwrap();
    let log = Log::open(disk.clone(), &dir.join("log"), config).await.unwrap();
    let snapshots = SnapshotFiles::open(disk, &dir.join("snapshots")).await.unwrap();
    let kv = SimulatedHome::new(SimulatedKvConfig::default()).open().unwrap();
    let keep = Keep::open(Arc::new(kv), JournalLimits::none()).unwrap();
    let limits = RingLimits { events_max: 16, changes_max: 16 };
    let published = Published::new(State::default(), limits, None);
    let config = Arc::new(super::world::config());
    let files = (Arc::new(snapshots) as Arc<_>, Arc::new(log.clone()) as Arc<_>);
    let shared = Shared::new((NodeId(1), config), published, keep, files);
    let machine = Machine::new(shared, Position::default());
    (LogStore::new(log, 1 << 20).unwrap(), machine)
}

struct OnSimulatedDisk;

impl StoreBuilder<Types, LogStore<SimulatedDisk>, Machine> for OnSimulatedDisk {
    async fn build(&self) -> Result<((), LogStore<SimulatedDisk>, Machine), StorageError<Types>> {
        let disk = SimulatedDisk::new(SimulatedDiskConfig::default());
        let (log_store, machine) = build(disk, PathBuf::from("/ledger")).await;
        Ok(((), log_store, machine))
    }
}

struct OnRealDisk;

impl StoreBuilder<Types, LogStore<RealDisk>, Machine, tempfile::TempDir> for OnRealDisk {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, LogStore<RealDisk>, Machine), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::start(&RealDiskConfig::new()).unwrap();
        let (log_store, machine) = build(disk, dir.path().join("ledger")).await;
        Ok((dir, log_store, machine))
    }
}

#[tokio::test(start_paused = true)]
async fn rafts_own_suite_passes_on_a_simulated_disk() {
    Suite::test_all(OnSimulatedDisk).await.unwrap();
}

#[tokio::test]
async fn rafts_own_suite_passes_on_a_real_disk() {
    Suite::test_all(OnRealDisk).await.unwrap();
}
