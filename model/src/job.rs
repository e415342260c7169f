//! Jobs: the unit that runs on one host, with what is asked, where it is placed and what is so.

use crate::{
    Assignment, Digest, DriverKind, Name, OnDisconnect, Resources, Revision, Timestamp, Uid, Value,
    Version,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Which copy of an application a job is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// Partition n of num_partitions, from 0.
    Partition(u32),
    /// The copy of a host (one per host).
    Host(Name),
    /// Run n of something that ends.
    Run(u64),
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(n) => write!(f, "{n}"),
            Self::Host(host) => write!(f, "host-{host}"),
            Self::Run(n) => write!(f, "run-{n}"),
        }
    }
}

/// Identity of a job. Text form `deployment/cluster/application/slot` within its tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobKey {
    /// Tenant.
    pub tenant: Name,
    /// Deployment.
    pub deployment: Name,
    /// Cluster.
    pub cluster: Name,
    /// Application.
    pub application: Name,
    /// Copy.
    pub slot: Slot,
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.deployment, self.cluster, self.application, self.slot)
    }
}

/// What is to run: shared by all partitions of one application, deployment and spec.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Workload {
    /// Revision of the deployment spec it comes from.
    pub spec_revision: Revision,
    /// Version of the application.
    pub version: Version,
    /// Runtime.
    pub driver: DriverKind,
    /// Number of partitions.
    pub num_partitions: u32,
    /// The image, by digest.
    pub image: Digest,
    /// What each copy is given, at most.
    pub limits: Resources,
    /// Policy for lost contact.
    pub on_disconnect: OnDisconnect,
    /// Time to stop gracefully, in ms.
    pub stop_grace_ms: u64,
    /// Environment.
    pub env: BTreeMap<String, Value>,
    /// Zones it may run in; empty means any.
    pub zones: Vec<Name>,
}

/// A job: what the deployment asks of this copy, and where copies of it are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Job {
    /// Identity across deletion and re-creation.
    pub uid: Uid,
    /// Revision of the last write.
    pub revision: Revision,
    /// When it was created.
    pub created_at: Timestamp,
    /// Whether it is to run. An inactive job goes when its last placement is gone.
    pub active: bool,
    /// What is to run.
    pub workload: Arc<Workload>,
    /// Where. Under `stop` and `keep_running` at most one is active.
    pub placements: Vec<Placement>,
    /// Last trouble that is not of one placement: unschedulable, retry. Boxed: quiet jobs have none.
    pub trouble: Option<Box<Trouble>>,
    /// When time alone changes this job next: the end of the anti-flap time, of a grace, of a
    /// retry's delay or of the progress deadline. Its owner proposes `Settle` then.
    pub due_at: Option<Timestamp>,
    /// When the work asked for last started; for the progress deadline.
    pub progress_since: Timestamp,
    /// The host that held the job's data when it last lost a placement. Data does not follow a move.
    pub data_on: Option<Name>,
}

/// One copy of a job on one host: scheduled (what the host is told) and current (what it says).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Placement {
    /// The fence: the revision at which it got its host.
    pub assignment: Assignment,
    /// The host.
    pub host: Name,
    /// What the host is told.
    pub scheduled: Scheduled,
    /// What the host said last; `None` before its first report.
    pub current: Option<Current>,
}

/// The half that control writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scheduled {
    /// Run it, or stop it.
    pub active: bool,
    /// What to run: may be newer than `current` says.
    pub workload: Arc<Workload>,
    /// Revision of the last change to this half: the agent takes the newest, and echoes it.
    pub revision: Revision,
}

/// Phase of a copy on its host.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Phase {
    /// The order was received.
    #[default]
    Accepted,
    /// The image is being fetched.
    Downloading,
    /// The driver is starting it.
    Starting,
    /// It runs.
    Running,
    /// It is being stopped.
    Stopping,
    /// It does not run any more and nothing of it is left.
    Stopped,
    /// It failed; will be tried again on this host.
    Failing,
    /// It failed for good on this host.
    Failed,
}

impl Phase {
    /// The phase's word in every interface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "ACCEPTED",
            Self::Downloading => "DOWNLOADING",
            Self::Starting => "STARTING",
            Self::Running => "RUNNING",
            Self::Stopping => "STOPPING",
            Self::Stopped => "STOPPED",
            Self::Failing => "FAILING",
            Self::Failed => "FAILED",
        }
    }
}

/// The half that the host's agent writes, by reports.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Current {
    /// Phase.
    pub phase: Phase,
    /// Revision of the spec that runs.
    pub spec_revision: Revision,
    /// Image that runs.
    pub image: Digest,
    /// `Scheduled::revision` the report answers.
    pub order: Revision,
    /// Which report it was: one that comes late, after a newer one, is refused.
    pub number: ReportNumber,
    /// Since when it is in this phase, on control's clock.
    pub since: Timestamp,
    /// Number of starts on this host under this assignment, less one.
    pub restarts: u32,
    /// Whether the anti-flap time has passed in `Running` (APP-27).
    pub settled: bool,
    /// Whether its data directory was empty at the start although the job ran before elsewhere:
    /// data does not follow a move.
    pub data_left_behind: bool,
    /// Last error; boxed: healthy copies have none.
    pub error: Option<Box<JobError>>,
}

/// Which report of a host it is: of two, the greater is the later one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ReportNumber {
    /// The session it was made in, as `Contact::session` counts them.
    pub session: u32,
    /// Which of the session's, from 1.
    pub item: u32,
}

impl fmt::Display for ReportNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.session, self.item)
    }
}

/// Why a copy is not as asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobError {
    /// Reason in one word, such as `OOM`; `docs/job-reasons.md` explains each.
    pub reason: String,
    /// One line for a person, at most 1,024 bytes.
    pub text: String,
    /// Whether the agent tries again by itself.
    pub retryable: bool,
    /// Number of the attempt that failed, from 1.
    pub attempt: u32,
}

/// Trouble of a job as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Trouble {
    /// Reason: `UNSCHEDULABLE` or `PROGRESS_DEADLINE`.
    pub reason: String,
    /// One line for a person; for `UNSCHEDULABLE`, how many hosts fail which rule.
    pub text: String,
    /// Since when.
    pub since: Timestamp,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// When it is tried again.
    pub next_retry_at: Option<Timestamp>,
}
