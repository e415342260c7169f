//! Commands: everything that can be asked of the ledger, one variant per intent.
//!
//! A command is a wish. `decide` refuses it or says what will happen; nothing else changes state.
//! Variants are appended, never reordered: the log stores their position.

use crate::{
    Application, Assignment, Caller, ClusterSpec, DeploymentSpec, Digest, DriverKind, Facts,
    JobError, JobKey, Labels, Name, NodeId, Phase, ReportNumber, Resources, Revision, Role, Scope,
    Timestamp, TokenKind, Version,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Everything outside the state that a decision may depend on. All of it is in the log entry, or
/// follows from it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Context {
    /// The revision this command will have.
    pub revision: Revision,
    /// The leader's stamp, never earlier than that of the command before.
    pub time: Timestamp,
    /// The rules level to decide by.
    pub rules: u32,
    /// Who asks.
    pub caller: Caller,
    /// For idempotency; `None` for muster's own proposals, which are safe to repeat.
    pub request_id: Option<RequestId>,
}

/// Names a request across retries. It carries its time, so that the window can be bounded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// When the client made it, by the client's clock.
    pub at: Timestamp,
    /// 128 random bits.
    pub unique: u128,
}

/// Name, labels and annotations a user gives, and the guard against lost updates.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Draft {
    /// Name.
    pub name: Name,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Refuse unless the resource's revision is this one; 0 = refuse unless it does not exist yet.
    pub if_revision: Option<Revision>,
}

/// Which placement of a job gets which host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Assign {
    /// The job.
    pub key: JobKey,
    /// The host.
    pub host: Name,
    /// `Job::revision` the planner saw: refused as stale when the job has moved on.
    pub seen: Revision,
}

