//! The suites that both sides of each seam must pass.
//!
//! A simulated disk is worth what it has in common with a real one: the same random operations, from
//! the same seed, must give the same answers on both, which are those of a plain model kept beside
//! them. The suites panic at the first difference, naming the step. They say nothing about power
//! cuts, which no test can ask of a real disk; those are the `power_cut` tests of each module.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::dice::Dice;
use crate::disk::{Disk, DiskFile};
use crate::fault::Fault;
use crate::kv::{Batch, Kv, KvHome};

/// Runs `steps` random operations below the new directory `root` of `disk`.
pub async fn disk<D: Disk>(disk: D, root: &Path, seed: u64, steps: u64) -> Result<(), Fault> {
    disk.create_dir(root).await?;
    disk.create_dir(&root.join("inner")).await?;
    disk.create_dir(root).await?;
    locks(&disk, root).await?;
    let mut run = DiskRun {
        disk,
        root: root.to_path_buf(),
        dice: Dice::new(seed),
        files: BTreeMap::new(),
        open: BTreeMap::new(),
    };
    for step in 0..steps {
        run.step().await?;
        if step % 16 == 0 {
            run.compare(step).await?;
        }
    }
    run.compare(steps).await
}

async fn locks<D: Disk>(disk: &D, root: &Path) -> Result<(), Fault> {
    let path = root.join("inner").join("lock");
    let held = disk.lock(&path).await?;
    assert!(matches!(disk.lock(&path).await, Err(Fault::Locked { .. })), "a lock is held once");
    drop(held);
    disk.lock(&path).await.map(drop)
}

/// A disk, what it must hold, and handles that may be older than the names.
struct DiskRun<D: Disk> {
    disk: D,
    root: PathBuf,
    dice: Dice,
    files: BTreeMap<PathBuf, Vec<u8>>,
    open: BTreeMap<PathBuf, D::File>,
}

impl<D: Disk> DiskRun<D> {
    fn path(&mut self) -> PathBuf {
        let name = format!("f{}", self.dice.below(4));
        match self.dice.below(3) {
            0 => self.root.join("inner").join(name),
            _ => self.root.join(name),
        }
    }

    fn bytes(&mut self) -> Bytes {
        let length = self.dice.below(2000);
        Bytes::from((0..length).map(|_| self.dice.roll() as u8).collect::<Vec<_>>())
    }

    async fn step(&mut self) -> Result<(), Fault> {
        let path = self.path();
        match self.dice.below(12) {
            0..=1 => self.create(path).await,
            2 => self.rename(path).await,
            3 => self.remove(path).await,
            4 => {
                let bytes = self.bytes();
                self.disk.replace_file(&path, bytes.clone()).await?;
                self.open.remove(&path);
                self.files.insert(path, bytes.to_vec());
                Ok(())
            }
            _ => self.change(path).await,
        }
    }

    async fn create(&mut self, path: PathBuf) -> Result<(), Fault> {
        let created = self.disk.create(&path).await;
        assert_eq!(created.is_ok(), !self.files.contains_key(&path), "create {}", path.display());
        if let Ok(file) = created {
            self.open.insert(path.clone(), file);
            self.files.insert(path, Vec::new());
        }
        Ok(())
    }

    async fn rename(&mut self, from: PathBuf) -> Result<(), Fault> {
        let to = self.path();
        let renamed = self.disk.rename(&from, &to).await;
        match self.files.remove(&from) {
            None => assert!(renamed.err().is_some_and(|fault| fault.is_not_found())),
            Some(content) => {
                renamed?;
                // Handles go by the file, not by its name.
                let handle = self.open.remove(&from);
                self.open.remove(&to);
                self.open.extend(handle.map(|file| (to.clone(), file)));
                self.files.insert(to, content);
            }
        }
        self.disk.sync_dir(&self.root).await
    }

    async fn remove(&mut self, path: PathBuf) -> Result<(), Fault> {
        let removed = self.disk.remove(&path).await;
        let Some(content) = self.files.remove(&path) else {
            assert!(removed.err().is_some_and(|fault| fault.is_not_found()));
            return Ok(());
        };
        removed?;
        if let Some(file) = self.open.remove(&path) {
            assert_eq!(file.read_at(0, content.len()).await?, content, "a removed file reads on");
        }
        Ok(())
    }

    async fn change(&mut self, path: PathBuf) -> Result<(), Fault> {
        let (bytes, kind) = (self.bytes(), self.dice.below(8));
        let Some(content) = self.files.get_mut(&path) else {
            let opened = self.disk.open(&path).await;
            assert!(opened.err().is_some_and(|fault| fault.is_not_found()));
            return Ok(());
        };
        let file = match self.open.get(&path) {
            Some(file) => file.clone(),
            None => self.disk.open(&path).await?,
        };
        self.open.insert(path, file.clone());
        let offset = self.dice.below(content.len() as u64 + 700);
        if kind >= 3 && !bytes.is_empty() {
            let end = offset as usize + bytes.len();
            content.resize(content.len().max(end), 0);
            content[offset as usize..end].copy_from_slice(&bytes);
        }
        match kind {
            0 => {
                content.resize(offset as usize, 0);
                file.set_len(offset).await
            }
            1 => {
                *content = vec![0; offset as usize];
                file.preallocate(offset).await
            }
            2 => file.sync().await,
            3..=4 => file.write_at_synced(offset, bytes).await,
            _ => file.write_at(offset, bytes).await,
        }
    }

