//! What an agent must not forget: nobody can rebuild it for a host that has no link.
//!
//! It holds, per job, the order in force, the newest order ever accepted (the fence, kept after the
//! job is gone), what was last started and whether it ran, what was tried and failed, and the
//! reports control has not confirmed. All of it is a fold over [`Record`]s: this file is that fold,
//! pure; `log` writes records to disk and reads them back. Records are synced before anybody acts
//! on them: an order before it is carried out, a start before the driver is called.
//!
//! Orders are fenced twice. A set of orders older than the newest one heard is refused as a whole,
//! so that a control node that lags cannot make a job disappear; and an order below the newest
//! accepted for its job is refused by itself.

mod admit;
mod apply;
pub mod log;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use model::{Assignment, JobError, JobKey, Order, Report, Revision, Scheduled, Uid, Workload};
use serde::{Deserialize, Serialize};

pub use admit::{Admission, Orders, Refused};

/// How much is kept at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// Fences of jobs that are gone; the oldest go first. A set of orders that names such a job
    /// again is then fenced by its revision alone.
    pub tombstones_max: usize,
    /// Unconfirmed reports. Past it, reports that a later one of the same job replaces are left
    /// out first, then the oldest.
    pub unsent_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { tombstones_max: 16_384, unsent_max: 4_096 }
    }
}

/// The newest order accepted for a job. Ordered: a later one is greater.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Fence {
    /// Its assignment.
    pub assignment: Assignment,
    /// Its revision.
    pub order: Revision,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "assignment {} revision {}", self.assignment, self.order)
    }
}

/// An order in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The assignment to act under.
    pub assignment: Assignment,
    /// What to do.
    pub scheduled: Scheduled,
    /// Whether the job ran on another host before.
    pub data_elsewhere: bool,
    /// The deployment whose data the job gets, if control said; on disk it is beside the order, in
    /// [`Record::AcceptedOf`].
    #[serde(skip)]
    pub deployment: Option<Uid>,
}

impl Accepted {
    /// What is to be remembered of it.
    pub fn record(self, key: JobKey) -> Record {
        match self.deployment {
            Some(deployment) => Record::AcceptedOf { key, order: self, deployment },
            None => Record::Accepted { key, order: self },
        }
    }

    /// The fence it sets.
    pub fn fence(&self) -> Fence {
        Fence { assignment: self.assignment, order: self.scheduled.revision }
    }
}

impl From<&Order> for Accepted {
    fn from(order: &Order) -> Self {
        Self {
            assignment: order.assignment,
            scheduled: order.scheduled.clone(),
            data_elsewhere: order.data_elsewhere,
            deployment: order.deployment,
        }
    }
}

/// What was last handed to the driver for a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Under which assignment.
    pub assignment: Assignment,
    /// What.
    pub workload: Arc<Workload>,
    /// Number of starts under this assignment, this one included.
    pub starts: u32,
    /// Whether its end was seen and counted.
    pub ended: bool,
    /// Whether its data directory was empty although the job ran on another host before.
    pub data_left_behind: bool,
}

/// What was tried for an order and did not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effort {
    /// `Scheduled::revision` of the order it belongs to: with another order it counts for nothing.
    pub order: Revision,
    /// Failures in a row, of any kind.
    pub attempt: u32,
    /// Those of them in which the program was started, or should have been.
    pub failed_runs: u32,
    /// No new attempt before, on this boot's clock. Not kept across a restart of the agent.
    pub next_at_boot_ms: u64,
    /// The same order will fail again.
    pub permanent: bool,
    /// The previous workload, which had run, is used instead until the order changes.
    pub fell_back: bool,
    /// What the last failure was.
    pub error: JobError,
}

/// Everything remembered of a job that is not gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobMemory {
    /// Newest order accepted.
    pub fence: Fence,
    /// The order in force; `None` once control no longer has one: it is to be stopped and forgotten.
    pub order: Option<Accepted>,
    /// What was started last.
    pub launch: Option<Launch>,
    /// The last workload that ran long enough to be trusted.
    pub good: Option<Arc<Workload>>,
    /// Failures under the order in force.
    pub effort: Option<Effort>,
    /// The last report made.
    pub reported: Option<Report>,
}