/// What an agent says of one placement.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Report {
    /// The job.
    pub key: JobKey,
    /// The assignment it acts under.
    pub assignment: Assignment,
    /// `Scheduled::revision` it answers.
    pub order: Revision,
    /// Phase.
    pub phase: Phase,
    /// Revision of the spec that runs.
    pub spec_revision: Revision,
    /// Image that runs.
    pub image: Digest,
    /// Number of starts under this assignment, less one.
    pub restarts: u32,
    /// Whether the job's data stayed on another host.
    pub data_left_behind: bool,
    /// Last error.
    pub error: Option<JobError>,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command {
    /// All of these or none, in order, at one revision each; answers come in the same order.
    Batch(Vec<Command>),
    /// Create or update a tenant.
    ApplyTenant {
        /// Envelope.
        draft: Draft,
        /// Text for people.
        display_name: String,
    },
    /// Ask for a tenant's deletion; everything in it goes first.
    DeleteTenant {
        /// The tenant.
        tenant: Name,
    },
    /// Register a host, or change what a user says of it.
    ApplyHost {
        /// Tenant.
        tenant: Name,
        /// Envelope.
        draft: Draft,
        /// Site.
        site: Option<Name>,
        /// Zone.
        zone: Option<Name>,
    },
    /// No new placements on a host, or allow them again.
    CordonHost {
        /// Tenant.
        tenant: Name,
        /// Host.
        host: Name,
        /// Whether it is cordoned from now on.
        cordoned: bool,
    },
    /// An operator says the host will not return (or takes it back).
    DeclareHostLost {
        /// Tenant.
        tenant: Name,
        /// Host.
        host: Name,
        /// Whether it is declared lost from now on.
        lost: bool,
    },
    /// Ask for a host's deletion.
    DeleteHost {
        /// Tenant.
        tenant: Name,
        /// Host.
        host: Name,
        /// Do not wait for an agent out of contact; it will be told to stop all when it returns.
        force: bool,
    },
    /// An agent opened a session with a control node (proposed by that node).
    ConnectHost {
        /// Tenant.
        tenant: Name,
        /// Host.
        host: Name,
        /// The control node holding the session.
        node: NodeId,
        /// SHA-256 of the public key the agent proved to have; refused when the host has another.
        agent_key: Digest,
        /// Facts, capacity and drivers as the agent states them.
        profile: Box<HostProfile>,
    },
    /// The lease of a session ran out (proposed by the node that held it, or by the leader when
    /// that node is lost).
    LoseHost {
        /// Tenant.
        tenant: Name,
        /// Host.
        host: Name,
        /// The session that ended; refused as stale when a newer one is in force.
        session: u64,
    },
    /// Facts of a connected host changed.
    ReportHost {
        /// Tenant.
        tenant: Name,
        /// Host.
        host: Name,
        /// The new facts.
        profile: Box<HostProfile>,
    },
    /// Create or update a cluster.
    ApplyCluster {
        /// Tenant.
        tenant: Name,
        /// Envelope.
        draft: Draft,
        /// What is asked.
        spec: ClusterSpec,
    },
    /// Ask for a cluster's deletion. Its hosts stay.
    DeleteCluster {
        /// Tenant.
        tenant: Name,
        /// Cluster.
        cluster: Name,
        /// Do not wait for hosts out of contact.
        force: bool,
    },
    /// A majority of control nodes holds an image.
    RegisterImage {
        /// Tenant.
        tenant: Name,
        /// Identity of the bytes.
        digest: Digest,
        /// Number of bytes.
        size_bytes: u64,
        /// Defaults from its `application.json`; its `main` artifact is `digest`.
        application: Box<Application>,
    },
    /// Delete an image nobody uses.
    DeleteImage {
        /// Tenant.
        tenant: Name,
        /// The image.
        digest: Digest,
    },
    /// Store a package version. Same content again is `unchanged`; other content is refused.
    ApplyPackage {
        /// Tenant.
        tenant: Name,
        /// Envelope.
        draft: Draft,
        /// Version.
        version: Version,
        /// Applications.
        applications: Vec<Application>,
    },
    /// Delete a package version nobody uses.
    DeletePackage {
        /// Tenant.
        tenant: Name,
        /// Package.
        package: Name,
        /// Version.
        version: Version,
    },
    /// Create or update a deployment.
    ApplyDeployment {
        /// Tenant.
        tenant: Name,
        /// Envelope.
        draft: Draft,
        /// What is asked.
        spec: Box<DeploymentSpec>,
    },
    /// Ask for a deployment's deletion; it goes when every host confirmed.
    DeleteDeployment {
        /// Tenant.
        tenant: Name,
        /// Deployment.
        deployment: Name,
        /// Do not wait for hosts out of contact.
        force: bool,
    },
    /// Bring these jobs in line with what their deployments ask: create, update, retire or remove.
    /// The content is derived by `decide`; whoever proposes names only keys. At most 4,096.
    SyncJobs {
        /// The jobs.
        keys: Vec<JobKey>,
    },
    /// Give jobs a host. Answered per item. At most 4,096.
    AssignJobs {
        /// Items.
        items: Vec<Assign>,
    },
    /// Note why jobs have no host. Answered per item. At most 4,096.
    ExplainJobs {
        /// Job, `Job::revision` seen, and the text.
        items: Vec<(JobKey, Revision, String)>,
    },
    /// Take placements from hosts that are lost, where the job's policy allows. At most 4,096.
    EvictJobs {
        /// The jobs and the assignments to end.
        items: Vec<(JobKey, Assignment)>,
    },
    /// What an agent says of its placements. Answered per item. At most 4,096.
    ReportJobs {
        /// Tenant.
        tenant: Name,
        /// The host that says it.
        host: Name,
        /// Number of the first item; the others follow. The same report said again has the same
        /// number.
        first: ReportNumber,
        /// Items.
        items: Vec<Report>,
    },
    /// Let time pass: carry out what is due by now. At most 4,096 resources a time.
    Settle {
        /// Tenant to settle.
        tenant: Name,
    },
    /// Give an operator a role.
    BindRole {
        /// The operator.
        operator: Name,
        /// Where.
        scope: Scope,
        /// What.
        role: Role,
    },
    /// Take a role away.
    UnbindRole {
        /// The operator.
        operator: Name,
        /// Where.
        scope: Scope,
    },
    /// Make a join token.
    CreateToken {
        /// Its public id.
        id: Name,
        /// What it is for.
        kind: TokenKind,
        /// Hex SHA-256 of the secret.
        secret_hash: String,
        /// When it stops working.
        expires_at: Timestamp,
        /// How many times it may be used, 1 to 10,000.
        uses: u32,
    },
    /// Use a token once. Refused when it is unknown, spent, expired or of another kind.
    UseToken {
        /// Its public id.
        id: Name,
        /// Hex SHA-256 of the secret shown.
        secret_hash: String,
        /// The host that joins, for agent tokens; registered if unknown. Refused when another
        /// machine holds the name.
        host: Option<Name>,
        /// SHA-256 of the newcomer's public key.
        key: Digest,
    },
    /// Revoke a token.
    RevokeToken {
        /// Its public id.
        id: Name,
    },
    /// A control node joins, or says again where it is and which rules it knows.
    ApplyNode {
        /// Its id.
        id: NodeId,
        /// Peer address.
        peer_addr: String,
        /// Client address.
        client_addr: String,
        /// Rules levels it knows: 1 to this.
        rules_max: u32,
    },
    /// The leader lost contact with a node, or has it again.
    MarkNode {
        /// Its id.
        id: NodeId,
        /// Whether it is in contact.
        alive: bool,
    },
    /// A node left for good.
    RemoveNode {
        /// Its id.
        id: NodeId,
    },
    /// Decide by this level from the next command on. Refused unless every node knows it.
    RaiseRules {
        /// The level.
        level: u32,
    },
    /// Take a host's trust for good (INF-16): it leaves its cluster, its agent is refused, and only
    /// its deletion follows.
    DistrustHost {
        /// Tenant.
        tenant: Name,
        /// Host.
        host: Name,
        /// Why, for people.
        reason: String,
    },
    /// Try what failed or waits at once, and count its attempts from the start (INF-23). At most 4,096
    /// jobs a time.
    RetryDeployment {
        /// Tenant.
        tenant: Name,
        /// Deployment.
        deployment: Name,
        /// Its jobs on this cluster; all if none is named.
        cluster: Option<Name>,
    },
    /// The same for one job.
    RetryJob {
        /// The job.
        key: JobKey,
    },
}

/// What an agent says of its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HostProfile {
    /// Facts.
    pub facts: Facts,
    /// What may be placed on it.
    pub capacity: Resources,
    /// Runtimes offered.
    pub drivers: BTreeSet<DriverKind>,
    /// Whether `stop` jobs can be contained.
    pub fenced: bool,
}
