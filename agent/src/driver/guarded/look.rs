//! Finding out how a job is: by asking its guard or, when there is none, from what it left.

use std::fs::{self, File};
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::{GuardedDriver, LOOK_MS, LOOKS_MAX, blocking, guard_error, unknown};
use crate::cgroup::Cgroups;
use crate::driver::{Cause, DriverError, JobId, JobSpec, JobState, Phase, Recovered};
use crate::guard::control::{Request, short_path};
use crate::guard::{files, is_guarded};

/// A guard's answer is a state; a longer one is not read.
const ANSWER_BYTES_MAX: u64 = 256 << 10;

impl GuardedDriver {
    pub(super) async fn spec(&self, job: &JobId) -> Result<JobSpec, DriverError> {
        let path = self.dir(job).join(files::SPEC);
        let found = blocking("look for the job", move || match files::read_json(&path) {
            Ok(spec) => Ok(Some(spec)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        found.await?.ok_or_else(|| unknown(job))
    }

    /// Asks a guard; `None` when there is no guard any more to answer.
    pub(super) async fn ask(
        &self,
        job: &JobId,
        request: Request,
        patience_ms: u64,
    ) -> Result<Option<JobState>, DriverError> {
        let dir = self.dir(job);
        let talk = async {
            let open = File::open(&dir)?;
            let mut stream = UnixStream::connect(short_path(&open)).await?;
            stream.write_all(request.line().as_bytes()).await?;
            let mut answer = Vec::new();
            let mut limited = (&mut stream).take(ANSWER_BYTES_MAX);
            while !answer.ends_with(b"\n") && limited.read_buf(&mut answer).await? > 0 {}
            if answer.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_slice(&answer)?)) }
        };
        match timeout(Duration::from_millis(patience_ms), talk).await {
            Ok(Ok(state)) => Ok(state),
            Ok(Err(error)) if is_nobody(&error) => Ok(None),
            Ok(Err(error)) => Err(guard_error(format!("cannot talk to the guard of {job}"), error)),
            Err(_) => Err(DriverError::transient(
                Cause::Guard,
                format!("the guard of {job} did not answer within {patience_ms} ms"),
            )),
        }
    }

    pub(super) async fn state(&self, job: &JobId) -> Result<JobState, DriverError> {
        self.spec(job).await?;
        for _ in 0..LOOKS_MAX {
            if let Some(state) = self.ask(job, Request::Status, self.config.answer_ms_max).await? {
                return Ok(state);
            }
            if !self.is_guarded(job).await? {
                return self.remains(job).await;
            }
            // A guard that is coming up or going down holds the lock but does not answer.
            sleep(Duration::from_millis(LOOK_MS)).await;
        }
        let message = format!("the guard of {job} lives and does not answer");
        Err(DriverError::transient(Cause::Guard, message))
    }

    pub(super) async fn is_guarded(&self, job: &JobId) -> Result<bool, DriverError> {
        let dir = self.dir(job);
        blocking("look whether a guard lives", move || is_guarded(&dir)).await
    }

    /// What a job without a guard left behind.
    pub(super) async fn remains(&self, job: &JobId) -> Result<JobState, DriverError> {
        let path = self.dir(job).join(files::STATE);
        let read = move || match files::read_json::<JobState>(&path) {
            Ok(state) => Ok(state),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(JobState::prepared()),
            Err(error) => {
                Ok(JobState::prepared().guard_lost(format!("its state is unreadable: {error}")))
            }
        };
        let state = blocking("read what the job's guard left", read).await?;
        Ok(match state.phase {
            Phase::Prepared | Phase::Exited => state,
            _ if state.boot_id != self.boot_id => state.guard_lost("the host was restarted"),
            Phase::Starting | Phase::Running | Phase::Stopping => {
                state.guard_lost("the job's guard died, and the job with it")
            }
        })
    }

    pub(super) async fn unguarded(&self, job: &JobId) -> Result<(), DriverError> {
        for _ in 0..LOOKS_MAX {
            if !self.is_guarded(job).await? {
                return Ok(());
            }
            sleep(Duration::from_millis(LOOK_MS)).await;
        }
        let message = format!("the guard of {job} does not end");
        Err(DriverError::transient(Cause::Guard, message))
    }

    /// Waits until nothing runs of an earlier start. The lock of a guard that was killed is free a moment
    /// before the kernel has killed what ran under it, and on a busy host that moment may be long.
    pub(super) async fn deserted(&self, job: &JobId) -> Result<(), DriverError> {
        for _ in 0..LOOKS_MAX {
            let (parent, name) = (self.config.cgroup_parent.clone(), job.clone());
            let look = move || Ok(Cgroups::detect().is_empty(&parent, name.as_str()));
            if blocking("look whether the job's group is empty", look).await? {
                return Ok(());
            }
            sleep(Duration::from_millis(LOOK_MS)).await;
        }
        let message = format!("processes of an earlier start of {job} do not end");
        Err(DriverError::transient(Cause::Running, message))
    }

    pub(super) async fn find(&self) -> Result<Vec<Recovered>, DriverError> {
        let jobs = self.config.jobs();
        let names = blocking("list the jobs", move || {
            let mut names = Vec::new();
            for entry in fs::read_dir(jobs)? {
                let name = entry?.file_name();
                names.extend(name.to_str().and_then(|name| JobId::new(name).ok()));
            }
            names.sort_unstable();
            Ok(names)
        });
        let mut found = Vec::new();
        for job in names.await? {
            match self.spec(&job).await {
                Ok(spec) => {
                    let state = self.state(&job).await?;
                    found.push(Recovered { job, spec, state });
                }
                // `prepare` was cut short before it wrote the specification.
                Err(error) if error.cause() == Cause::Unknown => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}

/// Whether an error means that nobody listens (any more).
fn is_nobody(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    matches!(error.kind(), NotFound | ConnectionRefused | ConnectionReset | BrokenPipe)
}
