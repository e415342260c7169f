//! What a guard says about its job: the contents of `state.json` and of a `status` answer.
//!
//! A guard writes the file aside, syncs and renames it, so a reader finds a whole state or none.
//! The state belongs to one boot of the host: after a reboot a `running` state means the guard is
//! gone, which `boot_id` shows.

use serde::{Deserialize, Serialize};

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its files are in place; no guard has been started.
    Prepared,
    /// The guard is bringing the modules up.
    Starting,
    /// Every module was started and none has failed.
    Running,
    /// It was asked to end, or one of its modules failed, and the rest is being brought down.
    Stopping,
    /// Nothing of it is left.
    Exited,
}

/// Why a job is not running any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExitReason {
    /// Every module ended by itself with code 0.
    Completed,
    /// A module ended by itself with another code, by a signal or by a trap.
    Crashed,
    /// It was over its memory limit.
    Oom,
    /// It ended because it was told to.
    Stopped,
    /// A `stop` job whose lease ended.
    LeaseExpired,
    /// A module could not be started.
    StartFailed,
    /// The guard died without a word (killed, or the host rebooted), and the job with it.
    GuardLost,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobExit {
    /// Why.
    pub reason: ExitReason,
    /// The exit code of the module that decided it, when there was one.
    pub code: Option<i32>,
    /// The signal that ended that module, when one did.
    pub signal: Option<i32>,
    /// The module that decided it.
    pub module: Option<String>,
    /// It did not end within its grace and had to be killed.
    pub killed: bool,
    /// One sentence for a person.
    pub message: String,
}

impl JobExit {
    /// An exit of which only the reason is known.
    pub fn because(reason: ExitReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            code: None,
            signal: None,
            module: None,
            killed: false,
            message: message.into(),
        }
    }
}

/// How well a job is separated from the rest of the host, weakest promise first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Containment {
    /// Process groups only: a descendant may outlive the guard if that is killed.
    #[default]
    ProcessGroup,
    /// A PID namespace that dies with the guard: nothing outlives it.
    PidNamespace,
    /// No process besides the guard; the code runs in a WebAssembly sandbox.
    Sandbox,
}

/// What isolation a job or a driver really gives; never more than that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// What holds the job's processes together.
    pub containment: Containment,
    /// The memory limit is enforced.
    pub memory_limited: bool,
    /// The processor limit is enforced.
    pub cpu_limited: bool,
    /// The limit of processes is enforced.
    pub pids_limited: bool,
    /// One sentence for each promise that is not kept, and why.
    pub shortfalls: Vec<String>,
}

/// What a guard, or what is left of it, says about its job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobState {
    /// How far it is.
    pub phase: Phase,
    /// The guard process, 0 before it was started.
    pub guard_pid: u32,
    /// The job's own processes as the host sees them; empty for wasm.
    pub pids: Vec<u32>,
    /// When the guard started, CLOCK_BOOTTIME.
    pub started_at_boot_ms: u64,
    /// The boot of the host this state belongs to.
    pub boot_id: String,
    /// How often a guard was started in this directory before.
    pub restarts: u32,
    /// The isolation the job really has.
    pub isolation: Isolation,
    /// How it ended; present exactly when the phase is exited.
    pub exit: Option<JobExit>,
}

impl JobState {
    /// The state of a job that no guard has touched yet.
    pub fn prepared() -> Self {
        Self {
            phase: Phase::Prepared,
            guard_pid: 0,
            pids: Vec::new(),
            started_at_boot_ms: 0,
            boot_id: String::new(),
            restarts: 0,
            isolation: Isolation::default(),
            exit: None,
        }
    }

    /// The same job after its guard died without a word.
    pub fn guard_lost(mut self, message: impl Into<String>) -> Self {
        self.phase = Phase::Exited;
        self.pids.clear();
        self.exit = Some(JobExit::because(ExitReason::GuardLost, message));
        self
    }
}
