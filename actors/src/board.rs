//! What every actor last did, for `muster inspect`. Written by actors, read by anyone.

use model::{JobKey, Name};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Which actor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Root,
    Tenant(Name),
    Cluster(Name, Name),
    Partition(JobKey),
}

impl Subject {
    /// The actor that supervises it.
    fn above(&self) -> Option<Self> {
        match self {
            Self::Root => None,
            Self::Tenant(_) => Some(Self::Root),
            Self::Cluster(tenant, _) => Some(Self::Tenant(tenant.clone())),
            Self::Partition(key) => Some(Self::Cluster(key.tenant.clone(), key.cluster.clone())),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Tenant(tenant) => write!(f, "tenants/{tenant}"),
            Self::Cluster(tenant, cluster) => write!(f, "tenants/{tenant}/clusters/{cluster}"),
            Self::Partition(key) => {
                write!(f, "tenants/{}/clusters/{}/jobs/{key}", key.tenant, key.cluster)
            }
        }
    }
}

/// What an actor knows, what it last did and why not more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ActorStatus {
    /// Path in the tree, such as `tenants/acme/clusters/north`.
    pub path: String,
    /// Whether it is up now; false while it waits for a restart.
    pub up: bool,
    /// Number of times it looked at the state since the process started.
    pub runs: u64,
    /// Number of commands it proposed.
    pub proposed: u64,
    /// Number of crashes.
    pub crashes: u64,
    /// Number of crashes of actors right below it, of those too that are gone since.
    pub crashes_below: u64,
    /// Revision it last looked at.
    pub revision: u64,
    /// What the last run found, one line.
    pub last_run: String,
    /// The last error or crash; kept after recovery.
    pub last_error: Option<String>,
}

/// The shared board.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<BTreeMap<Subject, ActorStatus>>>);

impl Board {
    /// Status of every actor, in tree order.
    pub fn all(&self) -> Vec<ActorStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Changes the status of one actor.
    pub(crate) fn update(&self, subject: &Subject, change: impl FnOnce(&mut ActorStatus)) {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let status = board
            .entry(subject.clone())
            .or_insert_with(|| ActorStatus { path: subject.to_string(), ..ActorStatus::default() });
        change(status);
    }

    /// Notes a crash, here and with the actor above.
    pub(crate) fn crashed(&self, subject: &Subject, error: &str) {
        self.update(subject, |status| {
            status.up = false;
            status.crashes += 1;
            status.last_error = Some(error.to_owned());
        });
        if let Some(above) = subject.above() {
            self.update(&above, |status| status.crashes_below += 1);
        }
    }

    /// No actor is up any more. Those that never crashed go off the board; the others stay on it with
    /// their crashes.
    pub(crate) fn all_down(&self) {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        board.retain(|_, status| {
            status.up = false;
            status.crashes + status.crashes_below > 0
        });
    }

    /// Takes an actor off the board: it is not needed any more.
    pub(crate) fn remove(&self, subject: &Subject) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(subject);
    }
}
