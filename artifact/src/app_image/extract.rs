//! Writes a validated image out as files, for a driver to run.
//!
//! Only paths of the validated index are written, and each file's size and digest are checked on
//! the way, so what lies in the folder is what was validated. The folder appears whole or not at
//! all: everything is written and synced beside it first. This works on the host's file system
//! directly: it runs in agents' real drivers, which simulation replaces.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use zip::{ZipArchive, result::ZipError};

use crate::{
    app_image::{Validated, archive::CONFIG, manifest::File, pack::is_executable},
    digest::Hasher,
};

/// Why an image was not extracted. Nothing is at the destination then.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// Something is at the destination already.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The zip is not the one that was validated.
    #[error("the image is not the one that was validated: {0} differs")]
    Changed(String),
    /// The zip could not be read.
    #[error("could not read {path} of the image")]
    Read {
        /// The path inside the image.
        path: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// A file or folder could not be written.
    #[error("could not write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Writes the files of an image below `destination`, which must not exist; the folder above it
/// must. Executables get mode 0755, all other files 0644. What an earlier, cut-short call left
/// beside the destination is removed.
///
/// # Errors
/// See `ExtractError`.
pub fn extract<R: Read + Seek>(
    reader: R,
    image: &Validated,
    destination: &Path,
) -> Result<(), ExtractError> {
    if fs::symlink_metadata(destination).is_ok() {
        return Err(ExtractError::Exists(destination.to_owned()));
    }
    let aside = aside(destination);
    remove(&aside)?;
    let written = write_all(reader, image, &aside);
    if written.is_err() {
        // The first error is the one to tell; the remains are removed by the next call at the latest.
        _ = remove(&aside);
        return written;
    }
    let unwritten = |source| ExtractError::Write { path: destination.to_owned(), source };
    fs::rename(&aside, destination).map_err(unwritten)?;
    match destination.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => sync_folder(Path::new(".")),
    }
}

/// Where the files are written before they are complete.
fn aside(destination: &Path) -> PathBuf {
    let mut name = destination.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".partial");
    destination.with_file_name(name)
}

fn remove(folder: &Path) -> Result<(), ExtractError> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ExtractError::Write { path: folder.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> Result<(), ExtractError> {
    let synced = fs::File::open(folder).and_then(|handle| handle.sync_all());
    synced.map_err(|source| ExtractError::Write { path: folder.to_owned(), source })
}

fn write_all<R: Read + Seek>(
    reader: R,
    image: &Validated,
    root: &Path,
) -> Result<(), ExtractError> {
    let mut zip = ZipArchive::with_config(CONFIG, reader).map_err(|error| unread("", error))?;
    let mut folders = vec![root.to_owned()];
    for file in &image.index {
        let place = root.join(&file.path);
        for folder in place.ancestors().skip(1).take_while(|folder| *folder != root) {
            folders.push(folder.to_owned());
        }
    }
    folders.sort();
    folders.dedup();
    for folder in &folders {
        let unwritten = |source| ExtractError::Write { path: folder.clone(), source };
        fs::create_dir(folder).map_err(unwritten)?;
    }
    for file in &image.index {
        write_file(&mut zip, file, &root.join(&file.path))?;
    }
    folders.iter().rev().try_for_each(|folder| sync_folder(folder))
}

fn unread(path: &str, error: ZipError) -> ExtractError {
    ExtractError::Read { path: path.to_owned(), source: error.into() }
}

fn write_file<R: Read + Seek>(
    zip: &mut ZipArchive<R>,
    file: &File,
    place: &Path,
) -> Result<(), ExtractError> {
    let changed = || ExtractError::Changed(file.path.clone());
    let mut entry = match zip.by_name(&file.path) {
        Ok(entry) => entry,
        Err(ZipError::FileNotFound) => return Err(changed()),
        Err(error) => return Err(unread(&file.path, error)),
    };
    let unwritten = |source| ExtractError::Write { path: place.to_owned(), source };
    let mode = if is_executable(&file.path) { 0o755 } else { 0o644 };
    let mut output = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(place)
        .map_err(unwritten)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = entry
            .read(&mut buffer)
            .map_err(|source| ExtractError::Read { path: file.path.clone(), source })?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        if hasher.length_bytes() > file.size_bytes {
            return Err(changed());
        }
        output.write_all(&buffer[..count]).map_err(unwritten)?;
    }
    if hasher.finish() != file.digest {
        return Err(changed());
    }
    output.sync_all().map_err(unwritten)
}
