//! Who the console is and whom it calls: the folder with an operator's certificate and the file
//! `client.json` in it.
//!
//! Looked for in this order: the flag or `MUSTER_IDENTITY`, `$XDG_CONFIG_HOME/muster` (else
//! `~/.config/muster`), and the development cluster that runs on this machine, which leaves word in
//! `$XDG_RUNTIME_DIR` (else the temporary folder).

use crate::{failure::Failure, global::Global, render::say};
use identity::CertificateBundle;
use serde::{Deserialize, Serialize};
use std::{
    env, fs,
    io::{self, IsTerminal},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Name of the file beside the certificate.
const CLIENT_FILE: &str = "client.json";

/// Largest file of this kind that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What `client.json` holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClientFile {
    /// Client addresses of control nodes.
    #[serde(default)]
    pub(crate) servers: Vec<String>,
    /// Id of the cluster the certificate is of.
    #[serde(default)]
    pub(crate) cluster_id: String,
    /// Tenant to work in unless another is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tenant: Option<String>,
}

/// Who the console is and whom it calls.
pub(crate) struct Profile {
    pub(crate) bundle: CertificateBundle,
    pub(crate) servers: Vec<String>,
    pub(crate) tenant: Option<String>,
}

impl Profile {
    /// Finds and reads the identity.
    pub(crate) fn load(global: &Global) -> Result<Self, Failure> {
        let folder = find(global)?;
        let bundle = CertificateBundle::load(&folder).map_err(|error| {
            Failure::usage(
                format!("the certificate in {} cannot be used: {error}", folder.display()),
                "name a folder that `muster login` or `muster serve --bootstrap` wrote",
            )
        })?;
        let file = read_client_file(&folder)?;
        let servers = if global.server.is_empty() { file.servers } else { global.server.clone() };
        if servers.is_empty() {
            return Err(Failure::usage(
                "no control node is known".into(),
                "name one with --server host:port or MUSTER_SERVER",
            ));
        }
        Ok(Self { bundle, servers, tenant: global.tenant.clone().or(file.tenant) })
    }
}

fn find(global: &Global) -> Result<PathBuf, Failure> {
    if let Some(folder) = &global.identity {
        return Ok(folder.clone());
    }
    let login = config_folder().filter(|folder| CertificateBundle::exists(folder));
    match (login, running_dev()) {
        (Some(login), Some(dev)) => {
            // Somebody who looks on may expect the other one.
            if io::stderr().is_terminal() {
                say(&which(&login, &dev));
            }
            Ok(login)
        }
        (Some(folder), None) | (None, Some(folder)) => Ok(folder),
        (None, None) => Err(Failure::usage(
            "no identity was found".into(),
            "start `muster dev`, or run `muster login --token TOKEN --server host:port`, or name a folder with --identity",
        )),
    }
}

/// Which cluster is asked where two are known, and how to ask the other.
fn which(login: &Path, dev: &Path) -> String {
    format!(
        "asking the cluster of the login in {}; for the development cluster: --identity {}",
        login.display(),
        dev.display()
    )
}

/// Where `muster login` keeps the identity.
pub(crate) fn config_folder() -> Option<PathBuf> {
    let given = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|it| it.is_absolute());
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    given.or_else(home).map(|folder| folder.join("muster"))
}

/// Reads the file beside a certificate; an empty one if there is none.
pub(crate) fn read_client_file(folder: &Path) -> Result<ClientFile, Failure> {
    let path = folder.join(CLIENT_FILE);
    let failed = |error: String| {
        Failure::usage(
            format!("{} cannot be read: {error}", path.display()),
            "mend or remove the file",
        )
    };
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ClientFile::default()),
        Err(error) => return Err(failed(error.to_string())),
        Ok(found) if found.len() > FILE_BYTES_MAX => return Err(failed("it is too large".into())),
        Ok(_) => {}
    }
    let text = fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| failed(error.to_string()))
}

/// Writes the file beside a certificate.
pub(crate) fn write_client_file(folder: &Path, file: &ClientFile) -> io::Result<()> {
    let text = serde_json::to_string_pretty(file).map_err(io::Error::other)?;
    write_aside(&folder.join(CLIENT_FILE), &text)
}

fn write_aside(path: &Path, text: &str) -> io::Result<()> {
    let aside = path.with_extension("new");
    fs::write(&aside, text)?;
    fs::rename(aside, path)
}

/// Leaves word that a development cluster runs, and where its operator's identity is.
///
/// # Errors
/// When the word cannot be left, or its place belongs to somebody else.
pub fn announce_dev(admin: &Path) -> io::Result<()> {
    let place = dev_place();
    let made = fs::DirBuilder::new().mode(0o700).create(&place);
    if let Err(error) = made
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    if !is_private(&place) {
        let text = format!("{} is not a folder of this user alone", place.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    let text = admin.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    write_aside(&place.join("current"), text)
}

/// Takes the word back, if it is still about this cluster.
pub fn retire_dev(admin: &Path) {
    let word = dev_place().join("current");
    if fs::read_to_string(&word).is_ok_and(|text| Path::new(&text) == admin) {
        // Another program of this user may just have done the same.
        let _ = fs::remove_file(word);
    }
}

fn running_dev() -> Option<PathBuf> {
    let place = dev_place();
    if !is_private(&place) {
        return None;
    }
    let text = fs::read_to_string(place.join("current")).ok()?;
    let folder = PathBuf::from(text);
    CertificateBundle::exists(&folder).then_some(folder)
}

fn dev_place() -> PathBuf {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|it| it.is_absolute());
    match runtime {
        Some(folder) => folder.join("muster-dev"),
        None => env::temp_dir().join(format!("muster-dev-{}", own_uid())),
    }
}

/// Whether a folder is this user's and nobody else may enter: in a shared temporary folder somebody
/// else might have made it first.
fn is_private(folder: &Path) -> bool {
    fs::symlink_metadata(folder).is_ok_and(|found| {
        found.is_dir() && found.uid() == own_uid() && found.permissions().mode() & 0o077 == 0
    })
}

/// The user this process runs as: who owns its entry in `/proc`.
fn own_uid() -> u32 {
    fs::metadata("/proc/self").map_or(u32::MAX, |found| found.uid())
}