    async fn compare(&mut self, step: u64) -> Result<(), Fault> {
        for (path, content) in &self.files {
            let found = self.disk.read_file(path, u64::MAX).await?;
            assert_eq!(found, content, "content of {} after step {step}", path.display());
            let file = self.disk.open(path).await?;
            assert_eq!(file.len().await?, content.len() as u64);
            let (offset, length) = (self.dice.below(2500) as usize, self.dice.below(900) as usize);
            let from = offset.min(content.len());
            let to = (offset + length).min(content.len()).max(from);
            let read = file.read_at(offset as u64, length).await?;
            assert_eq!(read, content[from..to], "a part of {}", path.display());
        }
        for dir in [self.root.clone(), self.root.join("inner")] {
            let mut expected: Vec<String> = Vec::new();
            for path in self.files.keys().filter(|path| path.parent() == Some(&*dir)) {
                expected.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
            let mut found = self.disk.list(&dir).await?;
            found.retain(|name| name.starts_with('f'));
            assert_eq!(found, expected, "names in {} after step {step}", dir.display());
        }
        let missing = self.root.join("nowhere");
        assert!(!self.disk.exists(&missing).await?);
        assert!(self.disk.list(&missing).await.err().is_some_and(|fault| fault.is_not_found()));
        assert!(self.disk.create(&missing.join("f")).await.is_err());
        Ok(())
    }
}

/// Runs `steps` random operations on the empty store of `home`, opening it anew now and then.
pub async fn kv<H: KvHome>(home: &H, seed: u64, steps: u64) -> Result<(), Fault> {
    let mut dice = Dice::new(seed);
    let mut rows: BTreeMap<Vec<u8>, Bytes> = BTreeMap::new();
    let mut kv = home.open()?;
    for step in 0..steps {
        match dice.below(20) {
            0 => {
                kv.sync().await?;
                drop(kv);
                kv = home.open()?;
            }
            1..=2 => kv.sync().await?,
            _ => kv.apply(random_batch(&mut dice, &mut rows))?,
        }
        let (low, high) = (random_key(&mut dice), random_key(&mut dice));
        assert_eq!(kv.get(&low)?, rows.get(&low).cloned(), "get {low:?} in step {step}");
        let rows_max = dice.below(6) as usize;
        let expected: Vec<_> = match low < high {
            true => rows.range(low.clone()..high.clone()).collect(),
            false => Vec::new(),
        };
        let owned = |row: &(&Vec<u8>, &Bytes)| (row.0.clone(), row.1.clone());
        let first: Vec<_> = expected.iter().take(rows_max).map(owned).collect();
        assert_eq!(kv.range(&low, &high, rows_max)?, first, "range in step {step}");
        let mut shown = Vec::new();
        kv.visit(&low, &high, &mut |key, value| {
            if shown.len() == rows_max {
                return Ok(ControlFlow::Break(()));
            }
            shown.push((key.to_vec(), Bytes::copy_from_slice(value)));
            Ok(ControlFlow::Continue(()))
        })?;
        assert_eq!(shown, first, "visit in step {step}");
        let last = expected.last().map(owned);
        assert_eq!(kv.last(&low, &high)?, last, "last in step {step}");
    }
    let all: Vec<_> = rows.into_iter().collect();
    assert_eq!(kv.range(&[], &[0xff; 9], usize::MAX)?, all, "all rows at the end");
    Ok(())
}

fn random_key(dice: &mut Dice) -> Vec<u8> {
    let length = 1 + dice.below(3);
    (0..length).map(|_| [0, 1, b'j', b's', 0xfe, 0xff][dice.below(6) as usize]).collect()
}

fn random_batch(dice: &mut Dice, rows: &mut BTreeMap<Vec<u8>, Bytes>) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..dice.below(5) {
        let key = random_key(dice);
        if dice.below(4) == 0 {
            rows.remove(&key);
            batch.remove(key);
        } else {
            // Now and then a value that outgrows a page.
            let length = if dice.below(30) == 0 { 40_000 } else { dice.below(60) };
            let value = Bytes::from(vec![dice.roll() as u8; length as usize]);
            rows.insert(key.clone(), value.clone());
            batch.put(key, value);
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::real::{RealDisk, RealDiskConfig};
    use crate::disk::simulated::{SimulatedDisk, SimulatedDiskConfig};
    use crate::kv::simulated::{SimulatedHome, SimulatedKvConfig};
    use crate::kv::sled::{SledConfig, SledHome};

    #[tokio::test]
    async fn the_real_disk_conforms() {
        let place = tempfile::tempdir().unwrap();
        let real = RealDisk::start(&RealDiskConfig::new()).unwrap();
        for seed in 0..4 {
            let root = place.path().join(format!("root-{seed}"));
            disk(real.clone(), &root, seed, 300).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_simulated_disk_conforms() {
        let config = SimulatedDiskConfig { sync_us: (100, 3000), ..SimulatedDiskConfig::default() };
        let simulated = SimulatedDisk::new(config);
        for seed in 0..20 {
            let root = PathBuf::from(format!("/root-{seed}"));
            disk(simulated.clone(), &root, seed, 300).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_real_store_conforms() {
        let place = tempfile::tempdir().unwrap();
        for seed in 0..3 {
            let home = SledHome::new(SledConfig::new(place.path().join(format!("kv-{seed}"))));
            kv(&home, seed, 400).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_simulated_store_conforms() {
        for seed in 0..20 {
            let config = SimulatedKvConfig { sync_us: (100, 3000), ..SimulatedKvConfig::default() };
            kv(&SimulatedHome::new(config), seed, 400).await.unwrap();
        }
    }
}
