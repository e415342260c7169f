//! Clusters: sets of hosts of one tenant, the targets of deployments.

use crate::{Meta, Name, Status};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What a cluster asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// `test`, `staging`, `production` or any other word: policies refer to it. It is also matched
    /// by selectors as the label `environment`.
    pub environment: Option<Name>,
    /// Hosts in it. A host is in at most one cluster.
    pub members: BTreeSet<Name>,
}

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cluster {
    /// The envelope; its labels are what selectors match.
    pub meta: Meta,
    /// What is asked.
    pub spec: ClusterSpec,
    /// How it is doing.
    pub status: Status,
}