/// One thing to remember. Appended only: logs of earlier versions stay readable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// An order was accepted, of which control did not say whose data the job gets.
    Accepted {
        /// The job.
        key: JobKey,
        /// The order.
        order: Accepted,
    },
    /// Control has no order for a job any more.
    Dropped {
        /// The job.
        key: JobKey,
    },
    /// All orders of this revision were taken in (the records before this one).
    Heard {
        /// The revision.
        revision: Revision,
    },
    /// A workload is about to be handed to the driver.
    Launched {
        /// The job.
        key: JobKey,
        /// Under which assignment.
        assignment: Assignment,
        /// What.
        workload: Arc<Workload>,
        /// See [`Launch::data_left_behind`].
        data_left_behind: bool,
    },
    /// The last launch is over and was counted.
    Ended {
        /// The job.
        key: JobKey,
    },
    /// An attempt failed.
    Tried {
        /// The job.
        key: JobKey,
        /// The whole effort so far.
        effort: Effort,
    },
    /// The last launch has run long enough to be trusted as a fallback.
    Ran {
        /// The job.
        key: JobKey,
    },
    /// It has run so long that earlier failures no longer count.
    Forgiven {
        /// The job.
        key: JobKey,
    },
    /// Nothing of a job without an order is left; only its fence is kept.
    Forgotten {
        /// The job.
        key: JobKey,
    },
    /// A report was made.
    Reported {
        /// The report.
        report: Report,
    },
    /// Control confirmed reports.
    Sent {
        /// Number of the last one confirmed; all before it are too.
        through: u64,
    },
    /// A job as it stood when the log was rewritten.
    Job {
        /// The job.
        key: JobKey,
        /// All that is remembered.
        job: Box<JobMemory>,
    },
    /// The fence of a job that is gone, as it stood when the log was rewritten.
    Tombstone {
        /// The job.
        key: JobKey,
        /// Its fence.
        fence: Fence,
    },
    /// An unconfirmed report and its number, as it stood when the log was rewritten.
    Unsent {
        /// Its number.
        number: u64,
        /// The report.
        report: Report,
    },
    /// An order of a known deployment was accepted. Its data is that of no other deployment, even one of
    /// the same name.
    AcceptedOf {
        /// The job.
        key: JobKey,
        /// The order.
        order: Accepted,
        /// The deployment.
        deployment: Uid,
    },
}

impl Record {
    /// The order accepted, if it is about one.
    pub fn accepted(&self) -> Option<(&JobKey, &Accepted)> {
        match self {
            Self::Accepted { key, order } | Self::AcceptedOf { key, order, .. } => {
                Some((key, order))
            }
            _ => None,
        }
    }
}

/// The memory: a fold over records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    jobs: BTreeMap<JobKey, JobMemory>,
    /// Fences of jobs that are gone, each with the number of its grave.
    tombstones: BTreeMap<JobKey, (u64, Fence)>,
    /// The same by number: oldest first.
    graves: BTreeMap<u64, JobKey>,
    heard: Revision,
    unsent: VecDeque<(u64, Report)>,
    reports: u64,
    bounds: Bounds,
}

impl Memory {
    /// An empty memory.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// All jobs that are not gone, in key order.
    pub fn jobs(&self) -> impl Iterator<Item = (&JobKey, &JobMemory)> {
        self.jobs.iter()
    }

    /// What is remembered of a job that is not gone.
    pub fn job(&self, key: &JobKey) -> Option<&JobMemory> {
        self.jobs.get(key)
    }

    /// The newest order accepted for a job, gone or not.
    pub fn fence(&self, key: &JobKey) -> Option<Fence> {
        let buried = || self.tombstones.get(key).map(|(_, fence)| *fence);
        self.jobs.get(key).map(|job| job.fence).or_else(buried)
    }

    /// The revision of the newest set of orders taken in; a new session asks for what came after.
    pub fn heard(&self) -> Revision {
        self.heard
    }

    /// Reports control has not confirmed, oldest first, each with its number.
    pub fn unsent(&self) -> impl Iterator<Item = (u64, &Report)> {
        self.unsent.iter().map(|(number, report)| (*number, report))
    }

    /// Number of the newest report made; 0 before the first.
    pub fn newest_report(&self) -> u64 {
        self.reports
    }

    /// Forgets delays counted on a clock that may have started again: called once when the agent
    /// starts, after the log was replayed.
    pub fn wake(&mut self) {
        for job in self.jobs.values_mut() {
            if let Some(effort) = &mut job.effort {
                effort.next_at_boot_ms = 0;
            }
        }
    }
}
