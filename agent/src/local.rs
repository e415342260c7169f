//! What a person on the host can do without any link: list jobs, look at one, stop them.
//!
//! It reads the folders of the jobs and asks their guards, exactly as the agent does, and needs no agent to
//! run. It does not change what the agent remembers: an agent that runs starts a stopped job again.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::guard::control::{Request, short_path};
use crate::guard::files;
use crate::guard::is_guarded;
use crate::guard::spec::JobSpec;
use crate::guard::state::{JobState, Phase};

/// Longest wait for a guard's answer beside the grace of the job, in ms.
const ANSWER_MS: u64 = 5_000;
/// A guard's answer is a state; a longer one is not read.
const ANSWER_BYTES_MAX: u64 = 256 << 10;

/// A job on this host.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LocalJob {
    /// Name of its folder.
    pub name: String,
    /// What it was told to run.
    pub spec: JobSpec,
    /// What its guard, or what is left of it, says.
    pub state: JobState,
    /// Whether its guard lives.
    pub guarded: bool,
}

/// Why a local verb did not work.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A folder cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no such job.
    #[error("this host has no job {name}")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// A guard does not do what it is told.
    #[error("could not stop {name}")]
    Stop {
        /// The job.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// All jobs below the agent's data folder, by name. A folder without a specification is left out.
///
/// # Errors
/// [`LocalError::Read`]; a data folder without jobs has none.
pub fn list(data: &Path) -> Result<Vec<LocalJob>, LocalError> {
    let jobs = data.join("jobs");
    let failed = |source| LocalError::Read { path: jobs.clone(), source };
    let mut names = Vec::new();
    match fs::read_dir(&jobs) {
        Ok(entries) => {
            for entry in entries {
                names.extend(entry.map_err(failed)?.file_name().into_string());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    names.sort_unstable();
    Ok(names.into_iter().filter_map(|name| look(&jobs.join(&name), name)).collect())
}

/// One job, by the name of its folder or by a beginning that fits only one.
///
/// # Errors
/// [`LocalError::Unknown`] and [`LocalError::Read`].
pub fn inspect(data: &Path, name: &str) -> Result<LocalJob, LocalError> {
    let all = list(data)?;
    let mut fitting: Vec<_> = all.into_iter().filter(|job| job.name.starts_with(name)).collect();
    if let Some(exact) = fitting.iter().position(|job| job.name == name) {
        return Ok(fitting.swap_remove(exact));
    }
    match (fitting.pop(), fitting.is_empty()) {
        (Some(job), true) => Ok(job),
        _ => Err(LocalError::Unknown { name: name.to_owned() }),
    }
}

/// Ends one job: asks it to, and kills it after its own grace. Returns when nothing of it is left. An agent
/// that runs will start it again.
///
/// # Errors
/// See [`LocalError`].
pub fn stop(data: &Path, name: &str) -> Result<LocalJob, LocalError> {
    let job = inspect(data, name)?;
    if job.guarded {
        let dir = data.join("jobs").join(&job.name);
        let stopped = ask(&dir, Request::Stop { grace_ms: job.spec.stop_grace_ms }, &job.spec);
        stopped.map_err(|source| LocalError::Stop { name: job.name.clone(), source })?;
    }
    inspect(data, &job.name)
}

/// Ends all jobs, each as [`stop`] does; how many were up.
///
/// # Errors
/// The first that would not stop; the others were told to all the same.
pub fn stop_all(data: &Path) -> Result<usize, LocalError> {
    let mut first = Ok(());
    let mut count = 0;
    for job in list(data)?.into_iter().filter(|job| job.guarded) {
        count += 1;
        if let Err(error) = stop(data, &job.name) {
            first = first.and(Err(error));
        }
    }
    first.map(|()| count)
}

/// The guards that live, by the names of their jobs.
///
/// # Errors
/// [`LocalError::Read`].
pub fn guard_pids(data: &Path) -> Result<Vec<(String, u32)>, LocalError> {
    let alive = list(data)?.into_iter().filter(|job| job.guarded);
    Ok(alive.map(|job| (job.name, job.state.guard_pid)).collect())
}

/// What a job's folder says.
fn look(dir: &Path, name: String) -> Option<LocalJob> {
    let spec: JobSpec = files::read_json(&dir.join(files::SPEC)).ok()?;
    let guarded = is_guarded(dir).unwrap_or(false);
    let left = || files::read_json::<JobState>(&dir.join(files::STATE)).ok();
    let state = match guarded {
        true => ask(dir, Request::Status, &spec).ok().or_else(left),
        false => left().map(|state| match state.phase {
            Phase::Prepared | Phase::Exited => state,
            Phase::Starting | Phase::Running | Phase::Stopping => {
                state.guard_lost("the job's guard died, and the job with it")
            }
        }),
    };
    Some(LocalJob { name, spec, state: state.unwrap_or_else(JobState::prepared), guarded })
}

fn ask(dir: &Path, request: Request, spec: &JobSpec) -> io::Result<JobState> {
    let open = File::open(dir)?;
    let mut stream = UnixStream::connect(short_path(&open))?;
    let patience_ms = match request {
        Request::Status => ANSWER_MS,
        Request::Stop { .. } => spec.stop_grace_ms.saturating_add(ANSWER_MS),
    };
    stream.set_read_timeout(Some(Duration::from_millis(patience_ms)))?;
    stream.set_write_timeout(Some(Duration::from_millis(ANSWER_MS)))?;
    stream.write_all(request.line().as_bytes())?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_until(b'\n', &mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}
