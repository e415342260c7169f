//! The small process that owns one job: its processes or wasm store, its logs and its end.
//!
//! `guard --dir <job directory>` is started by a driver and then needs nobody: it goes on when the
//! agent dies, answers on a socket, and ends a `stop` job by itself before the host's lease does.
//! It restarts nothing. If the guard itself is killed, the kernel takes the job along (see
//! `init`); the agent then finds an unlocked directory with a state that says `running`.
//!
//! Read on in `spec` (what it is told), `state` (what it says), `supervisor` (the loop), `exec`
//! and `init` (processes), and `driver::wasm` (modules). No network, no TLS, and for exec jobs no
//! async runtime is ever started in this process.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::fcntl::{Flock, FlockArg};

pub(crate) mod control;
pub(crate) mod exec;
pub(crate) mod files;
pub(crate) mod init;
pub(crate) mod logs;
pub mod spec;
pub mod state;
pub(crate) mod supervisor;
#[cfg(feature = "driver-wasm")]
pub(crate) mod wasm;
pub(crate) mod workload;

use crate::cgroup::Cgroups;
use crate::guard::spec::{JobSpec, Limits};
use crate::guard::state::{Isolation, JobState, Phase};
use crate::guard::supervisor::Supervisor;

/// The first argument of every process of this room.
pub const GUARD: &str = "guard";

/// Runs whichever process of this room the arguments (without the program's name) ask for:
/// `guard --dir DIR`, `guard --init`, `guard --isolation CGROUP_PARENT`,
/// `guard --compile WASM MACHINE_CODE`. `None`: the arguments are something else. Call it first in
/// `main`, before any thread or runtime is started: namespaces need a process without threads.
pub fn dispatch(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter();
    if arguments.next()? != GUARD {
        return None;
    }
    let verb = arguments.next()?;
    match (verb.to_str()?, arguments.next(), arguments.next()) {
        ("--dir", Some(dir), None) => Some(main(Path::new(&dir))),
        ("--init", None, None) => Some(init::main()),
        ("--isolation", Some(parent), None) => Some(isolation_main(&parent.to_string_lossy())),
        #[cfg(feature = "driver-wasm")]
        ("--compile", Some(wasm), Some(code)) => {
            Some(crate::driver::wasm::compile_main(Path::new(&wasm), Path::new(&code)))
        }
        _ => None,
    }
}

/// Why a guard could not take its job on.
#[derive(Debug, thiserror::Error)]
enum GuardError {
    #[error("another guard holds the job in {0}")]
    Held(PathBuf),
    #[error("cannot {attempt}")]
    Io { attempt: &'static str, source: io::Error },
}

fn io_error(attempt: &'static str) -> impl FnOnce(io::Error) -> GuardError {
    move |source| GuardError::Io { attempt, source }
}

/// Guards the job in a directory until nothing of the job is left. Success means that the job's
/// end is in `state.json`; otherwise the reason is on standard error.
pub fn main(dir: &Path) -> ExitCode {
    match guard(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Says on standard error (the driver made it `guard.log`) what no state can say.
pub(crate) fn complain(error: &dyn std::error::Error) {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    // Nobody is left to tell if this fails.
    drop(writeln!(io::stderr(), "{line}"));
}

fn guard(dir: &Path) -> Result<(), GuardError> {
    // Refused to a process group's leader, which has the same protection from a terminal already.
    let _ = nix::unistd::setsid();
    let dir = fs::canonicalize(dir).map_err(io_error("find the job directory"))?;
    std::env::set_current_dir("/").map_err(io_error("leave the agent's directory"))?;
    let _lock = lock(&dir)?;
    let spec: JobSpec =
        files::read_json(&dir.join(files::SPEC)).map_err(io_error("read the job's spec.json"))?;
    let earlier = files::read_json::<JobState>(&dir.join(files::STATE));
    let state = JobState {
        phase: Phase::Starting,
        guard_pid: std::process::id(),
        started_at_boot_ms: files::boottime_ms(),
        boot_id: files::boot_id(),
        restarts: earlier.map_or(0, |earlier| earlier.restarts + 1),
        ..JobState::prepared()
    };
    let mut supervisor =
        Supervisor::new(dir, spec, state).map_err(io_error("set up the job's supervision"))?;
    supervisor.run().map_err(io_error("supervise the job"))
}

const LOCK_ATTEMPTS_MAX: u32 = 20;
const LOCK_RETRY_MS: u64 = 25;

/// Takes the job's lock for the life of this process. Retried for half a second, because a driver
/// that looks whether a guard lives holds the lock for a moment.
fn lock(dir: &Path) -> Result<Flock<fs::File>, GuardError> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(dir.join(files::LOCK))
        .map_err(io_error("open the job's lock"))?;
    for _ in 0..LOCK_ATTEMPTS_MAX {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((unlocked, _)) => file = unlocked,
        }
        workload::pause(LOCK_RETRY_MS);
    }
    Err(GuardError::Held(dir.to_owned()))
}

/// Whether a living guard holds a job directory's lock. Never blocks.
pub(crate) fn is_guarded(dir: &Path) -> io::Result<bool> {
    let file = match OpenOptions::new().read(true).open(dir.join(files::LOCK)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(false),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(true),
        Err((_, error)) => Err(error.into()),
    }
}

/// Finds out, by doing it, what isolation an exec job gets here, and prints it as JSON.
fn isolation_main(cgroup_parent: &str) -> ExitCode {
    let mut isolation = Isolation::default();
    let name = format!("trial-{}", std::process::id());
    let limits =
        Limits { memory_bytes: Some(1 << 30), cpu_millis: Some(1_000), pids_max: Some(64) };
    Cgroups::detect().create(cgroup_parent, &name, &limits, &mut isolation).remove();
    exec::contain(&mut isolation);
    match serde_json::to_writer(io::stdout(), &isolation) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}
