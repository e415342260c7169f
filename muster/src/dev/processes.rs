//! The processes of a development cluster: started in order, stopped in reverse, nothing left behind.

use super::report::say;
use ::console::{Failure, exit};
use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::time::Instant;

/// How long processes may take to end by themselves before they are killed.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the jobs of all agents may take to end before their guards are killed.
pub(crate) const STOP_JOBS_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest that one job of the examples may take to end: its grace, and a guard's time to answer.
const STOP_JOB_LONGEST: Duration = Duration::from_secs(8);

/// How often a process is started again before everything runs.
pub(crate) const REVIVALS_MAX: u32 = 3;

/// One process of the cluster.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its name, such as `node-1`.
    pub(crate) name: String,
    /// Its data folder.
    pub(crate) folder: PathBuf,
    log: PathBuf,
    arguments: Vec<String>,
    child: Child,
    /// How often it was started again before everything ran.
    revivals: u32,
}

impl Member {
    /// Starts this binary with `arguments`; output goes to `<folder>.log`.
    pub(crate) fn start(name: &str, folder: &Path, arguments: &[String]) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let log = folder.with_extension("log");
        let child = launch(name, &log, arguments)?;
        Ok(Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            log,
            arguments: arguments.to_vec(),
            child,
            revivals: 0,
        })
    }

    /// Whether it was a control node that was removed from its cluster: it would only end again.
    pub(crate) fn was_removed(&mut self) -> Result<bool> {
        let status = self.child.try_wait().context("look at a child")?;
        Ok(status.and_then(|status| status.code()) == Some(i32::from(exit::FAILED)))
    }

    /// Starts it again if it has ended; says how it ended.
    pub(crate) fn revive(&mut self) -> Result<Option<String>> {
        let Some(status) = self.child.try_wait().context("look at a child")? else {
            return Ok(None);
        };
        self.child = launch(&self.name, &self.log, &self.arguments)?;
        Ok(Some(format!("{} ended ({status}) and was started again", self.name)))
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// [`Member::revive`] for a few times: what ends again and again will not run.
    pub(crate) fn revive_some(&mut self) -> Result<Option<String>> {
        if self.revivals >= REVIVALS_MAX {
            return self.check().map(|()| None);
        }
        let revived = self.revive()?;
        self.revivals += u32::from(revived.is_some());
        Ok(revived)
    }

    /// An error with the end of its log if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().context("look at a child")? {
            let message =
                format!("{} ended ({status}); its log ends:\n{}", self.name, self.log_end());
            let remedy = "see what its log says; with --data DIR the logs are kept in DIR";
            return Err(Failure::of(exit::ERROR, "PROCESS_ENDED", message, remedy)
                .at(&self.name)
                .into());
        }
        Ok(())
    }

    fn log_end(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }
}

fn send(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // It may have ended by itself: that is what is wanted.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Starts this binary; its output is appended to `log`.
fn launch(name: &str, log: &Path, arguments: &[String]) -> Result<Child> {
    let out = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("open {}", log.display()))?;
    let program = std::env::current_exe().context("find this program")?;
    // A group of its own: Ctrl-C at the terminal is for the parent, which stops all in order.
    Command::new(program)
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()
        .with_context(|| format!("start {name}"))
}

/// Stops members, the last started first: each gets SIGTERM, and SIGKILL at the deadline.
pub(crate) async fn stop(mut members: Vec<Member>) {
    members.reverse();
    for member in &members {
        member.signal(Signal::SIGTERM);
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    for member in &mut members {
        while matches!(member.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                member.signal(Signal::SIGKILL);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Ends the jobs that agents left running below their folders. Each is asked to end until the deadline;
/// then its guard is killed, and the kernel takes the job along.
pub(crate) fn stop_jobs(folders: &[PathBuf]) {
    let deadline = Instant::now() + STOP_JOBS_TIMEOUT;
    for folder in folders {
        let jobs = agent::local::guard_pids(folder).unwrap_or_default();
        for (job, pid) in jobs {
            let left = deadline.saturating_duration_since(Instant::now());
            if left < STOP_JOB_LONGEST {
                send(pid, Signal::SIGKILL);
            } else if let Err(error) = agent::local::stop(folder, &job) {
                say(&format!("{job} does not stop and is killed: {error}"));
                send(pid, Signal::SIGKILL);
            }
        }
    }
}

/// Resident memory of a process in bytes; `None` if it is gone.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1_024)
}
