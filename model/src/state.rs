//! The state: every table, and what a reader may ask of it.
//!
//! Only `evolve` writes. The [`Index`] is derived from rows and rebuilt on load; it is neither stored
//! nor hashed.

use crate::{
    Assignment, Cluster, ControlNode, Deployment, DeploymentCluster, Digest, Host, Image, Job,
    JobKey, Name, NodeId, Outcome, Package, RemovedNode, RequestId, Revision, RoleBinding, Scope,
    Table, Tenant, Timestamp, Token, Version,
    index::{Dirty, Index},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Scalars of the state that belong to no row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Globals {
    /// Revision of the last command.
    pub revision: Revision,
    /// Time of the last command.
    pub time: Timestamp,
    /// Rules level in force.
    pub rules: u32,
    /// Raft index of the last entry applied; kept here so that it is stored with the state.
    pub applied_index: u64,
    /// Request ids made before this moment are refused: answers older than that were forgotten.
    pub requests_from: Timestamp,
}

impl Default for Globals {
    fn default() -> Self {
        Self {
            revision: Revision::default(),
            time: Timestamp::default(),
            rules: 1,
            applied_index: 0,
            requests_from: Timestamp::default(),
        }
    }
}

/// A host that was deleted by force while out of contact: its agent is told to stop everything when
/// it returns.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tombstone {
    /// When.
    pub at: Timestamp,
    /// Every assignment up to this one is void on the host.
    pub assignment: Assignment,
}

/// The whole state. Cloning forks it: a few pointers per table.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Scalars.
    pub globals: Globals,
    /// Tenants.
    pub tenants: Table<Name, Tenant>,
    /// Hosts by (tenant, name).
    pub hosts: Table<(Name, Name), Host>,
    /// Clusters by (tenant, name).
    pub clusters: Table<(Name, Name), Cluster>,
    /// Images by (tenant, digest).
    pub images: Table<(Name, Digest), Image>,
    /// Packages by (tenant, name, version).
    pub packages: Table<(Name, Name, Version), Package>,
    /// Deployments by (tenant, name).
    pub deployments: Table<(Name, Name), Deployment>,
    /// Parts of deployments by (tenant, deployment, cluster).
    pub deployment_clusters: Table<(Name, Name, Name), DeploymentCluster>,
    /// Jobs.
    pub jobs: Table<JobKey, Job>,
    /// Role bindings by (operator, scope).
    pub bindings: Table<(Name, Scope), RoleBinding>,
    /// Join tokens by public id.
    pub tokens: Table<Name, Token>,
    /// Control nodes.
    pub nodes: Table<NodeId, ControlNode>,
    /// Hosts deleted by force.
    pub tombstones: Table<(Name, Name), Tombstone>,
    /// Answers given, by request id, for the idempotency window.
    pub requests: Table<RequestId, Outcome>,
    /// Control nodes that were removed, so that none comes back.
    pub removed_nodes: Table<NodeId, RemovedNode>,
    /// What is derived from the rows.
    pub(crate) index: Index,
    /// What the command under way has to look at before it ends; empty between commands.
    pub(crate) dirty: Dirty,
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Due {
    /// A job.
    Job(JobKey),
    /// A deployment of the tenant, by name.
    Deployment(Name),
    /// A host of the tenant, by name.
    Host(Name),
}

/// Key of any row: what watches, the journal and the stored state are ordered by. Appended only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    /// A tenant.
    Tenant(Name),
    /// A host.
    Host(Name, Name),
    /// A cluster.
    Cluster(Name, Name),
    /// An image.
    Image(Name, Digest),
    /// A package version.
    Package(Name, Name, Version),
    /// A deployment.
    Deployment(Name, Name),
    /// A part of a deployment.
    DeploymentCluster(Name, Name, Name),
    /// A job.
    Job(JobKey),
    /// A role binding.
    Binding(Name, Scope),
    /// A join token.
    Token(Name),
    /// A control node.
    Node(NodeId),
    /// A host deleted by force.
    Tombstone(Name, Name),
    /// A remembered answer.
    Request(RequestId),
    /// A control node that was removed.
    RemovedNode(NodeId),
}

/// Any row. Appended only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Row {
    /// A tenant.
    Tenant(Arc<Tenant>),
    /// A host.
    Host(Arc<Host>),
    /// A cluster.
    Cluster(Arc<Cluster>),
    /// An image.
    Image(Arc<Image>),
    /// A package version.
    Package(Arc<Package>),
    /// A deployment.
    Deployment(Arc<Deployment>),
    /// A part of a deployment.
    DeploymentCluster(Arc<DeploymentCluster>),
    /// A job.
    Job(Arc<Job>),
    /// A role binding.
    Binding(Arc<RoleBinding>),
    /// A join token.
    Token(Arc<Token>),
    /// A control node.
    Node(Arc<ControlNode>),
    /// A host deleted by force.
    Tombstone(Arc<Tombstone>),
    /// A remembered answer.
    Request(Arc<Outcome>),
    /// A control node that was removed.
    RemovedNode(Arc<RemovedNode>),
}

/// One row as a command left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which row.
    pub key: Key,
    /// What it was; `None` if it is new.
    pub before: Option<Row>,
    /// What it is; `None` if it is gone.
    pub after: Option<Row>,
}
