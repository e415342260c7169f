//! A [`Kv`] in memory with the crash behaviour of a log-structured engine.
//!
//! Batches are visible at once and durable after a sync, which takes virtual time. A crash keeps
//! the durable map and any prefix of the unsynced batches, and may leave a store that does not
//! open: that is an everyday event with the real engine, so it is one here. Handles belong to one
//! life of the machine, as with `SimulatedDisk`.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use crate::dice::Dice;
use crate::disk::simulated::Loss;
use crate::fault::Fault;
use crate::kv::{Batch, Kv, KvHome, Row, Show};
use crate::lock;

/// How a [`SimulatedHome`] behaves.
#[derive(Debug, Clone, Default)]
pub struct SimulatedKvConfig {
    /// Where all its randomness comes from.
    pub seed: u64,
    /// Shortest and longest time of a sync, microseconds of tokio time. Both 0: no time passes.
    pub sync_us: (u64, u64),
    /// Syncs in a million that fail; the batches they covered stay unsynced.
    pub sync_errors_per_million: u32,
    /// Power cuts in a million that leave a store that does not open.
    pub wrecks_per_million: u32,
}

type Map = BTreeMap<Vec<u8>, Bytes>;

struct Engine {
    config: SimulatedKvConfig,
    dice: Dice,
    live: Map,
    durable: Map,
    /// Batches that a sync would make durable, oldest first.
    unsynced: Vec<Batch>,
    applied: u64,
    life: u64,
    wrecked: bool,
    set_aside: u64,
}

/// The place of a simulated store: opens it, and crashes it.
#[derive(Clone)]
pub struct SimulatedHome {
    engine: Arc<Mutex<Engine>>,
}

/// A simulated store in the hands of one life of its machine.
#[derive(Clone)]
pub struct SimulatedKv {
    engine: Arc<Mutex<Engine>>,
    life: u64,
}

const PLACE: &str = "simulated store";

impl SimulatedHome {
    /// An empty store.
    pub fn new(config: SimulatedKvConfig) -> SimulatedHome {
        let engine = Engine {
            dice: Dice::new(config.seed),
            config,
            live: Map::new(),
            durable: Map::new(),
            unsynced: Vec::new(),
            applied: 0,
            life: 0,
            wrecked: false,
            set_aside: 0,
        };
        SimulatedHome { engine: Arc::new(Mutex::new(engine)) }
    }

    /// Ends this life of the machine: every handle fails from now on and `loss` is taken.
    pub fn crash(&self, loss: Loss) {
        let mut engine = lock(&self.engine);
        let engine = &mut *engine;
        engine.life += 1;
        let unsynced = engine.unsynced.len() as u64;
        let kept = match loss {
            Loss::Nothing => return,
            Loss::Unsynced => 0,
            Loss::Prefix | Loss::Torn | Loss::Subset => engine.dice.below(unsynced + 1),
        };
        engine.promote(kept as usize);
        engine.unsynced.clear();
        engine.live = engine.durable.clone();
        let rate = engine.config.wrecks_per_million;
        engine.wrecked |= engine.dice.chance(rate);
    }

    /// Damages the store so that it does not open until it is set aside.
    pub fn wreck(&self) {
        lock(&self.engine).wrecked = true;
    }
}

impl KvHome for SimulatedHome {
    type Kv = SimulatedKv;

    fn place(&self) -> PathBuf {
        PLACE.into()
    }

    fn open(&self) -> Result<SimulatedKv, Fault> {
        let mut engine = lock(&self.engine);
        if engine.wrecked {
            return Err(Fault::corrupt("store", Path::new(PLACE), 0, "torn page"));
        }
        engine.life += 1;
        Ok(SimulatedKv { engine: self.engine.clone(), life: engine.life })
    }

    fn set_aside(&self) -> Result<String, Fault> {
        let mut engine = lock(&self.engine);
        engine.life += 1;
        engine.wrecked = false;
        engine.live.clear();
        engine.durable.clear();
        engine.unsynced.clear();
        engine.set_aside += 1;
        Ok(format!("{PLACE}.aside-{}", engine.set_aside))
    }
}

impl Engine {
    fn promote(&mut self, batches: usize) {
        for batch in self.unsynced.drain(..batches) {
            change(&mut self.durable, batch);
        }
    }
}

