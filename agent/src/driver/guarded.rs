//! The real driver: a guard process for each job, found through its directory.
//!
//! Below the agent's root lie `jobs/<job>` (see `guard`), `cache` (compiled modules) and
//! `lease.json` (the one lease of the host, read by all its guards). The driver holds no truth in
//! memory: what it knows of a job it asks the guard, or reads from what the guard left, so it may
//! be dropped and opened again at any time.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::cgroup::Cgroups;
use crate::config::GuardsConfig;
use crate::driver::{
    Capability, Cause, Containment, Driver, DriverError, DriverKind, Isolation, JobId, JobSpec,
    JobState, LogChunk, LogPosition, LogStream, Phase, Recovered,
};
use crate::guard::control::Request;
use crate::guard::files::{self, Lease};
use crate::guard::{GUARD, logs};

mod data;
mod launch;
mod look;

/// Where the guards live and how patient the driver is.
#[derive(Clone, Debug)]
pub struct GuardedConfig {
    /// The agent's own directory.
    pub root: PathBuf,
    /// The program that is a guard when called with `guard --dir`; by default this very program.
    pub program: PathBuf,
    /// The name of the jobs' parent in the control group hierarchies; unique to this root.
    pub cgroup_parent: String,
    /// How long a guard may take to have all modules started.
    pub start_ms_max: u64,
    /// How long a guard may take to answer a question.
    pub answer_ms_max: u64,
    /// How much longer than its grace a stop may take before the guard itself is killed.
    pub stop_extra_ms_max: u64,
    /// How long compiling one module may take.
    pub compile_ms_max: u64,
    /// The most bytes one read of a log gives.
    pub log_bytes_max: usize,
}

impl GuardedConfig {
    /// The usual settings for an agent that lives in `root`.
    pub fn new(root: PathBuf) -> Self {
        let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
        let bounds = GuardsConfig::default();
        Self {
            root,
            program: PathBuf::from("/proc/self/exe"),
            cgroup_parent: format!("muster-{}", hex::encode(&digest[..4])),
            start_ms_max: bounds.start_ms_max,
            answer_ms_max: bounds.answer_ms_max,
            stop_extra_ms_max: bounds.stop_extra_ms_max,
            compile_ms_max: bounds.compile_ms_max,
            log_bytes_max: bounds.log_bytes_max,
        }
    }

    /// The same with other bounds.
    #[must_use]
    pub fn bounded_by(self, bounds: &GuardsConfig) -> Self {
        Self {
            start_ms_max: bounds.start_ms_max,
            answer_ms_max: bounds.answer_ms_max,
            stop_extra_ms_max: bounds.stop_extra_ms_max,
            compile_ms_max: bounds.compile_ms_max,
            log_bytes_max: bounds.log_bytes_max,
            ..self
        }
    }

    fn jobs(&self) -> PathBuf {
        self.root.join("jobs")
    }

    fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    fn lease(&self) -> PathBuf {
        self.root.join("lease.json")
    }
}

/// Runs jobs under guard processes.
pub struct GuardedDriver {
    config: GuardedConfig,
    exec_isolation: Isolation,
    boot_id: String,
    /// Held while the lease file is written.
    lease: Arc<tokio::sync::Mutex<()>>,
    /// Waits for guards that this process started, so that none stays a zombie.
    reapers: Mutex<JoinSet<()>>,
}

/// How often and how soon a lock or an answer that is about to come is looked for again.
const LOOK_MS: u64 = 10;
const LOOKS_MAX: u32 = 200;

impl GuardedDriver {
    /// Opens the driver in the agent's directory and finds out what isolation this host gives.
    pub async fn open(config: GuardedConfig) -> Result<Self, DriverError> {
        for dir in [config.jobs(), config.cache()] {
            blocking("create the driver's directories", move || private_dir(&dir)).await?;
        }
        let exec_isolation = trial(&config).await?;
        Ok(Self {
            exec_isolation,
            boot_id: files::boot_id(),
            lease: Arc::default(),
            reapers: Mutex::default(),
            config,
        })
    }

    fn dir(&self, job: &JobId) -> PathBuf {
        self.config.jobs().join(job.as_str())
    }

    async fn end(&self, job: &JobId, grace_ms: u64) -> Result<JobState, DriverError> {
        let state = self.state(job).await;
        if let Ok(state) = &state
            && matches!(state.phase, Phase::Prepared | Phase::Exited)
        {
            return Ok(state.clone());
        }
        if matches!(&state, Err(error) if error.cause() != Cause::Guard) {
            return state;
        }
        let patience_ms = grace_ms.saturating_add(self.config.stop_extra_ms_max);
        let begun = Instant::now();
        let asked = self.ask(job, Request::Stop { grace_ms }, patience_ms).await;
        if asked.is_err() && begun.elapsed() >= Duration::from_millis(patience_ms) {
            self.kill_guard(job).await?;
        }
        self.unguarded(job).await?;
        self.state(job).await
    }

