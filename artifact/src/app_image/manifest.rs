//! What a valid image says of itself: the result of validation, ready to be kept or shown.
//!
//! `num_partitions`, `limits`, `on_disconnect` and `stop_grace_ms` are the image's defaults; a
//! deployment may override them. Everything here is derived from the image's bytes alone.

use std::{collections::BTreeMap, fmt};

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// A valid application image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The application's name.
    pub name: String,
    /// The application's version.
    #[serde(with = "text")]
    pub version: Version,
    /// The driver that all its modules need.
    pub driver: Driver,
    /// The architectures it runs on: for `wasm` all, else those for which every module has an
    /// executable.
    pub architectures: Vec<Architecture>,
    /// How many partitions it has unless the deployment says otherwise, 1 to 65535.
    pub num_partitions: u16,
    /// What becomes of a partition whose host is cut off.
    pub on_disconnect: OnDisconnect,
    /// What one partition may use.
    pub limits: ResourceLimits,
    /// How long a partition may take to stop before it is killed.
    pub stop_grace_ms: u64,
    /// The modules, each after those it depends on, else by name.
    pub modules: Vec<Module>,
    /// The templates, by name.
    pub templates: Vec<Template>,
    /// The static folders, by name.
    pub statics: Vec<StaticFolder>,
}

/// Which driver runs an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// WASI command modules.
    Wasm,
    /// Executables of the host.
    Exec,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wasm => "wasm",
            Self::Exec => "exec",
        })
    }
}

/// What becomes of a partition whose host is cut off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// It keeps running and is not replaced.
    #[default]
    KeepRunning,
    /// It is stopped at the end of the lease, then started elsewhere.
    Stop,
    /// It keeps running and is replaced elsewhere.
    Replace,
}

/// A processor architecture that executables are built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// `x86_64`
    #[serde(rename = "x86_64")]
    X86,
    /// `aarch64`
    #[serde(rename = "aarch64")]
    Arm,
}

impl Architecture {
    /// Every architecture.
    pub const ALL: [Self; 2] = [Self::X86, Self::Arm];

    /// The name as in `package.exe.<arch>` and in `std::env::consts::ARCH`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "aarch64",
        }
    }

    /// The architecture of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|architecture| architecture.name() == name)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What one partition may use; nothing is limited where nothing is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// Thousandths of one processor.
    pub cpu_millis: Option<u32>,
    /// Memory.
    pub memory_bytes: Option<u64>,
}

/// A file of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its path inside the image, with forward slashes.
    pub path: String,
    /// Its size, inflated.
    pub size_bytes: u64,
    /// The digest of its inflated bytes.
    pub digest: Digest,
}

/// A module: what a partition runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its name, from package.json.
    pub name: String,
    /// Its version.
    #[serde(with = "text")]
    pub version: Version,
    /// Its folder in the image.
    pub folder: String,
    /// The modules of the image that it depends on, and the versions it accepts.
    #[serde(with = "text_map")]
    pub dependencies: BTreeMap<String, VersionReq>,
    /// What it promises to export, in order of name.
    pub exports: Vec<String>,
    /// What is run.
    pub payload: Payload,
    /// Its arguments, without the program's name.
    pub args: Vec<String>,
    /// Its environment, beside what muster sets.
    pub env: BTreeMap<String, String>,
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// One WASI command module.
    Wasm(File),
    /// One executable for each architecture named.
    Exec(BTreeMap<Architecture, File>),
}

/// A workspace template: opaque data files, handed to the application by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Its name, from wstemplate.json.
    pub name: String,
    /// Its folder in the image.
    pub folder: String,
    /// Its data files, in order of path.
    pub data: Vec<File>,
}

/// A folder of files that are served as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticFolder {
    /// Its name, from static.json.
    pub name: String,
    /// Its folder in the image; its files are the index's entries below it.
    pub folder: String,
}

/// serde for a type that has a text form.
mod text {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// serde for a map of version requirements.
mod text_map {
    use std::collections::BTreeMap;

    use semver::VersionReq;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        map: &BTreeMap<String, VersionReq>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(name, value)| (name, value.to_string())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, VersionReq>, D::Error> {
        BTreeMap::<String, String>::deserialize(deserializer)?
            .into_iter()
            .map(|(name, value)| Ok((name, value.parse().map_err(D::Error::custom)?)))
            .collect()
    }
}
