//! The log against a model of it, against power cuts, and against flipped bits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::dice::Dice;
use crate::disk::real::{RealDisk, RealDiskConfig};
use crate::disk::simulated::{Injection, Loss, SimulatedDisk, SimulatedDiskConfig};
use crate::disk::{Disk, DiskFile};
use crate::fault::Fault;
use crate::lock;
use crate::log::record::{self, Walk};
use crate::log::segment::{Header, RECORDS_AT};
use crate::log::{Log, LogConfig};

const DIR: &str = "/log";
const VOTE: u8 = 1;
const COMMITTED: u8 = 2;

fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 4096,
        spare_segments_max: 1,
        batch_bytes_max: 1500,
        pending_bytes_max: 3000,
        cache_bytes_max: 600,
        idle_mark_ms: 20,
        lock_wait_ms: 50,
    }
}

fn disk(seed: u64) -> SimulatedDisk {
    SimulatedDisk::new(SimulatedDiskConfig {
        seed,
        sync_us: (100, 4000),
        ..SimulatedDiskConfig::default()
    })
}

fn bytes_of(index: u64, salt: u64) -> Bytes {
    let length = match (index % 31, salt % 5) {
        // More than a segment holds.
        (7, 3) => 5000,
        _ => 1 + (index.wrapping_mul(7).wrapping_add(salt) % 90) as usize,
    };
    Bytes::from(format!("{salt}/{index}/{}", "x".repeat(length)))
}

async fn open(disk: &SimulatedDisk) -> Log<SimulatedDisk> {
    Log::make(disk, Path::new(DIR), &small()).await.unwrap();
    Log::open(disk.clone(), Path::new(DIR), small()).await.unwrap()
}

async fn all<D: Disk>(log: &Log<D>) -> Vec<(u64, Bytes)> {
    log.read(log.first_index(), log.next_index(), u64::MAX).await.unwrap()
}

/// What a log must hold, by the plainest means.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    first: u64,
    next: u64,
    entries: BTreeMap<u64, Bytes>,
    states: BTreeMap<u8, Bytes>,
}

impl Model {
    async fn of<D: Disk>(log: &Log<D>) -> Model {
        let states = [VOTE, COMMITTED].into_iter();
        Model {
            first: log.first_index(),
            next: log.next_index(),
            entries: all(log).await.into_iter().collect(),
            states: states.filter_map(|key| Some((key, log.state(key)?))).collect(),
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Append(entries) => {
                self.next += entries.len() as u64;
                self.entries.extend(entries.iter().cloned());
            }
            Step::Vote(bytes) => drop(self.states.insert(VOTE, bytes.clone())),
            Step::Commit(bytes) => drop(self.states.insert(COMMITTED, bytes.clone())),
            Step::Truncate(next) if *next < self.next => {
                self.next = self.first.max(*next);
                self.entries.split_off(&self.next);
            }
            Step::Purge(first) if *first > self.first => {
                self.entries = self.entries.split_off(first);
                self.first = *first;
                self.next = self.next.max(*first);
            }
            Step::Truncate(_) | Step::Purge(_) | Step::Wait => {}
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<(u64, Bytes)>),
    Vote(Bytes),
    Commit(Bytes),
    Truncate(u64),
    Purge(u64),
    Wait,
}

impl Step {
    fn any(dice: &mut Dice, model: &Model, salt: u64) -> Step {
        let held = model.next - model.first;
        match dice.below(20) {
            0..=10 => {
                let entries = (0..1 + dice.below(6)).map(|ahead| model.next + ahead);
                Step::Append(entries.map(|index| (index, bytes_of(index, salt))).collect())
            }
            11..=12 => Step::Vote(Bytes::from(format!("vote {salt}"))),
            13 => Step::Commit(Bytes::from(format!("committed {salt}"))),
            14..=15 => Step::Truncate(model.next.saturating_sub(dice.below(8))),
            16..=17 => Step::Purge(model.first + dice.below(held + 1)),
            18 if dice.below(5) == 0 => Step::Purge(model.next + dice.below(5)),
            _ => Step::Wait,
        }
    }

