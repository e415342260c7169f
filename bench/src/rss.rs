//! Memory and processor time of this process, as the kernel counts them.

use std::{io, time::Duration};

/// Resident bytes of this process now. Read from `/proc/self/smaps_rollup`, which counts pages
/// exactly; `statm` lags behind by what each thread has not yet added up.
///
/// # Errors
/// What the kernel says, or `InvalidData` when it says it otherwise than expected.
pub fn rss_bytes() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    kibibytes.map(|kibibytes: u64| kibibytes << 10).ok_or(io::ErrorKind::InvalidData.into())
}

/// Processor time of this process so far, all its threads together, to a hundredth of a second.
///
/// # Errors
/// What the kernel says, or `InvalidData` when it says it otherwise than expected.
pub fn cpu_time() -> io::Result<Duration> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // The name of the program may hold anything, but it ends with the last bracket.
    let (_, fields) = text.rsplit_once(") ").ok_or(io::ErrorKind::InvalidData)?;
    let ticks = |field: usize| fields.split(' ').nth(field).and_then(|it| it.parse::<u64>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Duration::from_millis((user + system) * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_written_is_seen() {
        let before = rss_bytes().unwrap();
        let block = vec![1_u8; 32 << 20];
        let after = rss_bytes().unwrap();
        assert!(after >= before + (31 << 20), "{before} then {after}");
        drop(block);
    }
}
