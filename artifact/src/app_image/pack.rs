//! Makes the zip of a folder: always the same bytes for the same content.
//!
//! Entries are sorted, times fixed, modes derived from names, and nothing is compressed: what a
//! compressor writes differs between its versions and processors, and an image's identity must
//! not. Transfers compress on the wire instead. This reads the host's file system directly: it runs
//! in the console and in tests, never in a control node.

use std::{
    fs,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use zip::{CompressionMethod, DateTime, ZipWriter, result::ZipError, write::SimpleFileOptions};

use crate::{
    app_image::{
        module,
        path::broken_rule,
        violation::{Findings, Violation, ViolationCode},
    },
    digest::{Digest, Hasher},
    limits::Limits,
};

/// The zip that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// Its digest: the image's identity.
    pub digest: Digest,
    /// Its size.
    pub size_bytes: u64,
}

/// Why a folder was not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The folder holds what no image may hold, such as symbolic links.
    #[error("the folder breaks {} rules of images", .0.len())]
    Violations(Vec<Violation>),
    /// A file or folder could not be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The zip could not be written.
    #[error("could not write the image")]
    Write(#[source] io::Error),
}

/// Packs what is in `folder` into `output` from its start, which must be empty. Only what no zip
/// could hold is refused here; whether it is a good image is for `validate` to say.
///
/// # Errors
/// See `PackError`; `output` then holds part of a zip.
pub fn pack<W: Read + Write + Seek>(
    folder: &Path,
    output: &mut W,
    limits: &Limits,
) -> Result<Packed, PackError> {
    let mut files = Vec::new();
    let mut findings = Findings::new(limits.violations_max);
    walk(folder, "", limits, &mut files, &mut findings)?;
    findings.finish().map_err(PackError::Violations)?;
    files.sort();
    let mut zip = ZipWriter::new(&mut *output);
    for path in files {
        let mode = if is_executable(&path) { 0o755 } else { 0o644 };
        let place = folder.join(&path);
        let unread = |source| PackError::Read { path: place.clone(), source };
        let mut file = fs::File::open(&place).map_err(unread)?;
        let length = file.metadata().map_err(unread)?.len();
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .large_file(length >= u64::from(u32::MAX))
            .unix_permissions(mode);
        zip.start_file(path.as_str(), options).map_err(unwritten)?;
        io::copy(&mut file, &mut zip).map_err(PackError::Write)?;
    }
    zip.finish().map_err(unwritten)?;
    output.rewind().map_err(PackError::Write)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = output.read(&mut buffer).map_err(PackError::Write)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
    }
    output.rewind().map_err(PackError::Write)?;
    Ok(Packed { size_bytes: hasher.length_bytes(), digest: hasher.finish() })
}

fn unwritten(error: ZipError) -> PackError {
    PackError::Write(error.into())
}

/// Whether a file of an image is for running: its name says so, whatever its mode was.
pub(crate) fn is_executable(path: &str) -> bool {
    path.split_once('/').is_some_and(|(_, file)| file.starts_with(module::PACKAGE_EXE))
}

/// Lists the files below `folder`, whose own path in the image is `prefix` (empty or ending in `/`).
fn walk(
    folder: &Path,
    prefix: &str,
    limits: &Limits,
    files: &mut Vec<String>,
    findings: &mut Findings,
) -> Result<(), PackError> {
    let unread = |source| PackError::Read { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            let shown = format!("{prefix}{}", name.to_string_lossy());
            findings.add(ViolationCode::BadPath, &shown, "the path is not UTF-8");
            continue;
        };
        let path = format!("{prefix}{name}");
        if let Some((code, detail)) = broken_rule(&path, limits.path_bytes_max) {
            findings.add(code, &path, detail);
            continue;
        }
        let kind = entry.file_type().map_err(unread)?;
        if kind.is_symlink() {
            findings.add(ViolationCode::Symlink, &path, "the file is a symbolic link");
        } else if kind.is_dir() {
            walk(&entry.path(), &format!("{path}/"), limits, files, findings)?;
        } else if !kind.is_file() {
            findings.add(ViolationCode::SpecialFile, &path, "the file is not a plain file");
        } else if files.len() >= limits.entries_max {
            let detail = format!("the folder has more than {} files", limits.entries_max);
            findings.add(ViolationCode::TooManyEntries, "", detail);
            return Ok(());
        } else {
            files.push(path);
        }
    }
    Ok(())
}
