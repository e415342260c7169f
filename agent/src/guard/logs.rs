//! The rotated log files of a job: `stdout.0`, `stdout.1`, ... and the same for stderr.
//!
//! Numbers only grow, also over restarts of the job, so a position in a log stays meaningful to a
//! reader. Size and count of the files are bounded; the oldest goes first. Writing never fails
//! the job: bytes that the disk refuses are counted and dropped.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::driver::{LogChunk, LogPosition, LogStream};
use crate::guard::spec::LogLimits;

/// One stream of a job's log, open for writing.
pub(crate) struct RotatedLog {
    dir: PathBuf,
    stem: &'static str,
    limits: LogLimits,
    number: u64,
    written: u64,
    file: Option<File>,
    /// Bytes the disk refused since the log was opened.
    pub(crate) dropped_bytes: u64,
}

/// The file name before the number.
pub(crate) fn stem(stream: LogStream) -> &'static str {
    match stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    }
}

impl RotatedLog {
    /// Continues the newest file of the stream.
    pub(crate) fn open(dir: &Path, stream: LogStream, limits: &LogLimits) -> io::Result<Self> {
        let stem = stem(stream);
        let (number, written) = files(dir, stem)?.pop_last().unwrap_or((0, 0));
        let limits = LogLimits {
            file_bytes_max: limits.file_bytes_max.max(1),
            files_max: limits.files_max.max(1),
        };
        Ok(Self {
            dir: dir.to_owned(),
            stem,
            limits,
            number,
            written,
            file: None,
            dropped_bytes: 0,
        })
    }

    /// Appends bytes, starting new files as the limit demands.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.limits.file_bytes_max.saturating_sub(self.written);
            if room == 0 {
                self.rotate();
                continue;
            }
            let take = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let (now, later) = bytes.split_at(take);
            if self.write(now).is_err() {
                self.dropped_bytes += now.len() as u64;
                self.file = None;
            }
            // Counted also when refused: a full disk must not make this loop endless.
            self.written += now.len() as u64;
            bytes = later;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            let path = self.dir.join(format!("{}.{}", self.stem, self.number));
            self.file = Some(OpenOptions::new().create(true).append(true).open(path)?);
        }
        match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => Ok(()),
        }
    }

    fn rotate(&mut self) {
        self.file = None;
        self.number += 1;
        self.written = 0;
        let keep_from = (self.number + 1).saturating_sub(u64::from(self.limits.files_max));
        if let Ok(old) = files(&self.dir, self.stem) {
            for number in old.into_keys().take_while(|number| *number < keep_from) {
                // One that cannot be deleted now is tried again at the next rotation.
                drop(fs::remove_file(self.dir.join(format!("{}.{number}", self.stem))));
            }
        }
    }
}

/// The files of a stream by number, with their sizes.
fn files(dir: &Path, stem: &str) -> io::Result<BTreeMap<u64, u64>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(stem)?.strip_prefix('.'));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            found.insert(number, entry.metadata()?.len());
        }
    }
    Ok(found)
}

/// Reads at most `bytes_max` bytes from one file of a stream, from the position on or, if that
/// file is gone, from the oldest that is left.
pub(crate) fn read(
    dir: &Path,
    stream: LogStream,
    from: LogPosition,
    bytes_max: usize,
) -> io::Result<LogChunk> {
    let stem = stem(stream);
    let files = files(dir, stem)?;
    let mut start = from;
    loop {
        let Some((number, size)) = files.range(start.file..).next() else {
            return Ok(LogChunk { start, bytes: Vec::new(), next: start });
        };
        if *number != start.file {
            start = LogPosition { file: *number, offset: 0 };
        }
        // At the end of a file that has a successor: read on there.
        if start.offset >= *size && files.range(number + 1..).next().is_some() {
            start = LogPosition { file: number + 1, offset: 0 };
            continue;
        }
        let mut file = File::open(dir.join(format!("{stem}.{number}")))?;
        file.seek(SeekFrom::Start(start.offset))?;
        let mut bytes = Vec::new();
        file.take(bytes_max as u64).read_to_end(&mut bytes)?;
        let next = LogPosition { file: start.file, offset: start.offset + bytes.len() as u64 };
        return Ok(LogChunk { start, bytes, next });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> LogLimits {
        LogLimits { file_bytes_max: 10, files_max: 3 }
    }

    #[test]
    fn a_log_is_bounded_and_read_on_over_file_ends() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = RotatedLog::open(dir.path(), LogStream::Stdout, &limits()).unwrap();
        log.append(b"0123456789abcdefghijABCDEFGHIJklmnop");
        let sizes = files(dir.path(), "stdout").unwrap();
        assert_eq!(sizes, BTreeMap::from([(1, 10), (2, 10), (3, 6)]));

        let mut position = LogPosition::default();
        let mut text = Vec::<u8>::new();
        loop {
            let chunk = read(dir.path(), LogStream::Stdout, position, 7).unwrap();
            if chunk.bytes.is_empty() {
                break;
            }
            text.extend(&chunk.bytes);
            position = chunk.next;
        }
        assert_eq!(text.as_slice(), b"abcdefghijABCDEFGHIJklmnop");

        let mut log = RotatedLog::open(dir.path(), LogStream::Stdout, &limits()).unwrap();
        log.append(b"qrst!");
        let chunk = read(dir.path(), LogStream::Stdout, position, 7).unwrap();
        assert_eq!(chunk.bytes, b"qrst", "a reopened log is continued");
    }

    #[test]
    fn a_disk_that_refuses_does_not_stop_the_job() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = RotatedLog::open(dir.path(), LogStream::Stderr, &limits()).unwrap();
        fs::remove_dir(dir.path()).unwrap();
        log.append(&[b'x'; 35]);
        assert_eq!(log.dropped_bytes, 35);
    }
}
