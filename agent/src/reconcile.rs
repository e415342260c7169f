//! What an agent does next: orders and what is remembered, against what its drivers say.
//!
//! [`reconcile`] is pure: the same [`World`] gives the same [`Round`]. It is called whenever anything
//! changed and at the time it asked for. A round is carried out in order: its records are written,
//! synced and applied to the memory; then its steps are begun, each of them noted as [`Busy`] until
//! it is over. A step that fails is told to [`failed`], whose records are written in the same way. A
//! world whose steps have worked yields an empty round.
//!
//! The rules it keeps:
//! - Never two starts of a job without the end of the first in between.
//! - A `stop` job starts only under a live lease and orders heard in the session that gave it: before
//!   that, control may have moved it elsewhere.
//! - A guard found running under the assignment and program in force is left alone, whoever started it.
//! - An update downloads first, then replaces. One that fails three times, or for good, gives way to
//!   the workload that ran before, and says so until the order changes.
//! - What cannot succeed is not tried again until the order changes; what may, is, with backoff.

mod failure;
mod job;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Assignment, Digest, JobKey, Revision, Uid, Workload};
use serde::{Deserialize, Serialize};

use crate::guard::state::{JobExit, Phase as GuardPhase};
use crate::memory::{Memory, Record};

pub use failure::{Failure, Stage, failed};

/// Everything a round may depend on.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// What is remembered; the orders in force are in it.
    pub memory: &'a Memory,
    /// Whether a full set of orders was taken in during the session in force. Not set while there
    /// is no session, and in a new one until its first full set was taken in.
    pub heard: bool,
    /// Every job the drivers know, up or down.
    pub found: &'a BTreeMap<JobKey, Found>,
    /// Steps begun and not over.
    pub busy: &'a BTreeMap<JobKey, Busy>,
    /// Images that are whole on this host.
    pub images: &'a BTreeSet<Digest>,
    /// Jobs whose data directory holds something.
    pub data: &'a BTreeSet<JobKey>,
    /// The host's lease.
    pub lease: Lease,
    /// `CLOCK_BOOTTIME` in milliseconds.
    pub now_boot_ms: u64,
    /// Times and counts.
    pub tuning: &'a Tuning,
}

/// Times and counts of reconciling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tuning {
    /// How long a program must run before it is trusted as what to fall back to.
    pub settle_ms: u64,
    /// How long it must run before its earlier failures no longer lengthen the backoff.
    pub forgive_ms: u64,
    /// Failed starts of an update after which the previous workload is taken instead.
    pub fallback_after: u32,
    /// Grace given to a job whose own is not known.
    pub stop_grace_ms: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { settle_ms: 10_000, forgive_ms: 60_000, fallback_after: 3, stop_grace_ms: 10_000 }
    }
}

/// What a driver says of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The assignment it was prepared for.
    pub assignment: Assignment,
    /// The spec its program comes from.
    pub spec_revision: Revision,
    /// How far it is.
    pub phase: GuardPhase,
    /// When its guard started, `CLOCK_BOOTTIME`.
    pub started_at_boot_ms: u64,
    /// How it ended, when the phase is exited.
    pub exit: Option<JobExit>,
}

impl Found {
    /// Whether anything of it may still run.
    pub fn is_up(&self) -> bool {
        match self.phase {
            GuardPhase::Starting | GuardPhase::Running | GuardPhase::Stopping => true,
            GuardPhase::Prepared | GuardPhase::Exited => false,
        }
    }
}

/// A step that was begun and is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// An image is being fetched. Other steps of the job may begin meanwhile.
    Fetching(Digest),
    /// It is being started, or replaced.
    Starting,
    /// It is being stopped, killed or forgotten.
    Stopping,
}

/// The lease of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// None since this agent started. One from before may still be running: guards know.
    Never,
    /// Until this moment of `CLOCK_BOOTTIME`, counted from when the renewal was sent.
    Alive {
        /// The moment.
        until_boot_ms: u64,
    },
    /// It ran out.
    Expired,
}

/// Something to begin. Steps of different jobs may run side by side.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Fetch an image, verify it and keep it.
    FetchImage {
        /// For which job.
        key: JobKey,
        /// The image.
        image: Digest,
    },
    /// Prepare and start a job of which nothing runs.
    Start {
        /// The job.
        key: JobKey,
        /// Under which assignment.
        assignment: Assignment,
        /// What.
        workload: Arc<Workload>,
        /// The deployment whose data it gets.
        deployment: Option<Uid>,
    },
    /// Stop what runs, then prepare and start this. The image is there.
    Replace {
        /// The job.
        key: JobKey,
        /// Grace for what runs.
        grace_ms: u64,
        /// Under which assignment the new one starts.
        assignment: Assignment,
        /// What starts.
        workload: Arc<Workload>,
        /// The deployment whose data it gets.
        deployment: Option<Uid>,
    },
    /// Stop a job.
    Stop {
        /// The job.
        key: JobKey,
        /// Grace.
        grace_ms: u64,
    },
    /// End a job at once: its lease is over.
    Kill {
        /// The job.
        key: JobKey,
    },
    /// Have the driver forget a job of which nothing runs; its data stays.
    Forget {
        /// The job.
        key: JobKey,
    },
}

impl Step {
    /// The job it is about.
    pub fn key(&self) -> &JobKey {
        match self {
            Self::FetchImage { key, .. }
            | Self::Start { key, .. }
            | Self::Replace { key, .. }
            | Self::Stop { key, .. }
            | Self::Kill { key }
            | Self::Forget { key } => key,
        }
    }

    /// What the job is busy with while the step runs.
    pub fn busy(&self) -> Busy {
        match self {
            Self::FetchImage { image, .. } => Busy::Fetching(*image),
            Self::Start { .. } | Self::Replace { .. } => Busy::Starting,
            Self::Stop { .. } | Self::Kill { .. } | Self::Forget { .. } => Busy::Stopping,
        }
    }
}

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Round {
    /// To be written, synced and applied before any step begins. Reports are among them: they are
    /// sent from [`Memory::unsent`].
    pub records: Vec<Record>,
    /// To be begun, in this order.
    pub steps: Vec<Step>,
    /// When to reconcile again though nothing happens, on this boot's clock.
    pub wake_at_boot_ms: Option<u64>,
}

impl Round {
    /// Whether there is nothing to write and nothing to begin.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.steps.is_empty()
    }
}

/// What to do now, for every job remembered or found.
pub fn reconcile(world: &World<'_>) -> Round {
    let mut round = Round::default();
    let remembered = world.memory.jobs().map(|(key, _)| key);
    let keys: BTreeSet<&JobKey> = remembered.chain(world.found.keys()).collect();
    for key in keys {
        job::reconcile(world, key, &mut round);
    }
    round
}
