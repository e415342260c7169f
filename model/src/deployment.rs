//! Deployments: a package version wanted on a set of clusters.

use crate::{
    Condition, Labels, Meta, Name, Resources, Revision, Status, Timestamp, Value, Version,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Where a deployment goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Targets {
    /// Exactly these clusters; 1 to 50.
    Clusters(BTreeSet<Name>),
    /// Every cluster whose labels contain all of these pairs, now and later; 1 to 10 pairs.
    Selector(Labels),
}

/// Changes to one application of the package for this deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Override {
    /// Values added to, or replacing, the application's environment.
    pub env: BTreeMap<String, Value>,
    /// Number of partitions instead of the application's.
    pub num_partitions: Option<u32>,
    /// Limits instead of the application's.
    pub limits: Option<Resources>,
}

/// How an update is rolled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Strategy {
    /// Partitions of one application and cluster that may be down at once because of an update;
    /// at least 1.
    pub max_unavailable: u32,
}

/// What a deployment asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeploymentSpec {
    /// Package name.
    pub package: Name,
    /// Package version.
    pub version: Version,
    /// Named base values of the package; empty means its default.
    pub profile: Option<Name>,
    /// Changes by application name; at most 100.
    pub overrides: BTreeMap<Name, Override>,
    /// Where it goes.
    pub targets: Targets,
    /// How updates are rolled out.
    pub strategy: Strategy,
}

/// An earlier spec, kept for rollback and history (the newest 20).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeploymentRevision {
    /// Generation it had.
    pub generation: u64,
    /// When it was asked for.
    pub at: Timestamp,
    /// What was asked.
    pub spec: DeploymentSpec,
}

/// State of a deployment or of its part on one cluster (APP-26).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum DeploymentState {
    /// Some part cannot be seen.
    #[default]
    Unknown,
    /// All of it runs as asked.
    Running,
    /// Settled before, now not all of it runs.
    Down,
    /// A reconcile step of control itself failed.
    InternalError,
    /// First generation, on its way.
    Deploying,
    /// Later generation, on its way.
    Updating,
    /// Deletion was asked for.
    Terminating,
    /// An application failed or made no progress within its deadline.
    Error,
    /// No cluster matches.
    NoTargetClusters,
}

impl DeploymentState {
    /// The state's word in every interface, such as `NO_TARGET_CLUSTERS`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Running => "RUNNING",
            Self::Down => "DOWN",
            Self::InternalError => "INTERNAL_ERROR",
            Self::Deploying => "DEPLOYING",
            Self::Updating => "UPDATING",
            Self::Terminating => "TERMINATING",
            Self::Error => "ERROR",
            Self::NoTargetClusters => "NO_TARGET_CLUSTERS",
        }
    }
}

/// Partitions of a deployment (or of its part on a cluster) by how they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Counts {
    /// Partitions asked for.
    pub total: u64,
    /// Running at the spec in force, and healthy for the anti-flap time.
    pub running: u64,
    /// Neither running, failed nor unknown.
    pub pending: u64,
    /// On a host that is out of contact.
    pub unknown: u64,
    /// Failed.
    pub failed: u64,
}

/// A deployment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Deployment {
    /// The envelope.
    pub meta: Meta,
    /// What is asked.
    pub spec: DeploymentSpec,
    /// Earlier specs, oldest first.
    pub revisions: Vec<DeploymentRevision>,
    /// Revision of the last spec change that concerns what runs (package, version, profile,
    /// overrides). Workloads carry it, so that a change of targets or strategy moves no job.
    pub workload_revision: Revision,
    /// Whether the generation in force, or a cluster that became a target, has not been seen RUNNING
    /// yet (APP-26). Cleared too when the grace without any target is over.
    pub in_progress: bool,
    /// Since when no cluster is a target; drives the NO_TARGET_CLUSTERS grace.
    pub targetless_since: Option<Timestamp>,
    /// State, as the rollup derives it.
    pub state: DeploymentState,
    /// Partitions over all its clusters.
    pub counts: Counts,
    /// Status for people.
    pub status: Status,
    /// Named facts.
    pub conditions: Vec<Condition>,
}

/// The part of a deployment on one cluster. Derived; it lives as long as the cluster is a target or
/// still has jobs of the deployment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeploymentCluster {
    /// Whether the cluster is a target now; otherwise its jobs are going.
    pub targeted: bool,
    /// Number of partitions by application, as first deployed: frozen (PART-9).
    pub num_partitions: BTreeMap<Name, u32>,
    /// State of this part.
    pub state: DeploymentState,
    /// Its partitions.
    pub counts: Counts,
    /// Status for people.
    pub status: Status,
}
