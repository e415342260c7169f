//! What can go wrong with bytes on disk.
//!
//! A [`Fault`] means that *this machine* is broken or full, never that a request was wrong: on the
//! path of truth (Raft log, snapshots, agent memory) its holder stops rather than goes on with a
//! state nobody can vouch for. Faults are cheap to clone because one broken sync fails every
//! caller that waited for it. They convert to [`std::io::Error`], which is what openraft's storage
//! traits speak; [`Fault::from_io`] gets the fault back out.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A broken disk, a damaged file or a value that cannot be coded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fault {
    /// The operating system (or a simulated one) refused an operation.
    #[error("could not {attempted} {}", path.display())]
    Io {
        /// The verb of the operation, such as `write` or `sync`.
        attempted: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The disk has no room for what was attempted. Nothing of it may be relied on.
    #[error("could not {attempted} {}: the disk is full", path.display())]
    Full {
        /// The verb of the operation.
        attempted: &'static str,
        /// The file or directory.
        path: PathBuf,
    },
    /// Bytes that were durable are damaged or gone.
    #[error("{what} in {} is damaged at offset {offset}: {detail}", path.display())]
    Corrupt {
        /// The noun, such as `log segment` or `snapshot`.
        what: &'static str,
        /// The damaged file, or the directory when a whole file is gone.
        path: PathBuf,
        /// Bytes from the start of the file.
        offset: u64,
        /// What was expected and what was found.
        detail: String,
    },
    /// A value could not be encoded or decoded.
    #[error("could not {attempted} a value: {detail}")]
    Codec {
        /// `encode` or `decode`.
        attempted: &'static str,
        /// What the codec said.
        detail: String,
    },
    /// The bytes were written by a newer release. They are whole: nothing may be set aside or
    /// rebuilt because of it.
    #[error(
        "{what}{} has format version {found}, but this release knows versions up to {known}: \
         upgrade muster to the release that wrote it, or to a newer one",
        place(path)
    )]
    Version {
        /// The noun whose version it is.
        what: &'static str,
        /// The file or directory; empty for a value that came from none.
        path: PathBuf,
        /// The version in the bytes.
        found: u32,
        /// The newest version that this release reads.
        known: u32,
    },
    /// Something is larger than its configured limit.
    #[error("{what} has {bytes} bytes, but at most {bytes_max} are allowed")]
    TooLarge {
        /// The noun that is too large.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// A log entry that was asked for is purged, or was never written.
    #[error("log entry {index} is not held: the log has {first} up to but without {next}")]
    Missing {
        /// The entry asked for.
        index: u64,
        /// The first index held.
        first: u64,
        /// The index after the last one held.
        next: u64,
    },
    /// Entries were appended out of order: a log has no holes.
    #[error("log entry {found} does not follow: {expected} is next")]
    Gap {
        /// The index that the next entry must have.
        expected: u64,
        /// The index it had.
        found: u64,
    },
    /// Another process (or an earlier incarnation of this one) holds the directory.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The lock file or directory.
        path: PathBuf,
    },
    /// The store stopped earlier, or the caller of an unfinished operation went away.
    #[error("{what} is stopped: {detail}")]
    Stopped {
        /// The noun that stopped.
        what: &'static str,
        /// Why it stopped.
        detail: String,
    },
}

impl Fault {
    /// Wraps what the operating system said about `attempted` on `path`; a full disk becomes
    /// [`Fault::Full`].
    pub(crate) fn io(attempted: &'static str, path: &Path, source: io::Error) -> Fault {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Fault::Full { attempted, path }
            }
            _ => Fault::Io { attempted, path, source: Arc::new(source) },
        }
    }

    pub(crate) fn corrupt(
        what: &'static str,
        path: &Path,
        offset: u64,
        detail: impl Into<String>,
    ) -> Fault {
        Fault::Corrupt { what, path: path.to_path_buf(), offset, detail: detail.into() }
    }

    pub(crate) fn stopped(what: &'static str, detail: impl Into<String>) -> Fault {
        Fault::Stopped { what, detail: detail.into() }
    }

    pub(crate) fn version(what: &'static str, path: &Path, found: u32, known: u32) -> Fault {
        Fault::Version { what, path: path.to_path_buf(), found, known }
    }

    /// The same fault, and the file or directory that it was met in, if it does not say.
    pub fn met_in(mut self, place: &Path) -> Fault {
        if let Fault::Version { path, .. } = &mut self
            && path.as_os_str().is_empty()
        {
            *path = place.to_path_buf();
        }
        self
    }

    /// Whether a file or directory that was named does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Fault::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the bytes themselves are bad, so that trying again cannot help but setting them
    /// aside can. Bytes of a newer release are not: they wait for a release that knows them.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Fault::Corrupt { .. } | Fault::Codec { .. })
    }

    /// The fault inside an [`io::Error`] that was made from one.
    pub fn from_io(error: &io::Error) -> Option<&Fault> {
        error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>())
    }
}

/// ` in <path>`, or nothing.
fn place(path: &Path) -> String {
    match path.as_os_str().is_empty() {
        true => String::new(),
        false => format!(" in {}", path.display()),
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> io::Error {
        let kind = match &fault {
            Fault::Io { source, .. } => source.kind(),
            Fault::Full { .. } => io::ErrorKind::StorageFull,
            Fault::Corrupt { .. } | Fault::Codec { .. } | Fault::Version { .. } => {
                io::ErrorKind::InvalidData
            }
            Fault::TooLarge { .. } | Fault::Gap { .. } => io::ErrorKind::InvalidInput,
            Fault::Missing { .. } => io::ErrorKind::NotFound,
            Fault::Locked { .. } => io::ErrorKind::ResourceBusy,
            Fault::Stopped { .. } => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, fault)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn a_fault_survives_the_trip_through_an_io_error() {
        let fault = Fault::corrupt("log segment", Path::new("/d/segment-1"), 512, "bad checksum");
        let error = io::Error::from(fault);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let back = Fault::from_io(&error).unwrap();
        assert_eq!(
            back.to_string(),
            "log segment in /d/segment-1 is damaged at offset 512: bad checksum"
        );
    }

    #[test]
    fn a_newer_format_is_named_with_its_file_and_the_remedy_and_is_no_damage() {
        let fault = Fault::version("snapshot", Path::new(""), 2, 1);
        assert!(!fault.is_corrupt());
        let fault = fault.met_in(Path::new("/d/snapshot-1")).met_in(Path::new("/elsewhere"));
        assert_eq!(
            fault.to_string(),
            "snapshot in /d/snapshot-1 has format version 2, but this release knows versions up to \
             1: upgrade muster to the release that wrote it, or to a newer one"
        );
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(matches!(Fault::io("write", Path::new("f"), full), Fault::Full { .. }));
        let broken = Fault::io("write", Path::new("f"), io::Error::other("input/output error"));
        assert_eq!(broken.to_string(), "could not write f");
        assert_eq!(broken.source().unwrap().to_string(), "input/output error");
    }
}
