//! Who this node is, as its data folder says: certificate, authority, and `node.json`.
//!
//! `node.json` is written last, so a folder that has it can be started without further questions.

use crate::Folders;
use identity::{
    Authority, CertificateBundle, CertificateRequest, Entropy, Issue, Principal, random_serial,
};
use model::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
};
use storage::Disk;

/// Longest `node.json` read, in bytes.
const NODE_JSON_BYTES_MAX: u64 = 1 << 20;

/// A node's own papers.
#[derive(Clone, Debug)]
pub struct Passport {
    /// Its key and certificate.
    pub bundle: CertificateBundle,
    /// The authority that every voter holds.
    pub authority: std::sync::Arc<Authority>,
    /// What `node.json` says.
    pub node: NodeFile,
}

/// The format of a data folder: which files are in it, and what `node.json` says. Log, snapshots and
/// store have formats of their own.
pub(crate) const FOLDER_FORMAT: u32 = 1;

/// Content of `node.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFile {
    /// The format of the folder. One that does not say is of the first.
    #[serde(default = "first_format")]
    pub format: u32,
    /// The cluster.
    pub cluster_id: String,
    /// This node's id in it.
    pub node_id: NodeId,
    /// Whether it is the cluster's first node, and so begins it.
    pub bootstrap: bool,
    /// Peer addresses of nodes known when it joined, to ask for membership.
    pub peers: Vec<String>,
    /// Whether it is to learn only, until an operator promotes it.
    #[serde(default)]
    pub learner: bool,
    /// Whether there must be a Raft log. A folder from before this was noted has one.
    #[serde(default)]
    pub log: LogLife,
}

fn first_format() -> u32 {
    1
}

/// The only thing that `node.json` says in every format.
#[derive(Deserialize)]
struct AnyFormat {
    #[serde(default = "first_format")]
    format: u32,
}

/// What became of a node's Raft log, kept away from it: with the log go the node's votes, so one
/// that is gone must never be taken for one that is yet to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLife {
    /// None was made: the node has never been started.
    New,
    /// An empty one was made. Nothing is known to be in it: the first node may still have to begin
    /// its cluster.
    Made,
    /// It is in use.
    #[default]
    Used,
}

