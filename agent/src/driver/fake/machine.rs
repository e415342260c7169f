//! The state of a fake host, and what time does to it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tokio::time::Instant;

use crate::driver::fake::Script;
use crate::driver::{
    Cause, Containment, DriverError, ExitReason, Isolation, JobExit, JobId, JobSpec, JobState,
    Phase,
};
use crate::guard::spec::OnDisconnect;

pub(super) struct Machine {
    pub(super) booted: Instant,
    pub(super) boots: u64,
    pub(super) lease: u64,
    pub(super) next_pid: u32,
    pub(super) scripts: BTreeMap<String, Script>,
    pub(super) jobs: BTreeMap<JobId, FakeJob>,
    pub(super) data_removed: Vec<PathBuf>,
}

pub(super) struct FakeJob {
    pub(super) spec: JobSpec,
    pub(super) state: JobState,
    pub(super) output: Vec<u8>,
    /// When and how it ends, as far as that is known now.
    pub(super) ends: Option<(u64, JobExit)>,
}

impl FakeJob {
    pub(super) fn is_up(&self) -> bool {
        !matches!(self.state.phase, Phase::Prepared | Phase::Exited)
    }

    pub(super) fn lose(&mut self, message: &str) -> bool {
        let was_up = self.is_up();
        if was_up {
            self.ends = None;
            self.state = self.state.clone().guard_lost(message);
        }
        was_up
    }

    /// Notes an end unless an earlier one is known already.
    pub(super) fn ends_at(&mut self, at: u64, exit: JobExit) {
        if self.ends.as_ref().is_none_or(|(known, _)| at < *known) {
            self.ends = Some((at, exit));
        }
    }

    /// When and how a stop that is asked for at `at` ends the job.
    pub(super) fn stop(&mut self, at: u64, grace_ms: u64, stop_ms: u64, reason: ExitReason) {
        let killed = stop_ms > grace_ms || grace_ms == 0;
        let mut exit = JobExit::because(reason, "it was told to stop");
        exit.killed = killed;
        self.ends_at(at.saturating_add(if killed { grace_ms } else { stop_ms }), exit);
    }
}

impl Machine {
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.booted.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn boot_id(&self) -> String {
        format!("boot-{}", self.boots)
    }

    pub(super) fn script_of(&self, spec: &JobSpec) -> Script {
        self.scripts.get(&spec.app).cloned().unwrap_or_default()
    }

    /// When a `stop` job begins to stop for want of a lease.
    pub(super) fn lease_bound(&self, spec: &JobSpec) -> Option<u64> {
        let reserve = spec.stop_grace_ms.saturating_add(spec.kill_margin_ms);
        (spec.on_disconnect == OnDisconnect::Stop).then(|| self.lease.saturating_sub(reserve))
    }

    /// Lets everything happen that should have happened by now.
    pub(super) fn settle(&mut self) {
        let now = self.now();
        let bounds: BTreeMap<JobId, (u64, u64)> = self
            .jobs
            .iter()
            .filter_map(|(name, job)| {
                let stop_ms = self.script_of(&job.spec).stop_ms;
                Some((name.clone(), (self.lease_bound(&job.spec)?, stop_ms)))
            })
            .collect();
        for (name, job) in &mut self.jobs {
            if !job.is_up() {
                continue;
            }
            if let Some((bound, stop_ms)) = bounds.get(name)
                && now >= *bound
            {
                job.stop(*bound, job.spec.stop_grace_ms, *stop_ms, ExitReason::LeaseExpired);
                job.state.phase = Phase::Stopping;
            }
            if job.ends.as_ref().is_some_and(|(at, _)| *at <= now)
                && let Some((_, exit)) = job.ends.take()
            {
                job.state.phase = Phase::Exited;
                job.state.pids.clear();
                job.state.exit = Some(exit);
            }
        }
    }