    /// The last resort against a guard that does not answer. Its lock is held, so it lives, and
    /// the id in its state is its own.
    async fn kill_guard(&self, job: &JobId) -> Result<(), DriverError> {
        let path = self.dir(job).join(files::STATE);
        let state: JobState =
            blocking("read the guard's state", move || files::read_json(&path)).await?;
        tracing::warn!(%job, guard = state.guard_pid, "the guard does not answer and is killed");
        if let Ok(pid) = i32::try_from(state.guard_pid)
            && pid > 1
            && self.is_guarded(job).await?
        {
            // Gone meanwhile is as good.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        Ok(())
    }

    async fn forget(&self, job: &JobId) -> Result<(), DriverError> {
        if self.is_guarded(job).await? {
            return Err(running(job));
        }
        let (dir, parent, name) = (self.dir(job), self.config.cgroup_parent.clone(), job.clone());
        blocking(format!("remove the files of {job}"), move || {
            Cgroups::detect().remove(&parent, name.as_str());
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            }
        })
        .await
    }
}

impl Driver for GuardedDriver {
    fn capabilities(&self) -> Vec<Capability> {
        let isolation = self.exec_isolation.clone();
        let stop_jobs = isolation.containment > Containment::ProcessGroup;
        let mut all = vec![Capability { kind: DriverKind::Exec, isolation, stop_jobs }];
        if cfg!(feature = "driver-wasm") {
            let exec = &self.exec_isolation;
            let isolation = Isolation {
                containment: Containment::Sandbox,
                memory_limited: true,
                cpu_limited: exec.cpu_limited,
                pids_limited: true,
                shortfalls: exec.shortfalls.iter().filter(|s| s.contains("cpu")).cloned().collect(),
            };
            all.push(Capability { kind: DriverKind::Wasm, isolation, stop_jobs: true });
        }
        all
    }

    fn boottime_ms(&self) -> u64 {
        files::boottime_ms()
    }

    fn renew(&self, deadline_boot_ms: u64) -> BoxFuture<'_, Result<(), DriverError>> {
        async move {
            let _writing = self.lease.lock().await;
            let (path, boot_id) = (self.config.lease(), self.boot_id.clone());
            blocking("renew the host's lease", move || {
                if Lease::deadline(&path, &boot_id) >= deadline_boot_ms {
                    return Ok(());
                }
                // A lease does not survive the host, so it need not be synced.
                files::write_json_volatile(&path, &Lease { deadline_boot_ms, boot_id })
            })
            .await
        }
        .boxed()
    }

    fn prepare<'a>(
        &'a self,
        job: &'a JobId,
        spec: JobSpec,
    ) -> BoxFuture<'a, Result<(), DriverError>> {
        self.put_in_place(job, spec).boxed()
    }

    fn start<'a>(&'a self, job: &'a JobId) -> BoxFuture<'a, Result<JobState, DriverError>> {
        self.launch(job).boxed()
    }

    fn probe<'a>(&'a self, job: &'a JobId) -> BoxFuture<'a, Result<JobState, DriverError>> {
        self.state(job).boxed()
    }

    fn stop<'a>(
        &'a self,
        job: &'a JobId,
        grace_ms: u64,
    ) -> BoxFuture<'a, Result<JobState, DriverError>> {
        self.end(job, grace_ms).boxed()
    }

    fn logs<'a>(
        &'a self,
        job: &'a JobId,
        stream: LogStream,
        from: LogPosition,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<LogChunk, DriverError>> {
        async move {
            self.spec(job).await?;
            let (dir, bytes_max) = (self.dir(job), bytes_max.min(self.config.log_bytes_max));
            blocking(format!("read the log of {job}"), move || {
                logs::read(&dir, stream, from, bytes_max)
            })
            .await
        }
        .boxed()
    }

    fn remove<'a>(&'a self, job: &'a JobId) -> BoxFuture<'a, Result<(), DriverError>> {
        self.forget(job).boxed()
    }

    fn remove_data<'a>(&'a self, data_dir: &'a Path) -> BoxFuture<'a, Result<(), DriverError>> {
        self.delete_data(data_dir).boxed()
    }

    fn recover(&self) -> BoxFuture<'_, Result<Vec<Recovered>, DriverError>> {
        self.find().boxed()
    }
}

fn unknown(job: &JobId) -> DriverError {
    DriverError::permanent(Cause::Unknown, format!("no job {job} on this host"))
}

fn running(job: &JobId) -> DriverError {
    DriverError::transient(Cause::Running, format!("{job} still runs"))
}

fn guard_error(message: String, source: io::Error) -> DriverError {
    DriverError::Transient {
        cause: Cause::Guard,
        message,
        retry_after_ms: 1_000,
        source: Some(source),
    }
}

fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Finds out in a child process, which may unshare namespaces, what exec jobs get here.
async fn trial(config: &GuardedConfig) -> Result<Isolation, DriverError> {
    let output = Command::new(&config.program)
        .args([GUARD, "--isolation", &config.cgroup_parent])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let message = "cannot find out what isolation this host gives";
    match timeout(Duration::from_millis(config.start_ms_max), output).await {
        Err(_) => Err(DriverError::transient(Cause::Guard, message)),
        Ok(Err(error)) => Err(guard_error(message.to_owned(), error)),
        Ok(Ok(output)) => serde_json::from_slice(&output.stdout)
            .map_err(|error| guard_error(message.to_owned(), error.into())),
    }
}

/// Runs file operations where they may block.
#[expect(
    clippy::disallowed_methods,
    reason = "drivers are one of the seams behind which threads live"
)]
async fn blocking<T: Send + 'static>(
    attempt: impl Into<String>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, DriverError> {
    let attempt = attempt.into();
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(DriverError::disk(format!("cannot {attempt}"), error)),
        Err(error) => Err(DriverError::disk(format!("cannot {attempt}"), io::Error::other(error))),
    }
}
