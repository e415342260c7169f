//! The processes of a development cluster: started in order, stopped in reverse, nothing left behind.

use anyhow::{Context, Result, bail};
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

/// How long a process may take to end by itself before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

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
        })
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

    /// An error with the end of its log if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().context("look at a child")? {
            bail!("{} ended ({status}); its log ends:\n{}", self.name, self.log_end());
        }
        Ok(())
    }

    fn log_end(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It may have ended by itself: that is what is wanted.
            let _ = kill(Pid::from_raw(pid), signal);
        }
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

/// Resident memory of a process in bytes; `None` if it is gone.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1_024)
}
