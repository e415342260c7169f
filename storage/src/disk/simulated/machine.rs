//! The machine behind a simulated disk: what it may do wrong, and when.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use crate::dice::Dice;
use crate::disk::simulated::image::{Change, Entry, Images, SharedImage};
use crate::lock;

/// How a [`SimulatedDisk`] behaves while nothing is broken, and how often something is.
#[derive(Debug, Clone, Default)]
pub struct SimulatedDiskConfig {
    /// Where all its randomness comes from.
    pub seed: u64,
    /// Shortest and longest time of a sync, microseconds of tokio time. Both 0: no time passes.
    pub sync_us: (u64, u64),
    /// How many syncs in a million stall.
    pub stalls_per_million: u32,
    /// Shortest and longest stall, milliseconds.
    pub stall_ms: (u64, u64),
    /// Bytes that all files together may have; `None` for no limit.
    pub capacity_bytes: Option<u64>,
    /// Reads in a million that answer with an input/output error.
    pub read_errors_per_million: u32,
    /// Writes in a million that are refused with an input/output error, nothing written.
    pub write_errors_per_million: u32,
    /// Syncs in a million that fail. What they covered is lost even if a later sync succeeds.
    pub sync_errors_per_million: u32,
    /// Syncs in a million that succeed and make nothing durable: a drive that lies.
    pub ignored_syncs_per_million: u32,
    /// Writes in a million that are acknowledged and never happen.
    pub lost_writes_per_million: u32,
    /// Writes in a million that are acknowledged and land one sector further on.
    pub misdirected_writes_per_million: u32,
}

/// What a crash takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Only the process dies: the operating system writes everything out later.
    Nothing,
    /// Everything that was not synced.
    Unsynced,
    /// Everything after a random point among the unsynced changes.
    Prefix,
    /// As `Prefix`, and of the first lost write some sectors survive.
    Torn,
    /// Each unsynced change is kept, torn or lost by itself.
    Subset,
}

impl Loss {
    /// One of the five.
    pub fn any(dice: &mut Dice) -> Loss {
        match dice.below(5) {
            0 => Loss::Nothing,
            1 => Loss::Unsynced,
            2 => Loss::Prefix,
            3 => Loss::Torn,
            _ => Loss::Subset,
        }
    }
}

/// A fault on order, for scenarios that need it at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injection {
    /// The next write fails.
    FailNextWrite,
    /// The next sync fails, and what it covered is lost.
    FailNextSync,
    /// The next write is acknowledged and never happens.
    LoseNextWrite,
    /// The next write lands one sector further on.
    MisdirectNextWrite,
    /// After this many more changes and syncs the power is off: everything fails until
    /// [`SimulatedDisk::crash`].
    PowerOffAfter(u64),
}

pub(super) struct Machine {
    pub(super) config: SimulatedDiskConfig,
    pub(super) dice: Dice,
    pub(super) images: Images,
    pub(super) locks: BTreeSet<PathBuf>,
    /// Which life of the machine it is; handles of earlier ones are dead.
    pub(super) life: u64,
    pub(super) injections: Vec<Injection>,
    pub(super) steps_left: Option<u64>,
    pub(super) syncs: u64,
}

pub(super) fn input_output_error() -> io::Error {
    io::Error::other("input/output error")
}

impl Machine {
    /// Counts down to an ordered power cut; refuses once it has come.
    pub(super) fn step(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.steps_left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return Err(io::Error::other("the machine is off"));
            }
        }
        Ok(())
    }

    pub(super) fn due(&mut self, injection: Injection) -> bool {
        let position = self.injections.iter().position(|due| *due == injection);
        position.map(|position| self.injections.remove(position)).is_some()
    }

    pub(super) fn sync_time(&mut self) -> Duration {
        let (low, high) = self.config.sync_us;
        let mut pause = match high {
            0 => Duration::ZERO,
            _ => Duration::from_micros(self.dice.between(low, high)),
        };
        if self.dice.chance(self.config.stalls_per_million) {
            let (low, high) = self.config.stall_ms;
            pause += Duration::from_millis(self.dice.between(low, high));
        }
        pause
    }

    pub(super) fn write(
        &mut self,
        image: &SharedImage,
        offset: u64,
        bytes: Bytes,
    ) -> io::Result<()> {
        self.step()?;
        let refused = self.dice.chance(self.config.write_errors_per_million);
        if self.due(Injection::FailNextWrite) || refused {
            return Err(input_output_error());
        }
        let end = offset.saturating_add(bytes.len() as u64);
        self.reserve(image, end)?;
        let lost = self.dice.chance(self.config.lost_writes_per_million);
        if self.due(Injection::LoseNextWrite) || lost {
            return Ok(());
        }
        let astray = self.dice.chance(self.config.misdirected_writes_per_million);
        let astray = self.due(Injection::MisdirectNextWrite) || astray;
        let offset = if astray { offset + 512 } else { offset };
        self.images.change(image, Change::Write { offset, bytes });
        Ok(())
    }

    /// Refuses what would not fit.
    pub(super) fn reserve(&self, image: &SharedImage, end: u64) -> io::Result<()> {
        let Some(capacity) = self.config.capacity_bytes else {
            return Ok(());
        };
        let growth = end.saturating_sub(lock(image).live.len() as u64);
        match growth == 0 || self.images.live_bytes().saturating_add(growth) <= capacity {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<SharedImage> {
        match self.images.names.get(path) {
            Some(Entry::File(_, image)) => Ok(image.clone()),
            Some(Entry::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn require_dir(&self, dir: Option<&Path>) -> io::Result<()> {
        match dir {
            None => Ok(()),
            Some(dir) if dir.as_os_str().is_empty() || dir == Path::new("/") => Ok(()),
            Some(dir) => match self.images.names.get(dir) {
                Some(Entry::Dir) => Ok(()),
                Some(Entry::File(..)) => Err(io::ErrorKind::NotADirectory.into()),
                None => Err(io::ErrorKind::NotFound.into()),
            },
        }
    }
}
