//! The first process of an exec job: parent of its modules, PID 1 of its namespace.
//!
//! It starts the modules, reaps everything they leave behind, passes on the request to stop, and
//! tells the guard what happens, one JSON line each, over the socket it has as standard input.
//! When the guard dies, by whatever means, this process dies: by the parent-death signal, and
//! because the socket ends. As PID 1 its death makes the kernel kill the whole namespace, so not
//! one descendant survives a `kill -9` of the guard.
//!
//! Where no namespace could be made it is a mere sub-reaper: it can then find and kill all
//! descendants as long as it lives itself, which is what `Containment::ProcessGroup` promises.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};
use serde::{Deserialize, Serialize};

/// What the guard asks of its init: the first line on the socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Files to write oneself into before the modules are started, so that they are born limited.
    pub(crate) join: Vec<PathBuf>,
    /// Files to write oneself into afterwards: init is not the job's memory, nor its victim.
    pub(crate) leave: Vec<PathBuf>,
    /// The modules' programs.
    pub(crate) programs: Vec<Program>,
}

/// One module as a process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) module: String,
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) directory: PathBuf,
}

/// What happens to a job's modules, as told to the guard's supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum News {
    /// A promise of isolation that could not be kept.
    Shortfall(String),
    /// Every module was started.
    Started,
    /// A module could not be started; nothing runs.
    StartFailed { module: String, message: String },
    /// A module ended, by whatever cause.
    Ended { module: usize, code: Option<i32>, signal: Option<i32>, oom: bool, message: String },
    /// Nothing is left.
    Empty,
}

/// Asks for a graceful stop, a line on the socket.
pub(crate) const TERM: &str = "term";
/// Asks for the end of everything, where no namespace does it.
pub(crate) const KILL: &str = "kill";

/// The init process: runs until nothing of the job is left. Its guard gives it its socket as
/// standard input and the job's log pipes as standard output and error.
pub(crate) fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    SigSet::all().thread_unblock()?;
    let contained = getpid() == Pid::from_raw(1);
    if contained {
        // A guard that died before this line is noticed by the end of the socket below.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
    } else {
        prctl::set_child_subreaper(true)?;
    }
    let mut news = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut orders = BufReader::new(news.try_clone()?);
    let mut line = String::new();
    orders.read_line(&mut line)?;
    let plan: Plan = serde_json::from_str(&line)?;
    if contained && let Err(error) = own_proc() {
        tell(&mut news, &News::Shortfall(format!("the job sees the host's /proc: {error}")))?;
    }
    let mut family = Family { contained, modules: BTreeMap::new(), dying: Arc::default() };
    for file in &plan.join {
        if let Err(error) = fs::write(file, "0") {
            let message = format!("cannot join the control group {}: {error}", file.display());
            return tell(&mut news, &News::StartFailed { module: String::new(), message });
        }
    }
    for (index, program) in plan.programs.into_iter().enumerate() {
        match start(&program) {
            Ok(pid) => family.modules.insert(pid, index),
            Err(error) => {
                let message = format!("cannot run {}: {error}", program.path.display());
                tell(&mut news, &News::StartFailed { module: program.module, message })?;
                family.kill();
                return family.reap(&mut news);
            }
        };
    }
    for file in &plan.leave {
        // Staying costs the job a megabyte of its limit, nothing else.
        drop(fs::write(file, "0"));
    }
    tell(&mut news, &News::Started)?;
    family.obey(orders);
    family.reap(&mut news)
}

/// Gives the namespace a view of its own processes. The mount namespace is a slave: what the host
/// mounts later is still seen.
fn own_proc() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none)
}

const BUSY_ATTEMPTS_MAX: u32 = 50;
const BUSY_RETRY_MS: u64 = 20;

/// Starts a module. An executable that was just written may be open for writing for a moment yet,
/// in a process being forked from the agent; that is waited for.
fn start(program: &Program) -> io::Result<i32> {
    let mut command = Command::new(&program.path);
    command
        .args(&program.args)
        .env_clear()
        .envs(program.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&program.directory)
        .stdin(Stdio::null())
        .process_group(0);
    for _ in 0..BUSY_ATTEMPTS_MAX {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                super::workload::pause(BUSY_RETRY_MS);
            }
            Err(error) => return Err(error),
            Ok(child) => return i32::try_from(child.id()).map_err(io::Error::other),
        }
    }
    Err(io::ErrorKind::ExecutableFileBusy.into())
}

fn tell(news: &mut UnixStream, what: &News) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    news.write_all(&line)
}

/// The processes of the job, from their parent's point of view.
#[derive(Clone)]
struct Family {
    contained: bool,
    /// Module by the process id it has in here.
    modules: BTreeMap<i32, usize>,
    /// Set once everything is to die: processes adopted later die too.
    dying: Arc<AtomicBool>,
}

impl Family {
    /// Carries out the guard's orders, in a thread of its own, until the guard is gone.
    #[expect(clippy::disallowed_methods, reason = "the main thread blocks in waitpid")]
    fn obey(&self, orders: BufReader<UnixStream>) {
        let family = self.clone();
        std::thread::spawn(move || {
            for order in orders.lines().map_while(Result::ok) {
                match order.as_str() {
                    TERM => family.term(),
                    KILL => family.kill(),
                    _ => {}
                }
            }
            family.kill();
        });
    }

    fn term(&self) {
        if self.contained {
            // From PID 1 this is every process of the namespace except itself.
            let _ = kill(Pid::from_raw(-1), Signal::SIGTERM);
        } else {
            for pid in self.modules.keys() {
                let _ = killpg(Pid::from_raw(*pid), Signal::SIGTERM);
            }
        }
    }

    fn kill(&self) {
        self.dying.store(true, Ordering::SeqCst);
        if self.contained {
            let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            return;
        }
        for pid in self.modules.keys() {
            let _ = killpg(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        for pid in super::exec::children(std::process::id()) {
            if let Ok(pid) = i32::try_from(pid) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    /// Waits for every descendant. A descendant is adopted when its parent dies, and that parent
    /// is reaped here, so killing again after each reaping finds all of them.
    fn reap(&self, news: &mut UnixStream) -> io::Result<()> {
        loop {
            let (pid, code, signal) = match waitpid(None, None) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Some(code), None),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, None, Some(signal as i32)),
                Ok(_) | Err(nix::errno::Errno::EINTR) => continue,
                Err(nix::errno::Errno::ECHILD) => return tell(news, &News::Empty),
                Err(error) => return Err(error.into()),
            };
            if let Some(module) = self.modules.get(&pid.as_raw()) {
                let message = String::new();
                tell(news, &News::Ended { module: *module, code, signal, oom: false, message })?;
            }
            if self.dying.load(Ordering::SeqCst) {
                self.kill();
            }
        }
    }
}
