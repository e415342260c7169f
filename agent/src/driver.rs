//! The contract between the agent and whatever runs jobs.
//!
//! Reconciling an order means calling these methods in this order: `prepare` puts everything in
//! place, `start` runs it, `probe` looks, `stop` ends it, `remove` forgets it. Each is idempotent,
//! so a reconciler that lost an answer asks again. A job started through a driver does not need
//! the agent: it goes on when the agent dies, and `recover` finds it again. `GuardedDriver` is the
//! real one (a guard process per job), `FakeDriver` is the simulation's; `conformance` is the
//! suite that both pass, and the precise meaning of each sentence here.

use std::io;
use std::path::Path;

use futures::future::BoxFuture;

pub mod conformance;
pub mod fake;
pub mod guarded;
#[cfg(feature = "driver-wasm")]
pub mod wasm;

pub use crate::guard::spec::{DriverKind, JobId, JobSpec};
pub use crate::guard::state::{Containment, ExitReason, Isolation, JobExit, JobState, Phase};

/// What went wrong in a driver, by what the caller should do about it.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// May succeed later with the same order.
    #[error("{message}")]
    Transient {
        /// The kind of trouble.
        cause: Cause,
        /// What was attempted, with which noun.
        message: String,
        /// The earliest sensible next attempt.
        retry_after_ms: u64,
        /// What the system said.
        #[source]
        source: Option<io::Error>,
    },
    /// The same order will fail again on this host: someone must change it, or the host.
    #[error("{message}")]
    Permanent {
        /// The kind of trouble.
        cause: Cause,
        /// What was attempted, with which noun.
        message: String,
        /// What the system said.
        #[source]
        source: Option<io::Error>,
    },
}

/// The stable kinds of trouble; `code` is what reports and documents carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The job's specification contradicts itself or names what is not there.
    Spec,
    /// This host has no driver of that kind.
    NoDriver,
    /// The host cannot give the isolation this job needs.
    Isolation,
    /// A module could not be started or compiled.
    Program,
    /// There is no lease, or too little is left of it, for a job that must stop without one.
    Lease,
    /// The guard does not answer, or could not be started.
    Guard,
    /// The job still runs, and what was asked needs it to be down.
    Running,
    /// No job of that name is known here.
    Unknown,
    /// A file operation failed.
    Disk,
}

impl Cause {
    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Spec => "SPEC",
            Self::NoDriver => "NO_DRIVER",
            Self::Isolation => "ISOLATION",
            Self::Program => "PROGRAM",
            Self::Lease => "NO_LEASE",
            Self::Guard => "GUARD",
            Self::Running => "STILL_RUNNING",
            Self::Unknown => "UNKNOWN_JOB",
            Self::Disk => "DISK",
        }
    }
}

impl DriverError {
    /// A transient error without a system error behind it.
    pub fn transient(cause: Cause, message: impl Into<String>) -> Self {
        Self::Transient { cause, message: message.into(), retry_after_ms: 1_000, source: None }
    }

    /// A permanent error without a system error behind it.
    pub fn permanent(cause: Cause, message: impl Into<String>) -> Self {
        Self::Permanent { cause, message: message.into(), source: None }
    }

    /// A transient error of the file system.
    pub fn disk(message: impl Into<String>, source: io::Error) -> Self {
        let (cause, message) = (Cause::Disk, message.into());
        Self::Transient { cause, message, retry_after_ms: 1_000, source: Some(source) }
    }

    /// The kind of trouble.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Transient { cause, .. } | Self::Permanent { cause, .. } => *cause,
        }
    }

    /// Whether the same order may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. })
    }
}

/// What one kind of driver can do on this host, as reported to the control plane.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Capability {
    /// Which kind.
    pub kind: DriverKind,
    /// The isolation a job of this kind really gets here.
    pub isolation: Isolation,
    /// Whether `stop` jobs are accepted: only where nothing outlives a killed guard.
    pub stop_jobs: bool,
}

