//! From a job's key to its names on this host, and back from what a driver recovered.
//!
//! A driver's name for a job is short and fit for a folder, so it cannot hold the whole key: the key
//! is read back from the specification, in which the modules' environment says what the name does not.

use std::fmt;
use std::path::{Path, PathBuf};

use model::{JobKey, Name, Revision, Slot, Uid};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::driver::{JobId, JobSpec};

/// Environment variable of the cluster.
pub(crate) const CLUSTER: &str = "MUSTER_CLUSTER";
/// Environment variable of the slot.
pub(crate) const SLOT: &str = "MUSTER_SLOT";
/// Environment variable of the revision of the spec.
pub(crate) const SPEC_REVISION: &str = "MUSTER_SPEC_REVISION";

/// Longest readable part of a job's name on the host, in bytes.
const READABLE_BYTES_MAX: usize = 100;

/// The driver's name of a job: readable, and distinct for distinct keys by a hash.
pub fn job_id(key: &JobKey) -> Option<JobId> {
    let mut hash = Sha256::new();
    for part in [&key.tenant, &key.deployment, &key.cluster, &key.application] {
        hash.update(part.as_str());
        hash.update([0]);
    }
    hash.update(key.slot.to_string());
    let hash = hex::encode(&hash.finalize()[..8]);
    let mut readable = format!("{}.{}.{}", key.deployment, key.application, key.slot);
    readable.truncate(READABLE_BYTES_MAX);
    JobId::new(format!("{readable}.{hash}")).ok()
}

/// A job's data on this host: that of a job of one deployment. It outlives updates of the job, and no
/// deployment made later under the same name gets it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Folder {
    /// The job.
    pub(crate) key: JobKey,
    /// The deployment; `None` for data of before its owner was kept, which goes to the first that starts.
    #[serde(default)]
    pub(crate) deployment: Option<Uid>,
}

impl Folder {
    /// Where it is below `root`: the last part is the slot and, behind an `@`, the deployment's uid.
    pub(crate) fn path(&self, root: &Path) -> PathBuf {
        let key = &self.key;
        let owner = self.deployment.map(|uid| format!("@{uid}")).unwrap_or_default();
        root.join("data")
            .join(key.tenant.as_str())
            .join(key.deployment.as_str())
            .join(key.cluster.as_str())
            .join(key.application.as_str())
            .join(format!("{}{owner}", key.slot))
    }

    /// The slot and the owner that the last part of a path names.
    pub(crate) fn named(text: &str) -> Option<(Slot, Option<Uid>)> {
        let Some((of, owner)) = text.split_once('@') else { return Some((slot(text)?, None)) };
        let (revision, ordinal) = owner.split_once('-')?;
        let revision = Revision(revision.parse().ok()?);
        Some((slot(of)?, Some(Uid { revision, ordinal: ordinal.parse().ok()? })))
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, deployment } = self;
        match deployment {
            Some(uid) => write!(f, "{key} of deployment {uid}"),
            None => write!(f, "{key}"),
        }
    }
}

/// Where a job's data was before its owner was kept, for a path that names the owner.
pub(crate) fn unowned(data_dir: &Path) -> Option<PathBuf> {
    let (slot, _) = data_dir.file_name()?.to_str()?.split_once('@')?;
    Some(data_dir.with_file_name(slot))
}

/// What the specification says of the job, for the environment of each module.
pub(crate) fn environment(key: &JobKey, spec_revision: Revision) -> Vec<(String, String)> {
    vec![
        (CLUSTER.to_owned(), key.cluster.to_string()),
        (SLOT.to_owned(), key.slot.to_string()),
        (SPEC_REVISION.to_owned(), spec_revision.to_string()),
    ]
}

/// The key and the spec's revision of a job that a driver recovered; `None` for a specification that
/// was not made by an agent.
pub fn of_spec(spec: &JobSpec) -> Option<(JobKey, Revision)> {
    let said = |wanted: &str| {
        let env = &spec.modules.first()?.env;
        env.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    };
    let name = |text: &str| Name::new(text).ok();
    let key = JobKey {
        tenant: name(&spec.tenant)?,
        deployment: name(&spec.deployment)?,
        cluster: name(said(CLUSTER)?)?,
        application: name(&spec.app)?,
        slot: slot(said(SLOT)?)?,
    };
    Some((key, Revision(said(SPEC_REVISION)?.parse().ok()?)))
}

/// The slot whose text this is.
pub(crate) fn slot(text: &str) -> Option<Slot> {
    if let Some(host) = text.strip_prefix("host-") {
        return Name::new(host).ok().map(Slot::Host);
    }
    if let Some(run) = text.strip_prefix("run-") {
        return run.parse().ok().map(Slot::Run);
    }
    text.parse().ok().map(Slot::Partition)
}

#[cfg(test)]
mod tests {

    use super::*;

    fn key(deployment: &str, slot: Slot) -> JobKey {
        let name = |text: &str| Name::new(text).unwrap();
        JobKey {
            tenant: name("acme"),
            deployment: name(deployment),
            cluster: name("north"),
            application: name("web"),
            slot,
        }
    }

    #[test]
    fn names_differ_where_keys_differ_and_fit_a_folder_however_long_the_key_is() {
        let long = "x".repeat(63);
        let short = job_id(&key("shop", Slot::Partition(3))).unwrap();
        assert!(short.as_str().starts_with("shop.web.3."), "{short}");
        assert_ne!(short, job_id(&key("shop", Slot::Run(3))).unwrap());
        let host = Slot::Host(Name::new(&long).unwrap());
        let id = job_id(&key(&long, host)).unwrap();
        assert!(id.as_str().len() <= 130, "{id}");
    }

    #[test]
    fn every_slot_is_read_back_from_its_text() {
        for kind in [
            Slot::Partition(0),
            Slot::Partition(4_711),
            Slot::Host(Name::new("edge-1").unwrap()),
            Slot::Run(7),
        ] {
            assert_eq!(slot(&kind.to_string()), Some(kind));
        }
        assert_eq!(slot("x"), None);
    }

    #[test]
    fn data_is_named_by_slot_and_owner() {
        let uid = Uid { revision: Revision(41), ordinal: 3 };
        for kind in [Slot::Partition(4), Slot::Host(Name::new("edge-1").unwrap()), Slot::Run(7)] {
            for deployment in [None, Some(uid)] {
                let folder = Folder { key: key("shop", kind.clone()), deployment };
                let path = folder.path(Path::new("/x"));
                let name = path.file_name().unwrap().to_str().unwrap();
                assert_eq!(Folder::named(name), Some((kind.clone(), deployment)));
            }
        }
        let path = Folder { key: key("shop", Slot::Partition(4)), deployment: Some(uid) };
        let path = path.path(Path::new("/x"));
        assert_eq!(path, Path::new("/x/data/acme/shop/north/web/4@41-3"));
        assert_eq!(unowned(&path).as_deref(), Some(Path::new("/x/data/acme/shop/north/web/4")));
        for wrong in ["4@", "4@41", "4@x-3", "lost+found", "@41-3"] {
            assert_eq!(Folder::named(wrong), None, "{wrong}");
        }
    }
}
