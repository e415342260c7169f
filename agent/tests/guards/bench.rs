//! The surroundings of a test: an agent's directory, a driver in it, jobs, and looks at /proc.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent::driver::conformance::{Behaviour, Bench, must};
use agent::driver::guarded::{GuardedConfig, GuardedDriver};
use agent::driver::{Driver, DriverKind, JobId, JobSpec, JobState, LogPosition, LogStream};
use agent::guard::spec::{Limits, LogLimits, ModuleSpec, OnDisconnect};
use futures::FutureExt;
use futures::future::BoxFuture;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

/// An agent's directory with a driver; what is left of its jobs dies with it.
pub(crate) struct Room {
    root: tempfile::TempDir,
    pub(crate) driver: Arc<GuardedDriver>,
    kind: DriverKind,
}

impl Room {
    pub(crate) async fn open(kind: DriverKind) -> Self {
        let root = tempfile::tempdir().unwrap();
        let driver = open(root.path()).await;
        Self { root, driver, kind }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn job_dir(&self, job: &JobId) -> PathBuf {
        self.path("jobs").join(job.as_str())
    }

    /// An exec job of this binary.
    pub(crate) fn exec(&self, words: &[&str]) -> JobSpec {
        let mut spec = self.plain(DriverKind::Exec, std::env::current_exe().unwrap());
        spec.modules[0].args =
            std::iter::once("job").chain(words.iter().copied()).map(str::to_owned).collect();
        spec
    }

    /// A wasm job from the text of a module.
    pub(crate) fn wasm(&self, text: &str) -> JobSpec {
        let bytes = wat::parse_str(text).unwrap();
        let name = bytes
            .iter()
            .fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        let path = self.path(&format!("{name:x}.wasm"));
        fs::write(&path, bytes).unwrap();
        self.plain(DriverKind::Wasm, path)
    }

    fn plain(&self, driver: DriverKind, path: PathBuf) -> JobSpec {
        JobSpec {
            tenant: "acme".into(),
            deployment: "shop".into(),
            app: "till".into(),
            slot: "partition 2".into(),
            partition: Some(2),
            num_partitions: 5,
            assignment: 1,
            driver,
            modules: vec![ModuleSpec {
                name: "main".into(),
                path,
                compiled: None,
                static_dir: None,
                args: Vec::new(),
                env: vec![("COLOUR".into(), "green".into())],
            }],
            data_dir: self.path("data"),
            limits: Limits::default(),
            on_disconnect: OnDisconnect::KeepRunning,
            stop_grace_ms: 5_000,
            kill_margin_ms: 500,
            logs: LogLimits::default(),
            lease: PathBuf::new(),
            cgroup: String::new(),
        }
    }

    pub(crate) async fn up(&self, job: &JobId, spec: JobSpec) -> JobState {
        must(self.driver.prepare(job, spec).await, "prepare");
        must(self.driver.start(job).await, "start")
    }

    /// All of stdout that is kept.
    pub(crate) async fn stdout(&self, job: &JobId) -> String {
        let (mut position, mut text) = (LogPosition::default(), Vec::new());
        loop {
            let read = self.driver.logs(job, LogStream::Stdout, position, 1 << 20).await;
            let chunk = must(read, "logs");
            if chunk.bytes.is_empty() {
                return String::from_utf8(text).unwrap();
            }
            text.extend(chunk.bytes);
            position = chunk.next;
        }
    }

    pub(crate) async fn until_stdout(&self, job: &JobId, wanted: &str) {
        let begun = Instant::now();
        while !self.stdout(job).await.contains(wanted) {
            assert!(begun.elapsed() < Duration::from_secs(20), "no {wanted:?} in the log of {job}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Room {
    /// A failed test leaves no process behind: killing a guard kills its job.
    fn drop(&mut self) {
        for entry in fs::read_dir(self.path("jobs")).into_iter().flatten().flatten() {
            let state = fs::read(entry.path().join("state.json")).unwrap_or_default();
            if let Ok(state) = serde_json::from_slice::<JobState>(&state)
                && state.exit.is_none()
                && cmdline(state.guard_pid).contains(&entry.path().display().to_string())
            {
                let _ = kill(Pid::from_raw(state.guard_pid.cast_signed()), Signal::SIGKILL);
            }
        }
    }
}

async fn open(root: &Path) -> Arc<GuardedDriver> {
    let config = GuardedConfig::new(root.to_owned());
    Arc::new(must(GuardedDriver::open(config).await, "open the driver"))
}

impl Bench for Room {
    fn driver(&self) -> Arc<dyn Driver> {
        self.driver.clone()
    }

    fn spec(&self, behaviour: Behaviour, assignment: u64) -> JobSpec {
        let spec = match (self.kind, behaviour) {
            (DriverKind::Exec, Behaviour::RunsUntilStopped) => self.exec(&["run"]),
            (DriverKind::Exec, Behaviour::IgnoresStop) => self.exec(&["ignore"]),
            (DriverKind::Exec, Behaviour::EndsWith(code)) => self.exec(&["end", &code.to_string()]),
            (DriverKind::Exec, Behaviour::CannotStart) => {
                let path = self.path("not-a-program");
                fs::write(&path, "neither ELF nor executable").unwrap();
                self.plain(DriverKind::Exec, path)
            }
            (DriverKind::Wasm, behaviour) => self.wasm(&crate::wasm::module(behaviour)),
        };
        JobSpec { assignment, ..spec }
    }

    fn restart_agent(&mut self) -> BoxFuture<'_, ()> {
        async move { self.driver = open(self.root.path()).await }.boxed()
    }

    fn kill_guard<'a>(&'a self, _job: &'a JobId, state: &'a JobState) -> BoxFuture<'a, ()> {
        async move {
            kill(Pid::from_raw(state.guard_pid.cast_signed()), Signal::SIGKILL).unwrap();
            gone(&[state.guard_pid]).await;
        }
        .boxed()
    }
}

/// The processes that have the mark among their arguments.
pub(crate) fn marked(mark: &str) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| cmdline(*pid).split('\0').any(|word| word.ends_with(mark))).collect()
}

fn cmdline(pid: u32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default())
        .into_owned()
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Waits until none of the processes lives.
pub(crate) async fn gone(pids: &[u32]) {
    wait("processes to vanish", || pids.iter().all(|pid| !is_alive(*pid))).await;
}

/// Waits for a condition that no driver tells.
pub(crate) async fn wait(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20), "still waiting for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Resident and proportional set size of a process in KiB.
pub(crate) fn memory_kib(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (field("Rss:"), field("Pss:"))
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}