/// Which of a job's two log streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output of all modules.
    Stdout,
    /// Standard error of all modules.
    Stderr,
}

/// A place in a log stream: a file's number and an offset in it. Positions only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// The number of the rotated file.
    pub file: u64,
    /// Bytes from its start.
    pub offset: u64,
}

/// A part of a log stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogChunk {
    /// Where `bytes` begins: later than asked for if the old files are gone.
    pub start: LogPosition,
    /// The bytes; empty when nothing more has been written yet.
    pub bytes: Vec<u8>,
    /// Where to read on.
    pub next: LogPosition,
}

/// A job found on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Its name.
    pub job: JobId,
    /// What it was told to run, and for which assignment.
    pub spec: JobSpec,
    /// What its guard, or what is left of it, says.
    pub state: JobState,
}

/// Runs jobs that outlive the agent. All calls are bounded in time by the driver's own config.
pub trait Driver: Send + Sync + 'static {
    /// What runs here, with the isolation it really gets. Constant for the life of the driver.
    fn capabilities(&self) -> Vec<Capability>;

    /// Milliseconds of CLOCK_BOOTTIME: the clock of leases, which counts suspended time.
    fn boottime_ms(&self) -> u64;

    /// Extends the host's lease: every `stop` job is dead when `boottime_ms` reaches the deadline
    /// unless it was extended again. Count the deadline from when the renewal was sent.
    /// A deadline earlier than the one in force is ignored.
    fn renew(&self, deadline_boot_ms: u64) -> BoxFuture<'_, Result<(), DriverError>>;

    /// Puts everything in place that `start` needs: directories, the specification, compiled code.
    /// Replaces the specification of a job that is down. Errors: `Running` if the job is up under
    /// another specification; `Isolation`, `NoDriver`, `Spec`, `Program` permanent.
    fn prepare<'a>(
        &'a self,
        job: &'a JobId,
        spec: JobSpec,
    ) -> BoxFuture<'a, Result<(), DriverError>>;

    /// Starts a prepared job and waits until all its modules were started (not until they are
    /// healthy). A job already up is left alone and its state returned. A job that is down is
    /// started again. Errors: `Unknown` if not prepared; `Lease` transient for a `stop` job
    /// without enough lease left; `Program` permanent if a module cannot be started.
    fn start<'a>(&'a self, job: &'a JobId) -> BoxFuture<'a, Result<JobState, DriverError>>;

    /// What the job does now, or how it ended. Errors: `Unknown`; `Guard` transient if the guard
    /// lives but does not answer.
    fn probe<'a>(&'a self, job: &'a JobId) -> BoxFuture<'a, Result<JobState, DriverError>>;

    /// Ends a job: asks it to, and kills all of it `grace_ms` later. Returns when nothing of it is
    /// left, with the exit. A job that is down already is a success. Errors: as `probe`.
    fn stop<'a>(
        &'a self,
        job: &'a JobId,
        grace_ms: u64,
    ) -> BoxFuture<'a, Result<JobState, DriverError>>;

    /// Reads at most `bytes_max` bytes (capped by the driver) of a log from a position on.
    fn logs<'a>(
        &'a self,
        job: &'a JobId,
        stream: LogStream,
        from: LogPosition,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<LogChunk, DriverError>>;

    /// Forgets a job that is down: its specification, state and logs, not its data. A job that is
    /// not known is a success. Errors: `Running`.
    fn remove<'a>(&'a self, job: &'a JobId) -> BoxFuture<'a, Result<(), DriverError>>;

    /// Deletes a data directory with all that is in it, for good; no job known to this driver may use it.
    /// One that is not there is a success. Errors: `Spec` permanent for a directory that is not
    /// one of a job's; `Disk`.
    fn remove_data<'a>(&'a self, data_dir: &'a Path) -> BoxFuture<'a, Result<(), DriverError>>;

    /// Every job known on this host, up or down, by name; starts and stops nothing.
    fn recover(&self) -> BoxFuture<'_, Result<Vec<Recovered>, DriverError>>;
}
