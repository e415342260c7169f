//! The driver of the simulation: a host in memory, in simulated time, without processes.
//!
//! A `FakeHost` stands for the machine: it keeps its jobs when an agent (that is, a `FakeDriver`)
//! is dropped and another opened, as guards do, and loses them all when it is restarted. What a job
//! does is a script, chosen by its application's name. Nothing runs in the background: what should
//! have happened by now is worked out when someone looks, so equal calls at equal times give equal
//! answers. It obeys the same contract as the real driver; `conformance` holds both to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};

use self::machine::{Machine, isolation, running};
use crate::driver::{
    Capability, Cause, Driver, DriverError, DriverKind, JobId, JobSpec, JobState, LogChunk,
    LogPosition, LogStream, Recovered,
};

mod machine;

/// What the jobs of one application do.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// What `prepare` answers instead of preparing: whether it is transient, and why.
    pub prepare_fails: Option<(bool, Cause)>,
    /// How long `prepare` takes.
    pub prepare_ms: u64,
    /// Whether the program cannot be started.
    pub cannot_start: bool,
    /// How long a start takes.
    pub start_ms: u64,
    /// Ends by itself so long after its start, with this code.
    pub ends_after: Option<(u64, i32)>,
    /// How long it takes to end when asked; more than its grace, and it is killed.
    pub stop_ms: u64,
    /// What each start writes to stdout.
    pub output: Vec<u8>,
}

/// A machine with guards on it.
#[derive(Clone)]
pub struct FakeHost {
    machine: Arc<Mutex<Machine>>,
}

impl Default for FakeHost {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeHost {
    /// A machine that has just been switched on, without jobs. Needs a tokio runtime for its time.
    pub fn new() -> Self {
        let machine = Machine {
            booted: Instant::now(),
            boots: 1,
            lease: 0,
            next_pid: 100,
            scripts: BTreeMap::new(),
            jobs: BTreeMap::new(),
            data_removed: Vec::new(),
        };
        Self { machine: Arc::new(Mutex::new(machine)) }
    }

    /// What jobs of an application do from their next start on; by default they run until stopped.
    pub fn script(&self, app: impl Into<String>, script: Script) {
        self.machine().scripts.insert(app.into(), script);
    }

    /// A driver on this machine, as a starting agent opens it.
    pub fn driver(&self) -> FakeDriver {
        FakeDriver { host: self.clone() }
    }

    /// The machine loses power and starts again: its jobs are gone, their files are not.
    pub fn restart(&self) {
        let mut machine = self.machine();
        machine.settle();
        for job in machine.jobs.values_mut() {
            job.lose("the host was restarted");
        }
        machine.booted = Instant::now();
        machine.boots += 1;
        machine.lease = 0;
    }

    /// One guard dies without a word. False if the job was not up.
    pub fn kill_guard(&self, job: &JobId) -> bool {
        let mut machine = self.machine();
        machine.settle();
        machine
            .jobs
            .get_mut(job)
            .is_some_and(|job| job.lose("the job's guard died, and the job with it"))
    }

    /// The data directories that were deleted, in order.
    pub fn data_removed(&self) -> Vec<PathBuf> {
        self.machine().data_removed.clone()
    }

    /// Every job that is up now, for an oracle that counts copies.
    pub fn running(&self) -> Vec<(JobId, JobSpec)> {
        let mut machine = self.machine();
        machine.settle();
        let up = machine.jobs.iter().filter(|(_, job)| job.is_up());
        up.map(|(name, job)| (name.clone(), job.spec.clone())).collect()
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A driver on a `FakeHost`; dropping it leaves the host's jobs alone.
#[derive(Clone)]
pub struct FakeDriver {
    host: FakeHost,
}

impl Driver for FakeDriver {
    fn capabilities(&self) -> Vec<Capability> {
        [DriverKind::Exec, DriverKind::Wasm]
            .map(|kind| Capability { kind, isolation: isolation(), stop_jobs: true })
            .into()
    }

    fn boottime_ms(&self) -> u64 {
        self.host.machine().now()
    }

    fn renew(&self, deadline_boot_ms: u64) -> BoxFuture<'_, Result<(), DriverError>> {
        let mut machine = self.host.machine();
        machine.settle();
        machine.lease = machine.lease.max(deadline_boot_ms);
        futures::future::ready(Ok(())).boxed()
    }

    fn prepare<'a>(
        &'a self,
        job: &'a JobId,
        spec: JobSpec,
    ) -> BoxFuture<'a, Result<(), DriverError>> {
        async move {
            let wait_ms = self.host.machine().script_of(&spec).prepare_ms;
            if wait_ms > 0 {
                sleep(Duration::from_millis(wait_ms)).await;
            }
            self.host.machine().prepare(job, spec)
        }
        .boxed()
    }

    fn start<'a>(&'a self, job: &'a JobId) -> BoxFuture<'a, Result<JobState, DriverError>> {
        async move {
            let wait_ms = self.host.machine().start(job)?;
            if wait_ms > 0 {
                sleep(Duration::from_millis(wait_ms)).await;
            }
            Ok(self.host.machine().job(job)?.state.clone())
        }
        .boxed()
    }

    fn probe<'a>(&'a self, job: &'a JobId) -> BoxFuture<'a, Result<JobState, DriverError>> {
        async move { Ok(self.host.machine().job(job)?.state.clone()) }.boxed()
    }

    fn stop<'a>(
        &'a self,
        job: &'a JobId,
        grace_ms: u64,
    ) -> BoxFuture<'a, Result<JobState, DriverError>> {
        async move {
            let wait_ms = self.host.machine().stop(job, grace_ms)?;
            if wait_ms > 0 {
                sleep(Duration::from_millis(wait_ms)).await;
            }
            Ok(self.host.machine().job(job)?.state.clone())
        }
        .boxed()
    }

    fn logs<'a>(
        &'a self,
        job: &'a JobId,
        stream: LogStream,
        from: LogPosition,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<LogChunk, DriverError>> {
        async move {
            let mut machine = self.host.machine();
            let job = machine.job(job)?;
            let output = if stream == LogStream::Stdout { &job.output[..] } else { &[] };
            let begin = usize::try_from(from.offset).unwrap_or(usize::MAX).min(output.len());
            let end = begin.saturating_add(bytes_max).min(output.len());
            let next = LogPosition { file: from.file, offset: end as u64 };
            Ok(LogChunk { start: from, bytes: output[begin..end].to_vec(), next })
        }
        .boxed()
    }

    fn remove<'a>(&'a self, job: &'a JobId) -> BoxFuture<'a, Result<(), DriverError>> {
        async move {
            let mut machine = self.host.machine();
            match machine.job(job) {
                Ok(found) if found.is_up() => return Err(running(job)),
                Ok(_) | Err(_) => {}
            }
            machine.jobs.remove(job);
            Ok(())
        }
        .boxed()
    }

    fn remove_data<'a>(&'a self, data_dir: &'a Path) -> BoxFuture<'a, Result<(), DriverError>> {
        self.host.machine().data_removed.push(data_dir.to_owned());
        futures::future::ready(Ok(())).boxed()
    }

    fn recover(&self) -> BoxFuture<'_, Result<Vec<Recovered>, DriverError>> {
        async move {
            let mut machine = self.host.machine();
            machine.settle();
            let all = machine.jobs.iter().map(|(name, job)| Recovered {
                job: name.clone(),
                spec: job.spec.clone(),
                state: job.state.clone(),
            });
            Ok(all.collect())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
