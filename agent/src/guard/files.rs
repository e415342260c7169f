//! The files of a job directory: their names, and reading and writing them whole.
//!
//! Everything an agent and a guard tell each other survives either of them, so it goes through
//! files that are written aside, synced and renamed. Only guards and drivers use these: the
//! agent's own memory has its `Disk` seam.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use nix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What the guard is to run.
pub(crate) const SPEC: &str = "spec.json";
/// What the guard says.
pub(crate) const STATE: &str = "state.json";
/// The socket on which a guard answers.
pub(crate) const CONTROL: &str = "control.sock";
/// Held locked by a guard for as long as it lives.
pub(crate) const LOCK: &str = "lock";
/// What the guard could not say in its state.
pub(crate) const GUARD_LOG: &str = "guard.log";

/// Until when the host may run `stop` jobs: the contents of the host's lease file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// The deadline on CLOCK_BOOTTIME, which starts again at every boot.
    pub(crate) deadline_boot_ms: u64,
    /// The boot it counts in: a lease of an earlier boot is none.
    pub(crate) boot_id: String,
}

impl Lease {
    /// The deadline in the lease file; 0 if there is none for this boot.
    pub(crate) fn deadline(path: &Path, boot_id: &str) -> u64 {
        match read_json::<Lease>(path) {
            Ok(lease) if lease.boot_id == boot_id => lease.deadline_boot_ms,
            Ok(_) | Err(_) => 0,
        }
    }
}

/// Reads a whole JSON file; a malformed one is `InvalidData`.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Writes a JSON file so that a reader finds the old contents or the new, also after a crash.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_whole(path, &serde_json::to_vec_pretty(value)?, true)
}

/// Like `write_json` without the sync: for what is worthless after a crash of the host.
pub(crate) fn write_json_volatile<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_whole(path, &serde_json::to_vec(value)?, false)
}

/// Replaces a file by rename.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let mut file = File::create(&aside)?;
    file.write_all(bytes)?;
    if durable {
        file.sync_all()?;
    }
    drop(file);
    fs::rename(&aside, path)?;
    if durable && let Some(parent) = path.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// CLOCK_BOOTTIME in milliseconds. The clock exists on every Linux we run on; were it missing,
/// 0 makes every lease look endless, so the largest time is answered instead.
pub(crate) fn boottime_ms() -> u64 {
    match clock_gettime(ClockId::CLOCK_BOOTTIME) {
        Ok(time) => {
            u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000
                + u64::try_from(time.tv_nsec()).unwrap_or(0) / 1_000_000
        }
        Err(_) => u64::MAX,
    }
}

/// The identity of this boot of the host; empty where the kernel does not tell.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