    pub(super) fn job(&mut self, job: &JobId) -> Result<&mut FakeJob, DriverError> {
        self.settle();
        let unknown =
            || DriverError::permanent(Cause::Unknown, format!("no job {job} on this host"));
        self.jobs.get_mut(job).ok_or_else(unknown)
    }

    pub(super) fn prepare(&mut self, name: &JobId, spec: JobSpec) -> Result<(), DriverError> {
        self.settle();
        if spec.modules.is_empty() {
            let message = format!("the application {} has no module", spec.app);
            return Err(DriverError::permanent(Cause::Spec, message));
        }
        if let Some((transient, cause)) = self.script_of(&spec).prepare_fails {
            let message = format!("{name} cannot be prepared, as scripted");
            return Err(match transient {
                true => DriverError::transient(cause, message),
                false => DriverError::permanent(cause, message),
            });
        }
        match self.jobs.get(name) {
            Some(job) if job.spec == spec => Ok(()),
            Some(job) if job.is_up() => Err(running(name)),
            Some(_) | None => {
                let state = JobState::prepared();
                self.jobs
                    .insert(name.clone(), FakeJob { spec, state, output: Vec::new(), ends: None });
                Ok(())
            }
        }
    }

    /// Starts a job; the time to wait before it can be called up.
    pub(super) fn start(&mut self, name: &JobId) -> Result<u64, DriverError> {
        let (now, boot_id, pid) = (self.now(), self.boot_id(), self.next_pid);
        let spec = self.job(name)?.spec.clone();
        let (script, bound) = (self.script_of(&spec), self.lease_bound(&spec));
        let job = self.job(name)?;
        match job.state.phase {
            Phase::Starting | Phase::Running => return Ok(0),
            Phase::Stopping => return Err(running(name)),
            Phase::Prepared | Phase::Exited => {}
        }
        if bound.is_some_and(|bound| now >= bound) {
            let message =
                format!("{name} must stop without a lease and there is not enough of one");
            return Err(DriverError::transient(Cause::Lease, message));
        }
        job.state = JobState {
            phase: Phase::Running,
            guard_pid: pid,
            pids: vec![pid + 1],
            started_at_boot_ms: now,
            restarts: if job.state.guard_pid == 0 { 0 } else { job.state.restarts + 1 },
            boot_id,
            isolation: isolation(),
            exit: None,
        };
        job.ends = None;
        job.output.extend(&script.output);
        if let Some((after, code)) = script.ends_after {
            let reason = if code == 0 { ExitReason::Completed } else { ExitReason::Crashed };
            let mut exit = JobExit::because(reason, format!("it ended with code {code}"));
            exit.code = Some(code);
            job.ends_at(now.saturating_add(after), exit);
        }
        if script.cannot_start {
            let message = format!("{name} cannot be started, as scripted");
            job.state.phase = Phase::Exited;
            job.state.pids.clear();
            job.state.exit = Some(JobExit::because(ExitReason::StartFailed, message.clone()));
            return Err(DriverError::permanent(Cause::Program, message));
        }
        self.next_pid += 2;
        Ok(script.start_ms)
    }

    /// Asks a job to stop; the time until it has.
    pub(super) fn stop(&mut self, name: &JobId, grace_ms: u64) -> Result<u64, DriverError> {
        let now = self.now();
        let spec = self.job(name)?.spec.clone();
        let stop_ms = self.script_of(&spec).stop_ms;
        let job = self.job(name)?;
        if !job.is_up() {
            return Ok(0);
        }
        job.stop(now, grace_ms, stop_ms, ExitReason::Stopped);
        job.state.phase = Phase::Stopping;
        Ok(job.ends.as_ref().map_or(0, |(at, _)| at.saturating_sub(now)))
    }
}

pub(super) fn isolation() -> Isolation {
    Isolation {
        containment: Containment::PidNamespace,
        memory_limited: true,
        cpu_limited: true,
        pids_limited: true,
        shortfalls: Vec::new(),
    }
}

pub(super) fn running(job: &JobId) -> DriverError {
    DriverError::transient(Cause::Running, format!("{job} still runs"))
}