    /// Runs the step; `durable` runs once it must survive anything.
    async fn run<D: Disk>(
        &self,
        log: &Log<D>,
        durable: impl FnOnce() + Send + 'static,
    ) -> Result<(), Fault> {
        match self {
            Step::Append(entries) => {
                let done = move |result: Result<(), Fault>| {
                    if result.is_ok() {
                        durable();
                    }
                };
                log.append(entries.clone(), done).await
            }
            Step::Vote(bytes) => {
                log.save_state(VOTE, bytes.clone()).await?;
                durable();
                Ok(())
            }
            Step::Commit(bytes) => log.save_state_later(COMMITTED, bytes.clone()),
            Step::Truncate(0) => log.truncate_after(None),
            Step::Truncate(next) => log.truncate_after(Some(next - 1)),
            Step::Purge(0) => Ok(()),
            Step::Purge(first) => log.purge_upto(first - 1),
            Step::Wait => {
                log.flush().await?;
                durable();
                Ok(())
            }
        }
    }
}

async fn behaves_as_the_model<D: Disk>(disk: D, dir: &Path, seed: u64, steps: u64) {
    let mut dice = Dice::new(seed);
    let mut model = Model::default();
    Log::make(&disk, dir, &small()).await.unwrap();
    let mut log = Log::open(disk.clone(), dir, small()).await.unwrap();
    for salt in 0..steps {
        let step = Step::any(&mut dice, &model, salt);
        model.apply(&step);
        step.run(&log, || ()).await.unwrap();
        if dice.below(10) == 0 {
            assert_eq!(Model::of(&log).await, model, "after {step:?}");
        }
        if dice.below(50) == 0 {
            log.close().await.unwrap();
            log = Log::open(disk.clone(), dir, small()).await.unwrap();
            assert_eq!(Model::of(&log).await, model, "opened anew after {step:?}");
        }
    }
    log.flush().await.unwrap();
    assert_eq!(log.status().durable_next, model.next);
    log.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn behaves_as_the_model_on_a_simulated_disk() {
    for seed in 0..40 {
        behaves_as_the_model(disk(seed), Path::new(DIR), seed, 400).await;
    }
}

#[tokio::test]
async fn behaves_as_the_model_on_the_real_disk() {
    let place = tempfile::tempdir().unwrap();
    let disk = RealDisk::start(&RealDiskConfig::new()).unwrap();
    behaves_as_the_model(disk, &place.path().join("log"), 7, 400).await;
}

/// Runs random steps on a disk that loses power after a random number of operations, and checks
/// that the log opened afterwards is what it was after some step at or past the last acknowledged.
async fn survives_a_cut(seed: u64) {
    let mut dice = Dice::new(seed);
    let mut disk = disk(seed);
    // States of the log after each step that is not known to be durable, oldest first.
    let mut history = vec![Model::default()];
    Log::make(&disk, Path::new(DIR), &small()).await.unwrap();
    for _life in 0..4 {
        let log = match Log::open(disk.clone(), Path::new(DIR), small()).await {
            Ok(log) => log,
            Err(fault) => panic!("seed {seed}: {fault}"),
        };
        let found = Model::of(&log).await;
        // A state that was saved for later may be later: that is its only freedom.
        let same = |model: &&Model| {
            let (mut model, states) = ((*model).clone(), found.states.get(&COMMITTED));
            model.states.remove(&COMMITTED);
            model.states.extend(states.map(|state| (COMMITTED, state.clone())));
            model == found
        };
        assert!(history.iter().any(|model| same(&model)), "seed {seed}: {found:?} of {history:?}");
        let mut model = found;
        let acknowledged = Arc::new(Mutex::new(0));
        history = vec![model.clone()];
        disk.inject(Injection::PowerOffAfter(1 + dice.below(120)));
        for salt in 0..200 {
            let step = Step::any(&mut dice, &model, salt);
            if dice.below(200) == 0 {
                disk.inject(Injection::FailNextSync);
            }
            // Of an append that was never acknowledged any beginning may survive.
            if let Step::Append(entries) = &step {
                for entry in entries {
                    model.apply(&Step::Append(vec![entry.clone()]));
                    history.push(model.clone());
                }
            } else {
                model.apply(&step);
                history.push(model.clone());
            }
            let (acknowledged, number) = (acknowledged.clone(), history.len() - 1);
            let durable = move || *lock(&acknowledged) = number;
            if step.run(&log, durable).await.is_err() {
                break;
            }
        }
        // What is in flight may still be acknowledged.
        drop(log.flush().await);
        history.drain(..*lock(&acknowledged));
        disk = disk.crash(Loss::any(&mut dice));
        drop(log);
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn power_cut_loses_nothing_acknowledged_and_invents_nothing() {
    for seed in 0..400 {
        survives_a_cut(seed).await;
    }
}

fn segment(number: u64) -> PathBuf {
    Path::new(DIR).join(super::segment_name(number))
}

async fn filled(disk: &SimulatedDisk, entries: u64) -> Log<SimulatedDisk> {
    let log = open(disk).await;
    for index in 0..entries {
        log.append_durably(vec![(index, bytes_of(index, 0))]).await.unwrap();
    }
    log
}

#[tokio::test(start_paused = true)]
async fn power_cut_tears_the_tail_and_what_survives_of_it_is_erased() {
    let mut survivors = 0;
    for seed in 0..200 {
        let disk = disk(seed);
        let log = filled(&disk, 5).await;
        let entries = (5..9).map(|index| (index, bytes_of(index, 1))).collect();
        disk.inject(Injection::PowerOffAfter(2));
        assert!(log.append_durably(entries).await.is_err());
        let disk = disk.crash(Loss::Torn);
        let bytes = disk.read_file(&segment(1), u64::MAX).await.unwrap();
        let mut walk = Walk::new(&bytes, RECORDS_AT, 1, 1);
        while walk.next().is_some() {}
        survivors += record::strays(&bytes, walk.offset, Some(1), walk.sequence).len();
        let log = open(&disk).await;
        let next = log.next_index();
        assert!((5..=9).contains(&next));
        // Entries of the same sizes, so that a survivor would fit behind them.
        log.append_durably(vec![(next, bytes_of(next, 1))]).await.unwrap();
        let disk = disk.crash(Loss::Unsynced);
        assert_eq!(open(&disk).await.next_index(), next + 1);
    }
    assert!(survivors > 0, "nothing survived that could have been taken for what came after");
}

/// Which bytes of a segment mean something, and which belong to its last record.
fn meaning(bytes: &[u8]) -> (Vec<bool>, std::ops::Range<usize>) {
    let header = Header::parse(bytes).unwrap().unwrap();
    let mut meant = vec![false; bytes.len()];
    meant[..64].fill(true);
    let mut last = 0..0;
    for (offset, found) in Walk::new(bytes, RECORDS_AT, header.generation, header.first_sequence) {
        last = offset..offset + record::HEADER + found.payload.len();
        meant[last.clone()].fill(true);
    }
    (meant, last)
}

#[tokio::test(start_paused = true)]
async fn every_flipped_bit_below_the_watermark_is_refused() {
    let disk = disk(1);
    let log = filled(&disk, 100).await;
    log.save_state(VOTE, Bytes::from_static(b"vote")).await.unwrap();
    let before = Model::of(&log).await;
    log.close().await.unwrap();
    let mut refused = 0;
    for number in 1..=3 {
        let path = segment(number);
        let bytes = disk.read_file(&path, u64::MAX).await.unwrap();
        let (meant, last) = meaning(&bytes);
        let newest = number == 3;
        for (offset, meant) in meant.into_iter().enumerate() {
            let damaged = disk.fork_durable();
            // The mark at the end is not synced, so it is not in the fork: put it there.
            let file = damaged.open(&path).await.unwrap();
            file.write_at_synced(0, bytes.clone()).await.unwrap();
            damaged.flip_bit(&path, offset as u64, (offset % 8) as u8).unwrap();
            let opened = Log::open(damaged, Path::new(DIR), small()).await;
            // Nothing vouches for the mark itself, and nothing is lost with it.
            if meant && !(newest && last.contains(&offset)) {
                refused += 1;
                let fault = opened.err();
                assert!(matches!(fault, Some(Fault::Corrupt { .. })), "{number}: {offset}");
            } else {
                assert_eq!(Model::of(&opened.unwrap()).await, before, "{number}: {offset}");
            }
        }
    }
    assert!(refused > 8000, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_lost_or_went_astray_is_refused_once_others_followed() {
    for injection in [Injection::LoseNextWrite, Injection::MisdirectNextWrite] {
        let disk = disk(3);
        let log = filled(&disk, 4).await;
        disk.inject(injection);
        log.append_durably(vec![(4, bytes_of(4, 0))]).await.unwrap();
        log.append_durably(vec![(5, bytes_of(5, 0))]).await.unwrap();
        log.close().await.unwrap();
        let opened = Log::open(disk, Path::new(DIR), small()).await;
        assert!(matches!(opened.err(), Some(Fault::Corrupt { .. })), "{injection:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_entry_is_refused_when_it_is_read_from_the_disk() {
    let disk = disk(4);
    let log = filled(&disk, 40).await;
    disk.flip_bit(&segment(1), RECORDS_AT as u64 + 120, 3).unwrap();
    let read = log.read(0, 40, u64::MAX).await;
    assert!(matches!(read, Err(Fault::Corrupt { .. })), "{read:?}");
    assert_eq!(log.read(39, 40, u64::MAX).await.unwrap(), [(39, bytes_of(39, 0))]);
}

#[tokio::test(start_paused = true)]
async fn the_first_fault_stops_the_log_for_everybody() {
    let disk = disk(5);
    let log = filled(&disk, 3).await;
    disk.inject(Injection::FailNextSync);
    let told = Arc::new(Mutex::new(Vec::new()));
    for index in 3..6 {
        let told = told.clone();
        let done = move |result: Result<(), Fault>| lock(&told).push(result.is_ok());
        log.append(vec![(index, bytes_of(index, 0))], done).await.unwrap();
    }
    let fault = log.save_state(VOTE, Bytes::from_static(b"vote")).await.unwrap_err();
    assert!(matches!(fault, Fault::Io { .. }), "{fault}");
    assert_eq!(*lock(&told), [false; 3]);
    assert!(log.append(vec![(6, bytes_of(6, 0))], drop).await.is_err());
    assert!(log.truncate_after(None).is_err());
    assert_eq!(log.status().durable_next, 3);
    assert!(log.close().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stops_the_log_and_loses_nothing() {
    let full = SimulatedDisk::new(SimulatedDiskConfig {
        capacity_bytes: Some(3 * 4096),
        ..SimulatedDiskConfig::default()
    });
    let log = open(&full).await;
    let mut next = 0;
    let fault = loop {
        match log.append_durably(vec![(next, bytes_of(next, 2))]).await {
            Ok(()) => next += 1,
            Err(fault) => break fault,
        }
    };
    assert!(matches!(fault, Fault::Full { .. }), "{fault}");
    let disk = full.crash(Loss::Unsynced);
    disk.configure(SimulatedDiskConfig::default());
    let log = open(&disk).await;
    assert!(log.next_index() >= next && next > 20, "{next}");
}

#[tokio::test(start_paused = true)]
async fn holes_and_entries_that_are_gone_are_named() {
    let disk = disk(6);
    let log = filled(&disk, 10).await;
    let gap = log.append(vec![(10, Bytes::new()), (12, Bytes::new())], drop).await;
    assert!(matches!(gap, Err(Fault::Gap { expected: 11, found: 12 })), "{gap:?}");
    log.purge_upto(3).unwrap();
    let gone = log.read(3, 6, u64::MAX).await;
    assert!(matches!(gone, Err(Fault::Missing { index: 3, first: 4, next: 10 })), "{gone:?}");
    assert_eq!(log.read(4, 10, 1).await.unwrap().len(), 1);
    let second = Log::open(disk.clone(), Path::new(DIR), small()).await;
    assert!(matches!(second.err(), Some(Fault::Locked { .. })));
}

#[tokio::test(start_paused = true)]
async fn purged_segments_are_used_again() {
    let disk = disk(7);
    let log = filled(&disk, 20).await;
    for index in 20..2000 {
        log.append_durably(vec![(index, bytes_of(index, 1))]).await.unwrap();
        log.purge_upto(index - 10).unwrap();
    }
    log.flush().await.unwrap();
    let files = disk.list(Path::new(DIR)).await.unwrap();
    assert!(files.len() <= 6, "{files:?}");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_gone_is_not_made_anew() {
    let disk = disk(8);
    let dir = Path::new(DIR);
    assert!(!Log::exists(&disk, dir).await.unwrap());
    let opened = Log::open(disk.clone(), dir, small()).await;
    assert!(matches!(opened.err(), Some(Fault::Corrupt { .. })), "never made");
    filled(&disk, 4).await.close().await.unwrap();
    assert!(Log::exists(&disk, dir).await.unwrap());
    // What is there stays.
    Log::make(&disk, dir, &small()).await.unwrap();
    assert_eq!(open(&disk).await.next_index(), 4);
    let disk = disk.crash(Loss::Nothing);
    for name in disk.list(dir).await.unwrap() {
        disk.remove(&dir.join(name)).await.unwrap();
    }
    assert!(!Log::exists(&disk, dir).await.unwrap());
    let opened = Log::open(disk.clone(), dir, small()).await;
    assert!(matches!(opened.err(), Some(Fault::Corrupt { .. })), "gone");
    assert!(!Log::exists(&disk, dir).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_log_of_a_newer_format_is_refused_by_name_and_left_as_it_is() {
    let disk = disk(8);
    filled(&disk, 10).await.close().await.unwrap();
    let file = disk.open(&segment(1)).await.unwrap();
    let mut header = file.read_at(0, 64).await.unwrap().to_vec();
    header[8] = 2;
    let checksum = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&checksum.to_le_bytes());
    file.write_at_synced(0, Bytes::from(header)).await.unwrap();
    let before = file.read_at(0, 1 << 20).await.unwrap();
    let fault = Log::open(disk.clone(), Path::new(DIR), small()).await.err().unwrap();
    let said = fault.to_string();
    for word in [segment(1).to_str().unwrap(), "version 2", "up to 1", "upgrade muster"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!fault.is_corrupt(), "a newer log is not a damaged one");
    let file = disk.open(&segment(1)).await.unwrap();
    assert_eq!(file.read_at(0, 1 << 20).await.unwrap(), before);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_measured_from_the_end() {
    let disk = disk(9);
    let log = open(&disk).await;
    for index in 0..100 {
        log.append_durably(vec![(index, Bytes::from(vec![0; 100]))]).await.unwrap();
    }
    let one = record::size(100) as u64;
    assert_eq!(log.first_within(99, 10 * one), 90);
    assert_eq!(log.first_within(99, 10 * one - 1), 91);
    assert_eq!(log.first_within(59, 10 * one), 50);
    assert_eq!(log.first_within(99, 0), 100);
    assert_eq!(log.first_within(99, u64::MAX), 0);
    log.purge_upto(95).unwrap();
    assert_eq!(log.first_within(99, 10 * one), 96);
}

#[tokio::test(start_paused = true)]
async fn what_waits_during_a_sync_shares_the_next_one() {
    let slow = SimulatedDiskConfig { sync_us: (5_000, 5_000), ..SimulatedDiskConfig::default() };
    let log = open(&SimulatedDisk::new(slow)).await;
    let before = log.status().syncs;
    let told = Arc::new(Mutex::new(0));
    // New work comes all the time, a fifth as long apart as a sync takes.
    for index in 0..200 {
        let told = told.clone();
        log.append(vec![(index, bytes_of(index, 0))], move |result| {
            result.unwrap();
            *lock(&told) += 1;
        })
        .await
        .unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    log.flush().await.unwrap();
    assert_eq!(*lock(&told), 200);
    let syncs = log.status().syncs - before;
    assert!((2..=60).contains(&syncs), "{syncs} syncs for 200 entries");
}
