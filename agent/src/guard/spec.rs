//! What a guard is told to run: the job's specification as it lies in `spec.json`.
//!
//! The agent writes the file once, atomically, before it starts a guard; the guard only reads it.
//! It is also what `recover` gives back, so a restarted agent learns from it which order a guard
//! it finds alive is carrying out. Unknown fields are ignored and new ones get defaults, because
//! an agent may be newer or older than the guards it finds.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The name of one job run on this host and of its directory: `[a-z0-9._@-]`, 1 to 200 bytes, not
/// starting with a dot. The agent chooses it; one name never has two living guards.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(String);

/// A text that cannot be the name of a job directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("job name {name:?} is not 1 to 200 of [a-z0-9._@-] or starts with a dot")]
pub struct InvalidJobId {
    /// The refused text.
    pub name: String,
}

impl JobId {
    /// Checks a name. Errors: a name that is no safe single path component.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidJobId> {
        let name = name.into();
        let allowed = |b: u8| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'@' | b'-')
        };
        if name.is_empty()
            || name.len() > 200
            || name.starts_with('.')
            || !name.bytes().all(allowed)
        {
            return Err(InvalidJobId { name });
        }
        Ok(Self(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for JobId {
    type Error = InvalidJobId;
    fn try_from(name: String) -> Result<Self, InvalidJobId> {
        Self::new(name)
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which kind of driver runs a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriverKind {
    /// Native executables as processes of their own.
    Exec,
    /// WASI preview 1 command modules inside the guard process.
    Wasm,
}

impl DriverKind {
    /// The name used in capability reports and application specifications.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Wasm => "wasm",
        }
    }
}

/// What becomes of a job when its host loses the control plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// It keeps running and is not replaced until an operator declares the host lost.
    #[default]
    KeepRunning,
    /// It is dead when the lease ends, so that it may be moved: exactly one copy.
    Stop,
    /// It keeps running and is replaced elsewhere: availability first.
    Replace,
}

/// One module of an application image: everything a partition needs runs under one guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleSpec {
    /// The module's folder name; it prefixes messages about the module.
    pub name: String,
    /// The payload on this host: an executable, or a `.wasm` file.
    pub path: PathBuf,
    /// The payload as machine code, filled in by `prepare` for wasm modules.
    #[serde(default)]
    pub compiled: Option<PathBuf>,
    /// A read-only folder shipped with the module; a wasm module sees it as `/static`, an
    /// executable gets its path in `MUSTER_STATIC_DIR`.
    #[serde(default)]
    pub static_dir: Option<PathBuf>,
    /// Arguments after the program's own name.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment, besides the `MUSTER_*` variables, which win.
    #[serde(default)]
    pub env: Vec<(String, String)>,
}

/// What a job may use at most; `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory of all its modules together.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Thousandths of one processor.
    #[serde(default)]
    pub cpu_millis: Option<u32>,
    /// Processes and threads (exec only).
    #[serde(default)]
    pub pids_max: Option<u32>,
}

/// How much log a job keeps on the host, for each of stdout and stderr.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// Largest size of one file.
    pub file_bytes_max: u64,
    /// Files kept; the oldest is deleted first. At least 1.
    pub files_max: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { file_bytes_max: 4 << 20, files_max: 4 }
    }
}

/// Everything a guard must know about its job; the contents of `spec.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The tenant that owns the job.
    pub tenant: String,
    /// The deployment it belongs to.
    pub deployment: String,
    /// The application it runs.
    pub app: String,
    /// The slot as text (`partition 3`, `host edge-1`, `run 7`), for people.
    pub slot: String,
    /// The partition, when the slot is one.
    #[serde(default)]
    pub partition: Option<u32>,
    /// How many partitions the application has.
    #[serde(default)]
    pub num_partitions: u32,
    /// The fence: the revision at which the placement got this host.
    pub assignment: u64,
    /// Who runs it.
    pub driver: DriverKind,
    /// What runs; never empty.
    pub modules: Vec<ModuleSpec>,
    /// The partition's own directory; it survives updates and is created by `prepare`. Where its name ends
    /// in `@` and an owner, it takes over what lies beside it without one.
    pub data_dir: PathBuf,
    /// Bounds on what it uses.
    #[serde(default)]
    pub limits: Limits,
    /// What becomes of it without the control plane.
    #[serde(default)]
    pub on_disconnect: OnDisconnect,
    /// How long it may take to end by itself after it was asked to.
    pub stop_grace_ms: u64,
    /// Time reserved between the end of the grace and the lease's deadline for the kill.
    #[serde(default = "kill_margin_ms")]
    pub kill_margin_ms: u64,
    /// Bounds on its log files.
    #[serde(default)]
    pub logs: LogLimits,
    /// The host's lease file, filled in by `prepare`; read for `stop` jobs only.
    #[serde(default)]
    pub lease: PathBuf,
    /// Where its control group is made, below each controller's root; filled in by `prepare`.
    #[serde(default)]
    pub cgroup: String,
}

fn kill_margin_ms() -> u64 {
    500
}

impl JobSpec {
    /// The `MUSTER_*` environment every module gets. `data_dir` is the path the module sees.
    pub fn environment(&self, data_dir: &str) -> Vec<(String, String)> {
        let mut env = vec![
            ("MUSTER_TENANT".to_owned(), self.tenant.clone()),
            ("MUSTER_DEPLOYMENT".to_owned(), self.deployment.clone()),
            ("MUSTER_APP".to_owned(), self.app.clone()),
            ("MUSTER_NUM_PARTITIONS".to_owned(), self.num_partitions.to_string()),
            ("MUSTER_DATA_DIR".to_owned(), data_dir.to_owned()),
        ];
        if let Some(partition) = self.partition {
            env.push(("MUSTER_PARTITION".to_owned(), partition.to_string()));
        }
        env
    }
}
