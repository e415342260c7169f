//! A disk in memory that forgets, tears, refuses and runs full, as its seed says.
//!
//! It keeps what is visible and what is durable apart, so that [`SimulatedDisk::crash`] can answer
//! with any disk that a power cut might have left. Syncs take virtual time. Every handle belongs
//! to one life of the machine: after a crash the old handles only fail, so that a task that
//! outlived its node cannot touch the next one's files. No threads, no real time, no entropy.

mod image;
mod machine;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::dice::Dice;
use crate::disk::simulated::image::{Change, Entry, Images, SharedImage};
use crate::disk::simulated::machine::{Machine, input_output_error};

pub use crate::disk::simulated::machine::{Injection, Loss, SimulatedDiskConfig};
use crate::disk::{Disk, DiskFile};
use crate::fault::Fault;
use crate::lock;

/// A simulated file system, in the hands of one life of its machine.
#[derive(Clone)]
pub struct SimulatedDisk {
    machine: Arc<Mutex<Machine>>,
    life: u64,
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new(config: SimulatedDiskConfig) -> SimulatedDisk {
        SimulatedDisk::with_images(config, Images::default())
    }

    fn with_images(config: SimulatedDiskConfig, images: Images) -> SimulatedDisk {
        let machine = Machine {
            dice: Dice::new(config.seed),
            config,
            images,
            locks: BTreeSet::new(),
            life: 0,
            injections: Vec::new(),
            steps_left: None,
            syncs: 0,
        };
        SimulatedDisk { machine: Arc::new(Mutex::new(machine)), life: 0 }
    }

    /// Ends this life of the machine: every handle so far fails from now on, `loss` is taken, and
    /// the answer is the disk as the next life finds it.
    pub fn crash(&self, loss: Loss) -> SimulatedDisk {
        let mut machine = lock(&self.machine);
        let machine = &mut *machine;
        machine.life += 1;
        machine.locks.clear();
        machine.steps_left = None;
        machine.injections.clear();
        machine.images.cut(loss, &mut machine.dice);
        SimulatedDisk { machine: self.machine.clone(), life: machine.life }
    }

    /// A separate, faultless disk that holds what is durable at this moment: what an oracle reads
    /// to see whether a promise that leaves the node is covered.
    pub fn fork_durable(&self) -> SimulatedDisk {
        let images = lock(&self.machine).images.fork_durable();
        SimulatedDisk::with_images(SimulatedDiskConfig::default(), images)
    }

    /// Replaces the rates of faults (and the rest of the configuration except the seed), for a
    /// fault plan that turns them on and off.
    pub fn configure(&self, config: SimulatedDiskConfig) {
        lock(&self.machine).config = config;
    }

    /// Puts a fault on order.
    pub fn inject(&self, injection: Injection) {
        let mut machine = lock(&self.machine);
        match injection {
            Injection::PowerOffAfter(steps) => machine.steps_left = Some(steps),
            other => machine.injections.push(other),
        }
    }

    /// Whether an ordered power cut has come, so that [`SimulatedDisk::crash`] is due.
    pub fn is_off(&self) -> bool {
        lock(&self.machine).steps_left == Some(0)
    }

    /// Syncs that have succeeded so far, in all lives.
    pub fn syncs(&self) -> u64 {
        lock(&self.machine).syncs
    }

    /// Flips one bit of a file, in what is visible and in what is durable.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> Result<(), Fault> {
        let machine = lock(&self.machine);
        match machine.images.names.get(path) {
            Some(Entry::File(_, image)) => {
                lock(image).flip_bit(offset, bit);
                Ok(())
            }
            _ => Err(Fault::io("damage", path, io::ErrorKind::NotFound.into())),
        }
    }

    fn with<T>(
        &self,
        attempted: &'static str,
        path: &Path,
        work: impl FnOnce(&mut Machine) -> io::Result<T>,
    ) -> Result<T, Fault> {
        let mut machine = lock(&self.machine);
        let answer = match machine.life == self.life && machine.steps_left != Some(0) {
            true => work(&mut machine),
            false => Err(io::Error::other("the machine is off")),
        };
        answer.map_err(|source| Fault::io(attempted, path, source))
    }

    /// Waits as long as a sync takes, then lets `promote` move what was unsynced at its beginning.
    async fn sync_with(
        &self,
        path: &Path,
        begin: impl FnOnce(&mut Machine) -> u64,
        promote: impl FnOnce(&mut Machine, u64, bool),
    ) -> Result<(), Fault> {
        let (upto, pause) = self.with("sync", path, |machine| {
            let upto = begin(machine);
            Ok((upto, machine.sync_time()))
        })?;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        self.with("sync", path, |machine| {
            machine.step()?;
            let rate = machine.config.sync_errors_per_million;
            let failed = machine.due(Injection::FailNextSync) || machine.dice.chance(rate);
            let ignored = machine.config.ignored_syncs_per_million;
            if !machine.dice.chance(ignored) {
                promote(machine, upto, failed);
            }
            if failed {
                return Err(input_output_error());
            }
            machine.syncs += 1;
            Ok(())
        })
    }
}

impl Disk for SimulatedDisk {
    type File = SimulatedFile;
    type Lock = SimulatedLock;

    async fn create(&self, path: &Path) -> Result<SimulatedFile, Fault> {
        let image = self.with("create", path, |machine| {
            machine.step()?;
            machine.require_dir(path.parent())?;
            match machine.images.names.contains_key(path) {
                true => Err(io::ErrorKind::AlreadyExists.into()),
                false => Ok(machine.images.create_file(path)),
            }
        })?;
        Ok(SimulatedFile { disk: self.clone(), image, path: path.into() })
    }

