//! Key and certificate files: written aside, synced and renamed, so that a crash leaves the old
//! file or the new one; read with a limit; private ones only with a private mode.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use zeroize::Zeroize;

use crate::error::{Error, PEM_BYTES_MAX};

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// The owner only: 0600.
    Private,
    /// Everybody: 0644.
    Public,
}

/// Replaces the file at once; on return it survives a power cut.
pub(crate) fn write(path: &Path, text: &str, access: Access) -> Result<(), Error> {
    let failed = |source| Error::File { action: "write", path: path.to_owned(), source };
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = Path::new(&aside);
    match fs::remove_file(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let mode = match access {
        Access::Private => 0o600,
        Access::Public => 0o644,
    };
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(aside)?;
        // The process's umask may have taken bits away from a public file.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(aside, path)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    };
    write().map_err(failed)
}

/// The whole text, if it is UTF-8 and at most `PEM_BYTES_MAX` long and, for a private file, nobody
/// but the owner has any right to it.
pub(crate) fn read(path: &Path, access: Access) -> Result<String, Error> {
    let failed = |source| Error::File { action: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    if access == Access::Private {
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(Error::FileMode { path: path.to_owned(), mode });
        }
    }
    let mut bytes = Vec::with_capacity(PEM_BYTES_MAX + 1); // never moves, so it leaves no copy
    file.take(PEM_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > PEM_BYTES_MAX {
        bytes.zeroize();
        return Err(Error::TooLong { noun: "PEM file", bytes_max: PEM_BYTES_MAX });
    }
    String::from_utf8(bytes).map_err(|_bytes| Error::Pem { noun: "PEM file" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_set_and_a_second_write_replaces() {
        let folder = tempfile::tempdir().unwrap();
        for (access, mode) in [(Access::Private, 0o600), (Access::Public, 0o644)] {
            let path = folder.path().join(format!("{access:?}"));
            write(&path, "one", access).unwrap();
            write(&path, "two", access).unwrap();
            assert_eq!(read(&path, access).unwrap(), "two");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left aside");
    }

    #[test]
    fn a_private_file_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write(&path, "key", Access::Public).unwrap();
        let refused = read(&path, Access::Private).unwrap_err();
        assert!(matches!(refused, Error::FileMode { mode: 0o644, .. }), "{refused}");
    }

    #[test]
    fn a_file_over_the_limit_is_refused_at_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long");
        write(&path, &"a".repeat(PEM_BYTES_MAX), Access::Public).unwrap();
        assert_eq!(read(&path, Access::Public).unwrap().len(), PEM_BYTES_MAX);
        write(&path, &"a".repeat(PEM_BYTES_MAX + 1), Access::Public).unwrap();
        assert!(matches!(read(&path, Access::Public), Err(Error::TooLong { .. })));
    }
}
