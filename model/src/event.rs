//! Events: what happened. `decide` says them, `evolve` makes them so, the journal keeps them.
//!
//! They carry what evolve cannot read off the state; what a job is to run is not repeated per job,
//! it follows from its deployment at that revision. Variants are appended, never reordered.

mod line;

use crate::{
    Application, Assignment, ClusterSpec, Counts, Current, DeploymentSpec, DeploymentState, Digest,
    HostProfile, Indicator, JobKey, Key, Labels, Name, NodeId, Role, Scope, TokenKind, Uid,
    Version,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a user wrote into an envelope.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Written {
    /// Name.
    pub name: Name,
    /// Uid of a new resource; `None` for a change.
    pub created: Option<Uid>,
    /// Whether the spec changed, not only labels and annotations.
    pub respecified: bool,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Why one copy of a job is to stop although the job goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Retirement {
    /// Its host left the cluster, lost trust, is being deleted or cannot run the new workload; or the
    /// new policy does not allow it.
    Unfit,
    /// A newer copy runs: the end of a `replace` duplicate.
    Duplicate,
}

/// Why a copy of a job left the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Removal {
    /// Its host confirmed that nothing of it is left.
    Stopped,
    /// Its host is lost and the job's policy allows another one.
    Evicted,
    /// Its host is out of contact and whatever it belonged to is deleted by force, or its host is
    /// not trusted.
    Dropped,
}

/// How a deployment, or its part on a cluster, came to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Summary {
    /// State.
    pub state: DeploymentState,
    /// Partitions.
    pub counts: Counts,
    /// Indicator of the status.
    pub indicator: Indicator,
    /// Text of the status.
    pub text: String,
    /// Whether what failed is tried again without a person.
    pub retryable: bool,
    /// Attempts that failed, of the job that was tried most often; 0 if none did.
    pub attempt: u32,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "fields of events are named as those of the commands they answer")]
pub enum Event {
    /// A tenant was created or changed.
    TenantApplied { written: Written, display_name: String },
    /// A tenant is gone.
    TenantRemoved { tenant: Name },
    /// A host was registered or changed.
    HostApplied { tenant: Name, written: Written, site: Option<Name>, zone: Option<Name> },
    /// A host was cordoned, or is not any more.
    HostCordoned { tenant: Name, host: Name, cordoned: bool },
    /// An operator declared a host lost, or took it back.
    HostDeclaredLost { tenant: Name, host: Name, lost: bool },
    /// A host lost its trust and left its cluster.
    HostDistrusted { tenant: Name, host: Name, reason: String },
    /// A session was opened; the profile is there if it changed.
    HostConnected {
        tenant: Name,
        host: Name,
        node: NodeId,
        session: u64,
        profile: Option<Box<HostProfile>>,
    },
    /// Contact was lost.
    HostLost { tenant: Name, host: Name },
    /// The facts of a host changed.
    HostReported { tenant: Name, host: Name, profile: Box<HostProfile> },
    /// A lost host stayed away for the grace of `replace` jobs.
    HostGraceEnded { tenant: Name, host: Name },
    /// A host is gone; with a tombstone if its agent could not be asked.
    HostRemoved { tenant: Name, host: Name, tombstone: Option<Assignment> },
    /// A cluster was created or changed.
    ClusterApplied { tenant: Name, written: Written, spec: ClusterSpec },
    /// A cluster is gone.
    ClusterRemoved { tenant: Name, cluster: Name },
    /// An image is held by a majority.
    ImageRegistered {
        tenant: Name,
        uid: Uid,
        digest: Digest,
        size_bytes: u64,
        application: Box<Application>,
    },
    /// An image is gone.
    ImageRemoved { tenant: Name, digest: Digest },
    /// A package version was stored.
    PackageStored {
        tenant: Name,
        written: Written,
        version: Version,
        applications: Vec<Application>,
    },
    /// A package version is gone.
    PackageRemoved { tenant: Name, package: Name, version: Version },
    /// A deployment was created or changed.
    DeploymentApplied { tenant: Name, written: Written, spec: Box<DeploymentSpec> },
    /// A deployment had no target for the grace.
    DeploymentGraceEnded { tenant: Name, deployment: Name },
    /// A deployment's state, counts or text changed.
    DeploymentSummarised { tenant: Name, deployment: Name, summary: Summary },
    /// A deployment has no target any more, or has one again.
    DeploymentTargetless { tenant: Name, deployment: Name, targetless: bool },
    /// A deployment is gone.
    DeploymentRemoved { tenant: Name, deployment: Name },
    /// A cluster became a target of a deployment, stopped being one, or got more applications.
    PartTargeted {
        tenant: Name,
        deployment: Name,
        cluster: Name,
        targeted: bool,
        num_partitions: BTreeMap<Name, u32>,
    },
    /// The state, counts or text of a deployment's part on a cluster changed.
    PartSummarised { tenant: Name, deployment: Name, cluster: Name, summary: Summary },
    /// A cluster is no target and has no job of the deployment left.
    PartRemoved { tenant: Name, deployment: Name, cluster: Name },
    /// Deletion was asked for.
    DeletionRequested { key: Key, force: bool },
    /// What a deletion waits for changed.
    DeletionWaits { key: Key, waiting_on: Vec<String> },
    /// A job was created, to run what its deployment asks.
    JobCreated { key: JobKey, uid: Uid },
    /// A job is to run what its deployment asks now; its copies keep their hosts. A copy that was to
    /// stop may be told to run again.
    JobUpdated { key: JobKey, revived: Option<Assignment> },
    /// A job is not to run any more.
    JobRetired { key: JobKey },
    /// One copy of a job is to stop.
    PlacementRetired { key: JobKey, assignment: Assignment, why: Retirement },
    /// One copy of a job is gone.
    PlacementRemoved { key: JobKey, assignment: Assignment, why: Removal },
    /// A job is gone.
    JobRemoved { key: JobKey },
    /// A job got a host.
    JobAssigned { key: JobKey, host: Name },
    /// A job cannot be placed.
    JobExplained { key: JobKey, text: String },
    /// A host said how a copy is.
    JobReported { key: JobKey, assignment: Assignment, current: Box<Current> },
    /// A copy ran through its anti-flap time.
    JobSettled { key: JobKey, assignment: Assignment },
    /// A job did not run as asked within its deadline.
    JobStalled { key: JobKey },
    /// An operator got a role.
    RoleBound { operator: Name, scope: Scope, role: Role, created: Option<Uid> },
    /// An operator lost a role.
    RoleUnbound { operator: Name, scope: Scope },
    /// A join token was made.
    TokenCreated {
        id: Name,
        uid: Uid,
        kind: TokenKind,
        secret_hash: String,
        expires_at: crate::Timestamp,
        uses: u32,
    },
    /// A join token was used once.
    TokenUsed { id: Name },
    /// A join token is gone: revoked, or cleared away after it expired.
    TokenRevoked { id: Name },
    /// A control node joined or moved.
    NodeApplied {
        id: NodeId,
        created: Option<Uid>,
        peer_addr: String,
        client_addr: String,
        rules_max: u32,
    },
    /// A control node was lost or is back.
    NodeMarked { id: NodeId, alive: bool },
    /// A control node left for good.
    NodeRemoved { id: NodeId },
    /// The rules level rose.
    RulesRaised { level: u32 },
    /// From now on the agent with this key speaks for a host, and no other.
    HostEnrolled { tenant: Name, host: Name, agent_key: Digest },
    /// What failed or waits of a job is to be tried at once, as if for the first time.
    JobRetried { key: JobKey },
}