    async fn open(&self, path: &Path) -> Result<SimulatedFile, Fault> {
        let image = self.with("open", path, |machine| machine.file(path))?;
        Ok(SimulatedFile { disk: self.clone(), image, path: path.into() })
    }

    async fn exists(&self, path: &Path) -> Result<bool, Fault> {
        self.with("look up", path, |machine| Ok(machine.images.names.contains_key(path)))
    }

    async fn list(&self, dir: &Path) -> Result<Vec<String>, Fault> {
        self.with("list", dir, |machine| {
            machine.require_dir(Some(dir))?;
            let inside = machine.images.names.keys().filter(|path| path.parent() == Some(dir));
            let names = inside.filter_map(|path| path.file_name());
            Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
        })
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), Fault> {
        self.with("rename", from, |machine| {
            machine.step()?;
            machine.file(from)?;
            machine.require_dir(to.parent())?;
            if matches!(machine.images.names.get(to), Some(Entry::Dir)) {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            if let (Some(entry), true) = (machine.images.names.get(from).cloned(), from != to) {
                machine.images.rename(from, to, entry);
            }
            Ok(())
        })
    }

    async fn remove(&self, path: &Path) -> Result<(), Fault> {
        self.with("remove", path, |machine| {
            machine.step()?;
            machine.file(path)?;
            machine.images.remove(path);
            Ok(())
        })
    }

    async fn create_dir(&self, dir: &Path) -> Result<(), Fault> {
        self.with("create directory", dir, |machine| {
            machine.step()?;
            for dir in dir.ancestors() {
                if dir.as_os_str().is_empty() || dir == Path::new("/") {
                    continue;
                }
                match machine.images.names.get(dir) {
                    None => machine.images.create_dir(dir),
                    Some(Entry::Dir) => {}
                    Some(Entry::File(..)) => return Err(io::ErrorKind::NotADirectory.into()),
                }
            }
            Ok(())
        })
    }

    async fn sync_dir(&self, dir: &Path) -> Result<(), Fault> {
        self.with("sync directory", dir, |machine| machine.require_dir(Some(dir)))?;
        let begin = |machine: &mut Machine| machine.images.last_change();
        let promote = |machine: &mut Machine, upto: u64, failed: bool| {
            if !failed {
                machine.images.promote_dir(dir, upto);
            }
        };
        self.sync_with(dir, begin, promote).await
    }

    async fn lock(&self, path: &Path) -> Result<SimulatedLock, Fault> {
        let taken = self.with("lock", path, |machine| {
            machine.require_dir(path.parent())?;
            Ok(machine.locks.insert(path.to_path_buf()))
        })?;
        match taken {
            true => Ok(SimulatedLock { disk: self.clone(), path: path.to_path_buf() }),
            false => Err(Fault::Locked { path: path.to_path_buf() }),
        }
    }
}

/// A lock on a simulated file; let go when dropped.
pub struct SimulatedLock {
    disk: SimulatedDisk,
    path: PathBuf,
}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let mut machine = lock(&self.disk.machine);
        if machine.life == self.disk.life {
            machine.locks.remove(&self.path);
        }
    }
}

/// An open simulated file.
#[derive(Clone)]
pub struct SimulatedFile {
    disk: SimulatedDisk,
    image: SharedImage,
    path: Arc<Path>,
}

impl DiskFile for SimulatedFile {
    fn path(&self) -> &Path {
        &self.path
    }

    async fn len(&self) -> Result<u64, Fault> {
        self.disk.with("measure", &self.path, |_| Ok(lock(&self.image).live.len() as u64))
    }

    async fn read_at(&self, offset: u64, bytes: usize) -> Result<Bytes, Fault> {
        self.disk.with("read", &self.path, |machine| {
            if machine.dice.chance(machine.config.read_errors_per_million) {
                return Err(input_output_error());
            }
            let image = lock(&self.image);
            let from = (offset as usize).min(image.live.len());
            let to = from.saturating_add(bytes).min(image.live.len());
            Ok(Bytes::copy_from_slice(&image.live[from..to]))
        })
    }

    async fn write_at(&self, offset: u64, bytes: Bytes) -> Result<(), Fault> {
        self.disk.with("write", &self.path, |machine| machine.write(&self.image, offset, bytes))
    }

    async fn sync(&self) -> Result<(), Fault> {
        let begin = |_: &mut Machine| lock(&self.image).last_change();
        let promote = |_: &mut Machine, upto: u64, failed: bool| match failed {
            true => lock(&self.image).forget_unsynced(),
            false => lock(&self.image).promote(upto),
        };
        self.disk.sync_with(&self.path, begin, promote).await
    }

    async fn write_at_synced(&self, offset: u64, bytes: Bytes) -> Result<(), Fault> {
        self.write_at(offset, bytes).await?;
        self.sync().await
    }

    async fn set_len(&self, bytes: u64) -> Result<(), Fault> {
        self.disk.with("set the length of", &self.path, |machine| {
            machine.step()?;
            machine.reserve(&self.image, bytes)?;
            machine.images.change(&self.image, Change::SetLen { bytes });
            Ok(())
        })
    }

    async fn preallocate(&self, bytes: u64) -> Result<(), Fault> {
        self.disk.with("preallocate", &self.path, |machine| {
            machine.step()?;
            machine.reserve(&self.image, bytes)?;
            machine.images.change(&self.image, Change::SetLen { bytes: 0 });
            machine.images.change(&self.image, Change::SetLen { bytes });
            Ok(())
        })?;
        self.sync().await
    }
}
