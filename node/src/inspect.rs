//! What is in the data folder of a node that does not run, and whether it is whole.
//!
//! Nothing in the folder is written, and no right to write is needed: files are opened for reading, and
//! the store, which changes its files when it is opened, is opened as a copy. A node that runs holds the folder's lock; then it is refused.

use crate::{Folders, NodeFile, passport::PassportError};
use consensus::LedgerReport;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use storage::{
    Disk, DiskFile, Fault, Finding, Remedy,
    disk::real::{RealDisk, RealDiskConfig},
    kv::{
        KvHome,
        sled::{SledConfig, SledHome},
    },
};

/// Largest `node.json` read, in bytes.
const NODE_JSON_BYTES_MAX: u64 = 1 << 20;
/// Files are read in pieces of so many bytes.
const PIECE_BYTES: usize = 1 << 20;

/// A node's folder.
#[derive(Default)]
pub struct FolderReport {
    /// Who the node is, if it has an identity.
    pub node: Option<NodeFile>,
    /// Its ledger.
    pub ledger: LedgerReport,
    /// Files of the store and their bytes.
    pub store_files: (u64, u64),
    /// Images and their bytes.
    pub blobs: (u64, u64),
    /// What is wrong, the ledger's findings among it.
    pub findings: Vec<Finding>,
}

/// Why a folder cannot be inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is no such folder, or it is no node's.
    #[error("{} is not the data folder of a control node: it has neither identity nor log", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// A node runs on it.
    #[error("a node is running on {}: stop it first, or ask it with `muster inspect`", path.display())]
    Running {
        /// The folder.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("could not read the data folder")]
    Storage(#[from] Fault),
}

/// Inspects the data folder `data`. `scratch` is an empty folder elsewhere for the copy of the store;
/// `deep` also reads every image and compares it with its digest.
///
/// # Errors
/// See [`InspectError`]; damage is a finding.
pub async fn inspect(
    data: &Path,
    scratch: &Path,
    deep: bool,
) -> Result<FolderReport, InspectError> {
    // An absolute path, so that findings name files that can be found.
    let data = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let folders = Folders::new(&data);
    let disk = RealDisk::start_read_only(&RealDiskConfig::new())?;
    if !disk.exists(&folders.node_json()).await? && !disk.exists(&folders.log()).await? {
        return Err(InspectError::Foreign { path: data });
    }
    // Taking the lock would make its file; without the file no node has ever started here.
    let _lock = match disk.exists(&folders.lock()).await? {
        true => Some(disk.lock(&folders.lock()).await.map_err(|fault| match fault {
            Fault::Locked { .. } => InspectError::Running { path: data.clone() },
            fault => fault.into(),
        })?),
        false => None,
    };
    let mut report = FolderReport::default();
    identity(&disk, &folders, &mut report).await;
    let copy = scratch.join("kv");
    let mut store = None;
    if disk.exists(&folders.kv()).await? {
        let writable = RealDisk::start(&RealDiskConfig::new())?;
        report.store_files = copy_folder((&disk, &folders.kv()), (&writable, &copy)).await?;
        let mut config = SledConfig::new(&copy);
        config.lock_wait_ms = 0;
        match SledHome::new(config).open() {
            Ok(kv) => store = Some(kv),
            Err(fault) => {
                let detail = format!("it does not open: {fault}");
                report.findings.push(Finding::new(&folders.kv(), 0, detail, Remedy::Nothing));
            }
        }
    }
    let place = folders.kv();
    let store = store.as_ref().map(|kv| (kv, place.as_path()));
    report.ledger = consensus::inspect(&disk, &data, store).await?;
    report.findings.append(&mut report.ledger.findings);
    images(&disk, &folders, deep, &mut report).await?;
    Ok(report)
}

async fn identity(disk: &RealDisk, folders: &Folders, report: &mut FolderReport) {
    let path = folders.node_json();
    let found = match disk.read_file(&path, NODE_JSON_BYTES_MAX).await {
        Ok(bytes) => NodeFile::parse(&bytes, &path).map_err(|error| match error {
            PassportError::Format { .. } => (error.to_string(), Remedy::Upgrade),
            error => (error.to_string(), Remedy::Rejoin),
        }),
        Err(fault) => Err((fault.to_string(), Remedy::Rejoin)),
    };
    match found {
        Ok(node) => report.node = Some(node),
        Err((detail, remedy)) => report.findings.push(Finding::new(&path, 0, detail, remedy)),
    }
    let paths = [folders.identity().join("identity.pem"), folders.identity().join("authority.key")];
    for path in paths {
        if !disk.exists(&path).await.unwrap_or(false) {
            report.findings.push(Finding::new(&path, 0, "it is missing", Remedy::Rejoin));
        }
    }
}

/// Copies files and folders; answers how many files, and their bytes.
async fn copy_folder(
    (disk, from): (&RealDisk, &Path),
    (writable, to): (&RealDisk, &Path),
) -> Result<(u64, u64), Fault> {
    let (mut files, mut bytes) = (0, 0);
    let mut folders = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = folders.pop() {
        writable.create_dir(&to).await?;
        for name in disk.list(&from).await? {
            let (from, to) = (from.join(&name), to.join(&name));
            if from.is_dir() {
                folders.push((from, to));
                continue;
            }
            let (source, copy) = (disk.open(&from).await?, writable.create(&to).await?);
            let mut offset = 0;
            loop {
                let piece = source.read_at(offset, PIECE_BYTES).await?;
                if piece.is_empty() {
                    break;
                }
                let length = piece.len() as u64;
                copy.write_at(offset, piece).await?;
                offset += length;
            }
            (files, bytes) = (files + 1, bytes + offset);
        }
    }
    Ok((files, bytes))
}

async fn images(
    disk: &RealDisk,
    folders: &Folders,
    deep: bool,
    report: &mut FolderReport,
) -> Result<(), Fault> {
    let dir = artifact::blobs_folder(&folders.blobs());
    if !disk.exists(&dir).await? {
        return Ok(());
    }
    for name in disk.list(&dir).await? {
        let path = dir.join(&name);
        let file = disk.open(&path).await?;
        let bytes = file.len().await?;
        report.blobs = (report.blobs.0 + 1, report.blobs.1 + bytes);
        if deep && digest(&file).await? != name {
            let detail = "its content does not have the digest it is named by: another node's copy \
                          takes its place";
            report.findings.push(Finding::new(&path, 0, detail, Remedy::Nothing));
        }
    }
    Ok(())
}

async fn digest<F: DiskFile>(file: &F) -> Result<String, Fault> {
    let mut hash = Sha256::new();
    let mut offset = 0;
    loop {
        let piece = file.read_at(offset, PIECE_BYTES).await?;
        if piece.is_empty() {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(&piece);
        offset += piece.len() as u64;
    }
}