fn change(map: &mut Map, batch: Batch) {
    for (key, value) in batch.into_changes() {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

impl SimulatedKv {
    fn with<T>(
        &self,
        attempted: &'static str,
        work: impl FnOnce(&mut Engine) -> io::Result<T>,
    ) -> Result<T, Fault> {
        let mut engine = lock(&self.engine);
        let answer = match engine.life == self.life {
            true => work(&mut engine),
            false => Err(io::Error::other("the machine is off")),
        };
        answer.map_err(|source| Fault::io(attempted, Path::new(PLACE), source))
    }
}

impl Kv for SimulatedKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.with("read", |engine| Ok(engine.live.get(key).cloned()))
    }

    fn range(&self, from: &[u8], to: &[u8], rows_max: usize) -> Result<Vec<Row>, Fault> {
        if from >= to {
            return Ok(Vec::new());
        }
        self.with("read", |engine| {
            let rows = engine.live.range(from.to_vec()..to.to_vec()).take(rows_max);
            Ok(rows.map(|(key, value)| (key.clone(), value.clone())).collect())
        })
    }

    fn visit(&self, from: &[u8], to: &[u8], show: &mut Show<'_>) -> Result<(), Fault> {
        if from >= to {
            return Ok(());
        }
        self.with("read", |engine| {
            for (key, value) in engine.live.range(from.to_vec()..to.to_vec()) {
                if show(key, value)?.is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Row>, Fault> {
        if from >= to {
            return Ok(None);
        }
        self.with("read", |engine| {
            let row = engine.live.range(from.to_vec()..to.to_vec()).next_back();
            Ok(row.map(|(key, value)| (key.clone(), value.clone())))
        })
    }

    fn apply(&self, batch: Batch) -> Result<(), Fault> {
        self.with("write", |engine| {
            change(&mut engine.live, batch.clone());
            engine.unsynced.push(batch);
            engine.applied += 1;
            Ok(())
        })
    }

    fn sync(&self) -> impl Future<Output = Result<(), Fault>> + Send + 'static {
        let kv = self.clone();
        // What the sync covers is decided by the call, not by when its future runs.
        let begun = kv.with("sync", |engine| {
            let (low, high) = engine.config.sync_us;
            let pause = if high == 0 { 0 } else { engine.dice.between(low, high) };
            Ok((engine.applied, Duration::from_micros(pause)))
        });
        async move {
            let (upto, pause) = begun?;
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            kv.with("sync", |engine| {
                let rate = engine.config.sync_errors_per_million;
                if engine.dice.chance(rate) {
                    return Err(io::Error::other("input/output error"));
                }
                // Batches applied since the call stay unsynced.
                let later = (engine.applied - upto) as usize;
                engine.promote(engine.unsynced.len().saturating_sub(later));
                Ok(())
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::open_or_set_aside;

    fn batch(number: u64) -> Batch {
        let mut batch = Batch::new();
        // Two rows that must never be seen apart.
        batch.put("a", number.to_be_bytes().to_vec());
        batch.put(format!("b{number}"), "");
        batch
    }

    #[tokio::test(start_paused = true)]
    async fn power_cut_keeps_a_prefix_of_batches_with_all_that_were_synced() {
        for seed in 0..200 {
            let mut dice = Dice::new(seed);
            let home = SimulatedHome::new(SimulatedKvConfig {
                seed,
                sync_us: (100, 2000),
                ..SimulatedKvConfig::default()
            });
            let kv = home.open().unwrap();
            let (mut applied, mut synced) = (0, 0);
            for _ in 0..dice.below(30) {
                applied += 1;
                kv.apply(batch(applied)).unwrap();
                if dice.below(5) == 0 {
                    kv.sync().await.unwrap();
                    synced = applied;
                }
            }
            home.crash(Loss::Prefix);
            assert!(kv.apply(batch(0)).is_err(), "the old handle is dead");
            let kv = home.open().unwrap();
            let last = kv.get(b"a").unwrap();
            let last = last.map_or(0, |row| u64::from_be_bytes(row[..].try_into().unwrap()));
            assert!((synced..=applied).contains(&last), "{last} of {synced}..={applied}");
            let rows = kv.range(b"b", b"c", usize::MAX).unwrap();
            assert_eq!(rows.len() as u64, last);
        }
    }

    #[test]
    fn a_wrecked_store_is_set_aside_and_a_held_one_is_not() {
        let home = SimulatedHome::new(SimulatedKvConfig::default());
        home.open().unwrap().apply(batch(1)).unwrap();
        let opened = open_or_set_aside(&home).unwrap();
        assert!(opened.set_aside.is_none());
        assert!(opened.kv.get(b"a").unwrap().is_some());
        home.wreck();
        let opened = open_or_set_aside(&home).unwrap();
        assert!(opened.set_aside.is_some_and(|(fault, _)| fault.is_corrupt()));
        assert_eq!(opened.kv.get(b"a").unwrap(), None);
    }
}
