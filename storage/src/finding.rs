//! What an inspection of a stopped node's files found wrong, and what to do about it.

use std::path::{Path, PathBuf};

use crate::fault::Fault;

/// What is to be done about a [`Finding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// Nothing: the next start mends it from what is whole.
    Nothing,
    /// A newer release is needed.
    Upgrade,
    /// The file was not written by this program, or cannot be read: look at disk and permissions.
    Look,
    /// The node must not vote again: remove its folder and let it join under a new id.
    Rejoin,
}

impl Remedy {
    /// In words for an operator.
    pub fn text(self) -> &'static str {
        match self {
            Remedy::Nothing => "nothing: the next start rebuilds it from snapshot and log",
            Remedy::Upgrade => "upgrade muster to the release that wrote it, or to a newer one",
            Remedy::Look => "see the disk and the permissions of the folder",
            Remedy::Rejoin => {
                "do not start it: remove the node from the cluster, remove this folder and join \
                 again with a new token, under a new id"
            }
        }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, or the directory when a whole file is missing.
    pub path: PathBuf,
    /// Bytes from its start.
    pub offset: u64,
    /// What is wrong.
    pub detail: String,
    /// What to do.
    pub remedy: Remedy,
}

impl Finding {
    /// A finding at a place.
    pub fn new(path: &Path, offset: u64, detail: impl Into<String>, remedy: Remedy) -> Finding {
        Finding { path: path.to_owned(), offset, detail: detail.into(), remedy }
    }

    /// The finding that a fault is; `path` is where it was met, for faults that do not say.
    pub fn of(fault: &Fault, path: &Path, remedy: Remedy) -> Finding {
        match fault {
            Fault::Corrupt { path, offset, detail, .. } if path.is_absolute() => {
                Finding::new(path, *offset, detail.clone(), remedy)
            }
            Fault::Corrupt { detail, .. } => Finding::new(path, 0, detail.clone(), remedy),
            Fault::Version { .. } => Finding::new(path, 0, fault.to_string(), Remedy::Upgrade),
            Fault::Codec { .. } => Finding::new(path, 0, fault.to_string(), remedy),
            Fault::Io { source, .. } => {
                Finding::new(path, 0, format!("{fault}: {source}"), Remedy::Look)
            }
            Fault::Full { .. }
            | Fault::TooLarge { .. }
            | Fault::Gap { .. }
            | Fault::Missing { .. }
            | Fault::Locked { .. }
            | Fault::Stopped { .. } => Finding::new(path, 0, fault.to_string(), Remedy::Look),
        }
    }
}
