//! Where one control node keeps what, below its data folder.

use std::path::{Path, PathBuf};

/// The folders and files of one control node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    data: PathBuf,
}

impl Folders {
    /// Those below `data`. Nothing is made.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into() }
    }

    /// The data folder itself.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Held while a process uses the folder.
    pub fn lock(&self) -> PathBuf {
        self.data.join("lock")
    }

    /// Certificate, key and authority of this node.
    pub fn identity(&self) -> PathBuf {
        self.data.join("identity")
    }

    /// `{cluster_id, node_id}`: written last, so that a folder with it has been started before.
    pub fn node_json(&self) -> PathBuf {
        self.identity().join("node.json")
    }

    /// The Raft log.
    pub fn log(&self) -> PathBuf {
        self.data.join("log")
    }

    /// Raft snapshots.
    pub fn snapshots(&self) -> PathBuf {
        self.data.join("snapshots")
    }

    /// What is materialised from log and snapshots.
    pub fn kv(&self) -> PathBuf {
        self.data.join("kv")
    }

    /// Images by digest.
    pub fn blobs(&self) -> PathBuf {
        self.data.join("blobs")
    }

    /// The first operator's certificate and `client.json`, after a bootstrap.
    pub fn admin(&self) -> PathBuf {
        self.data.join("admin")
    }

    /// Where the node listens, while it runs.
    pub fn addr_json(&self) -> PathBuf {
        self.data.join("addr.json")
    }
}
