//! Packages: immutable versions of what can be deployed, made of applications.

use crate::{Digest, DriverKind, Meta, Name, Resources};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A version text: 1 to 40 characters of `[a-zA-Z0-9.+-]`, starting with a letter or digit.
pub type Version = String;

/// A value handed to an application.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Value {
    /// The text itself.
    Literal(String),
    /// A key of a secret, resolved on the host.
    SecretRef {
        /// Name of the secret.
        name: Name,
        /// Key within it.
        key: String,
    },
}

/// What happens to a running copy when its host is out of contact.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum OnDisconnect {
    /// Keeps running, is never replaced until an operator declares the host lost.
    #[default]
    KeepRunning,
    /// Stops at the end of the lease, then runs elsewhere in its cluster: exactly one.
    Stop,
    /// Keeps running and is replaced after a grace: at least one.
    Replace,
}

impl OnDisconnect {
    /// The policy's word in every interface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeepRunning => "keep_running",
            Self::Stop => "stop",
            Self::Replace => "replace",
        }
    }
}

/// One application of a package.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Application {
    /// Name within the package.
    pub name: Name,
    /// Version of the application.
    pub version: Version,
    /// Runtime it needs.
    pub driver: DriverKind,
    /// Number of partitions, 1 to 65,535; frozen per (tenant, deployment, cluster, application).
    pub num_partitions: u32,
    /// Content by role; `main` is what runs.
    pub artifacts: BTreeMap<Name, Digest>,
    /// What each partition is given, at most.
    pub limits: Resources,
    /// Policy for lost contact.
    pub on_disconnect: OnDisconnect,
    /// Time to stop gracefully, in ms, before it is killed. At most 10,000 for `stop` jobs.
    pub stop_grace_ms: u64,
    /// Environment handed to every partition.
    pub env: BTreeMap<String, Value>,
    /// Zones it may run in; empty means any.
    pub zones: Vec<Name>,
}

/// A version of a package: never changes once stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Package {
    /// The envelope; the name is shared by all versions.
    pub meta: Meta,
    /// The version.
    pub version: Version,
    /// Its applications, at most 100, names unique.
    pub applications: Vec<Application>,
}

/// An image whose bytes a majority of control nodes holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Image {
    /// The envelope; the name is the application's.
    pub meta: Meta,
    /// Identity of the bytes.
    pub digest: Digest,
    /// Number of bytes.
    pub size_bytes: u64,
    /// Defaults its `application.json` states.
    pub application: Application,
}