/// Why a node has no identity.
#[derive(Debug, thiserror::Error)]
pub enum PassportError {
    /// The folder was never started, and nothing was said about how to.
    #[error("{} holds no node: start it with --bootstrap or --join", path.display())]
    None {
        /// The data folder.
        path: PathBuf,
    },
    /// The folder has been started before: it would get a second identity.
    #[error("{} holds a node already: start it without --bootstrap and --join", path.display())]
    Exists {
        /// The data folder.
        path: PathBuf,
    },
    /// A key or certificate cannot be made, read or stored.
    #[error("could not use the keys and certificates of the node")]
    Identity(#[from] identity::Error),
    /// No randomness.
    #[error("could not choose a number for a certificate")]
    Entropy(#[from] identity::EntropyError),
    /// A file cannot be read or written.
    #[error("could not use the node's folder")]
    Storage(#[from] storage::Fault),
    /// A folder cannot be made private.
    #[error("could not make folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The folder was written by a newer release.
    #[error(
        "{} says that the folder has format {found}, but this release knows formats up to {known}: \
         upgrade muster to the release that wrote it, or to a newer one", path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// The folder's format.
        found: u32,
        /// The newest format that this release reads.
        known: u32,
    },
    /// `node.json` is not what it should be.
    #[error("could not understand {}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl Passport {
    /// Whether the folder has been started before.
    ///
    /// # Errors
    /// When the folder cannot be looked at.
    pub async fn exists<D: Disk>(disk: &D, folders: &Folders) -> Result<bool, PassportError> {
        Ok(disk.exists(&folders.node_json()).await?)
    }

    /// Reads the papers, and renews the certificate when two thirds of its life are over: a voter
    /// can sign its own.
    ///
    /// # Errors
    /// See [`PassportError`].
    pub async fn load<D: Disk>(
        disk: &D,
        folders: &Folders,
        life: identity::Config,
        (now, entropy): (Timestamp, &dyn Entropy),
    ) -> Result<Self, PassportError> {
        let path = folders.node_json();
        if !disk.exists(&path).await? {
            return Err(PassportError::None { path: folders.data().to_owned() });
        }
        let bytes = disk.read_file(&path, NODE_JSON_BYTES_MAX).await?;
        let node = NodeFile::parse(&bytes, &path)?;
        let authority = Authority::load(&folders.identity(), life)?;
        let mut bundle = CertificateBundle::load(&folders.identity())?;
        if bundle.renew_due(now.0) {
            let principal = Principal::Node { id: node.node_id.0 };
            bundle = issue(&authority, principal, Vec::new(), (now, entropy))?;
            bundle.save(&folders.identity())?;
            tracing::info!(not_after_ms = bundle.not_after_ms(), "renewed this node's certificate");
        }
        Ok(Self { bundle, authority: std::sync::Arc::new(authority), node })
    }
}

impl NodeFile {
    /// Reads what is in the file at `path`.
    ///
    /// # Errors
    /// [`PassportError::Format`] when a newer release wrote it, [`PassportError::Malformed`] when it is
    /// nothing that any release writes.
    pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Self, PassportError> {
        let malformed = |bad: serde_json::Error| PassportError::Malformed {
            path: path.to_owned(),
            problem: bad.to_string(),
        };
        let AnyFormat { format: found } = serde_json::from_slice(bytes).map_err(malformed)?;
        if found > FOLDER_FORMAT {
            let (path, known) = (path.to_owned(), FOLDER_FORMAT);
            return Err(PassportError::Format { path, found, known });
        }
        serde_json::from_slice(bytes).map_err(malformed)
    }

    /// Writes `node.json`, durably.
    ///
    /// # Errors
    /// The disk's fault.
    pub(crate) async fn save<D: Disk>(
        &self,
        disk: &D,
        folders: &Folders,
    ) -> Result<(), PassportError> {
        let path = folders.node_json();
        let text = serde_json::to_vec_pretty(self).map_err(|bad| PassportError::Malformed {
            path: path.clone(),
            problem: bad.to_string(),
        })?;
        Ok(disk.replace_file(&path, text.into()).await?)
    }
}

/// A new key with a certificate for `principal`.
pub(crate) fn issue(
    authority: &Authority,
    principal: Principal,
    server_names: Vec<String>,
    (now, entropy): (Timestamp, &dyn Entropy),
) -> Result<CertificateBundle, PassportError> {
    let request = CertificateRequest::generate(&principal)?;
    let issue = Issue { principal, serial: random_serial(entropy)?, now_ms: now.0, server_names };
    let certificate = authority.sign(request.request_pem(), &issue)?;
    Ok(request.complete(&certificate, &authority.certificate_pem())?)
}

/// Makes a folder that only its owner may look into, or makes one that exists so.
pub(crate) fn private_folder(path: &std::path::Path) -> Result<(), PassportError> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let failed = |source| PassportError::Folder { path: path.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let found = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if found != 0o700 {
        tracing::info!(path = %path.display(), found = format!("{found:o}"), "made a folder private");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the first releases wrote.
    const FIRST: &str =
        r#"{"cluster_id": "c", "node_id": 3, "bootstrap": false, "peers": ["127.0.0.1:7401"]}"#;

    #[test]
    fn an_old_folder_is_read_and_a_newer_one_refused_by_name() {
        let path = Path::new("/data/identity/node.json");
        let old = NodeFile::parse(FIRST.as_bytes(), path).unwrap();
        assert_eq!((old.format, old.node_id, old.log), (1, NodeId(3), LogLife::Used));
        let text = serde_json::to_string(&old).unwrap();
        assert_eq!(
            text,
            r#"{"format":1,"cluster_id":"c","node_id":3,"bootstrap":false,"peers":["127.0.0.1:7401"],"learner":false,"log":"used"}"#
        );
        assert_eq!(NodeFile::parse(text.as_bytes(), path).unwrap(), old);
        // What else a newer release writes is not known.
        let refused = NodeFile::parse(br#"{"format": 2, "name": "x"}"#, path).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "/data/identity/node.json says that the folder has format 2, but this release knows \
             formats up to 1: upgrade muster to the release that wrote it, or to a newer one"
        );
        assert!(matches!(NodeFile::parse(b"{}", path), Err(PassportError::Malformed { .. })));
    }
}
