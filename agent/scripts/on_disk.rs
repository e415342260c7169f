//! The memory on a disk that loses power: what was remembered is there afterwards.

use std::path::Path;

use agent::memory::log::{LogConfig, MemoryLog};
use agent::memory::{Bounds, Memory};
use proptest::prelude::*;
use storage::disk::simulated::{Loss, SimulatedDisk, SimulatedDiskConfig};
use storage::{Dice, Disk};

use crate::properties::{Happening, Life, described, lives};

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_was_remembered_survives_a_power_cut(life in lives(), seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(live(&life, seed))?;
    }
}

/// Lives a life with a real log beside the fake host's, and cuts the power at each restart. The log
/// is rewritten often.
async fn live(life: &[Happening], seed: u64) -> Result<(), TestCaseError> {
    let mut dice = Dice::new(seed);
    let mut disk = SimulatedDisk::new(SimulatedDiskConfig { seed, ..Default::default() });
    let path = Path::new("agent/memory");
    disk.create_dir(Path::new("agent")).await.unwrap();
    let config = LogConfig { rewrite_at_bytes: 4_096, ..LogConfig::default() };
    let mut log = MemoryLog::open(disk.clone(), path, config.clone()).await.unwrap();
    let mut world = Life::new();
    let mut written = 0;
    for happening in life {
        world.happen(happening);
        let records = world.host.log.split_at(written).1;
        log.remember(records).await.unwrap();
        written = world.host.log.len();
        if let Happening::Restart | Happening::Reboot = happening {
            disk = disk.crash(Loss::any(&mut dice));
            log = MemoryLog::open(disk.clone(), path, config.clone()).await.unwrap();
        }
        let mut expected = Memory::new(Bounds::default());
        world.host.log.iter().for_each(|record| expected.apply(record));
        let mut found = log.memory().clone();
        // Delays are not kept across a restart.
        expected.wake();
        found.wake();
        prop_assert_eq!(described(&found), described(&expected));
    }
    Ok(())
}
