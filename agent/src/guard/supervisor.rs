//! The loop of a guard: one thread, one `poll`, one state.
//!
//! It waits for the job's news, its output, requests, signals and the next deadline, and decides
//! when the job must end. The first cause of an end is the one reported. A `stop` job's lease is
//! read again only when the deadline known last comes near, so a quiet guard sleeps.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::poll::PollTimeout;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::driver::LogStream;
use crate::guard::control::{Control, Request};
use crate::guard::exec::{self, ExecJob};
use crate::guard::files::{self, Lease};
use crate::guard::init::News;
use crate::guard::logs::RotatedLog;
use crate::guard::spec::{DriverKind, JobSpec, OnDisconnect};
use crate::guard::state::{Containment, ExitReason, Isolation, JobExit, JobState, Phase};
use crate::guard::workload::{Launched, announce, copy, readable};

/// How long a workload that dies with the guard may take to die without.
const ABANDON_MS: u64 = 300;
/// How much output is still taken after the end: what the two pipes can hold.
const DRAIN_READS_MAX: usize = 64;

struct Stopping {
    exit: JobExit,
    kill_at_ms: u64,
    killed: bool,
}

/// One job under supervision.
pub(crate) struct Supervisor {
    dir: PathBuf,
    spec: JobSpec,
    state: JobState,
    control: Control,
    signals: SignalFd,
    timer: TimerFd,
    stdout: RotatedLog,
    stderr: RotatedLog,
    news: Vec<u8>,
    alive: usize,
    stopping: Option<Stopping>,
}

impl Supervisor {
    /// Opens everything the loop waits for. The caller holds the job's lock.
    pub(crate) fn new(dir: PathBuf, spec: JobSpec, state: JobState) -> io::Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.add(Signal::SIGINT);
        mask.add(Signal::SIGHUP);
        mask.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let timer_flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self {
            control: Control::open(&dir)?,
            signals: SignalFd::with_flags(&mask, flags)?,
            timer: TimerFd::new(ClockId::CLOCK_BOOTTIME, timer_flags)?,
            stdout: RotatedLog::open(&dir, LogStream::Stdout, &spec.logs)?,
            stderr: RotatedLog::open(&dir, LogStream::Stderr, &spec.logs)?,
            news: Vec::new(),
            alive: spec.modules.len(),
            stopping: None,
            dir,
            spec,
            state,
        })
    }

    /// Runs the job to its end. Errors: its state could not be written.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        self.publish()?;
        match self.launch() {
            Ok(mut launched) => self.supervise(&mut launched)?,
            Err(exit) => self.end(exit)?,
        }
        let answer = self.answer();
        self.control.answer_all(&answer);
        Ok(())
    }

    fn launch(&mut self) -> Result<Launched, JobExit> {
        if self.lease_bound().is_some_and(|stop_at| files::boottime_ms() >= stop_at) {
            return Err(JobExit::because(
                ExitReason::LeaseExpired,
                "not started: the host has no lease that outlasts the job's stop",
            ));
        }
        let mut isolation = Isolation::default();
        let launched = match self.spec.driver {
            DriverKind::Exec => {
                exec::contain(&mut isolation);
                self.check(&isolation)?;
                ExecJob::launch(&self.dir, &self.spec, &mut isolation)
            }
            #[cfg(feature = "driver-wasm")]
            DriverKind::Wasm => super::wasm::launch(&self.dir, &self.spec, &mut isolation),
            #[cfg(not(feature = "driver-wasm"))]
            DriverKind::Wasm => Err(io::Error::other("this build has no wasm driver")),
        };
        self.state.isolation = isolation;
        launched.map_err(|error| {
            JobExit::because(ExitReason::StartFailed, format!("cannot start the job: {error}"))
        })
    }

    /// A `stop` job promises to be gone; a guard that cannot keep that refuses it.
    fn check(&self, isolation: &Isolation) -> Result<(), JobExit> {
        let kept = isolation.containment > Containment::ProcessGroup;
        if kept || self.spec.on_disconnect != OnDisconnect::Stop {
            return Ok(());
        }
        let message = format!("not started: {}", isolation.shortfalls.join("; "));
        Err(JobExit::because(ExitReason::StartFailed, message))
    }

    /// When the stop for want of a lease begins, for a job that has to.
    fn lease_bound(&self) -> Option<u64> {
        let reserve = self.spec.stop_grace_ms.saturating_add(self.spec.kill_margin_ms);
        self.lease_deadline().map(|deadline| deadline.saturating_sub(reserve))
    }

    fn lease_deadline(&self) -> Option<u64> {
        (self.spec.on_disconnect == OnDisconnect::Stop)
            .then(|| Lease::deadline(&self.spec.lease, &self.state.boot_id))
    }

    fn supervise(&mut self, launched: &mut Launched) -> io::Result<()> {
        loop {
            let wake_at = self.keep_deadlines(launched);
            let Some(wake_at) = wake_at else { break };
            self.arm(wake_at.min(self.control.wake_at_ms()))?;
            if self.wait(launched)? {
                break;
            }
        }
        if self.stopping.as_ref().is_none_or(|stopping| !stopping.killed) {
            // Nothing is left, or only its init's remains.
            launched.workload.kill();
        }
        let oom = launched.workload.oom();
        launched.workload.finish();
        self.drain(launched);
        let mut exit = match self.stopping.take() {
            Some(stopping) => {
                JobExit { killed: stopping.killed || stopping.exit.killed, ..stopping.exit }
            }
            None => JobExit::because(ExitReason::Crashed, "the job's first process was killed"),
        };
        if oom && exit.reason == ExitReason::Crashed {
            exit.reason = ExitReason::Oom;
            exit.message = format!("{}; it was over its memory limit", exit.message);
        }
        self.end(exit)
    }

    /// Does what is due and says when to look again; `None` when there is nothing to wait for.
    fn keep_deadlines(&mut self, launched: &mut Launched) -> Option<u64> {
        let now = files::boottime_ms();
        if self.stopping.is_none()
            && let Some(stop_at) = self.lease_bound()
        {
            if now < stop_at {
                return Some(stop_at);
            }
            let exit =
                JobExit::because(ExitReason::LeaseExpired, "the host's lease was not renewed");
            self.stop(launched, exit, self.spec.stop_grace_ms);
        }
        let Some(stopping) = &mut self.stopping else { return Some(u64::MAX) };
        if stopping.killed {
            let abandon_at = stopping.kill_at_ms.saturating_add(ABANDON_MS);
            if !launched.workload.dies_with_guard() {
                return Some(u64::MAX);
            }
            return (now < abandon_at).then_some(abandon_at);
        }
        if now >= stopping.kill_at_ms {
            stopping.killed = true;
            stopping.kill_at_ms = now;
            launched.workload.kill();
        }
        Some(stopping.kill_at_ms.saturating_add(if stopping.killed { ABANDON_MS } else { 0 }))
    }

    /// Begins the end of the job, or brings it forward if it has begun.
    fn stop(&mut self, launched: &mut Launched, exit: JobExit, grace_ms: u64) {
        let now = files::boottime_ms();
        let mut kill_at_ms = now.saturating_add(grace_ms);
        if let Some(deadline) = self.lease_deadline() {
            kill_at_ms = kill_at_ms.min(deadline.saturating_sub(self.spec.kill_margin_ms));
        }
        match &mut self.stopping {
            Some(stopping) if stopping.killed => {}
            Some(stopping) => stopping.kill_at_ms = stopping.kill_at_ms.min(kill_at_ms),
            None => {
                let heard = kill_at_ms > now && launched.workload.ask_to_stop();
                let kill_at_ms = if heard { kill_at_ms } else { now };
                self.stopping = Some(Stopping { exit, kill_at_ms, killed: false });
                self.state.phase = Phase::Stopping;
                // The state that matters is the exit's; this one only informs.
                drop(self.publish());
            }
        }
    }

    fn arm(&self, wake_at_ms: u64) -> io::Result<()> {
        if wake_at_ms == u64::MAX {
            return Ok(self.timer.unset()?);
        }
        // A zero time would disarm the timer instead of firing it.
        let wake_at_ms = wake_at_ms.max(1);
        let seconds = i64::try_from(wake_at_ms / 1_000).unwrap_or(i64::MAX);
        let nanoseconds = i64::try_from(wake_at_ms % 1_000).unwrap_or(0) * 1_000_000;
        let at = Expiration::OneShot(TimeSpec::new(seconds, nanoseconds));
        Ok(self.timer.set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?)
    }

    /// Waits for something to happen and takes it in. True when nothing of the job is left.
    fn wait(&mut self, launched: &mut Launched) -> io::Result<bool> {
        let ready = {
            let fixed = [
                launched.news.as_fd(),
                launched.stdout.as_fd(),
                launched.stderr.as_fd(),
                self.signals.as_fd(),
                self.timer.as_fd(),
            ];
            let fds: Vec<_> = fixed.into_iter().chain(self.control.fds()).collect();
            readable(&fds, PollTimeout::NONE)?
        };
        let is_ready = |number: usize| ready.get(number).copied().unwrap_or(false);
        if is_ready(1) {
            copy(&mut launched.stdout, &mut self.stdout);
        }
        if is_ready(2) {
            copy(&mut launched.stderr, &mut self.stderr);
        }
        if is_ready(3)
            && let Ok(Some(signal)) = self.signals.read_signal()
        {
            let message = format!("the guard got signal {}", signal.ssi_signo);
            let exit = JobExit::because(ExitReason::Stopped, message);
            self.stop(launched, exit, self.spec.stop_grace_ms);
        }
        if is_ready(4) {
            // Reading it clears it; the deadlines are looked at before every wait.
            let _ = self.timer.wait();
        }
        for (number, request) in self.control.requests(files::boottime_ms()) {
            match request {
                Request::Status => {
                    self.state.pids = launched.workload.pids();
                    let answer = self.answer();
                    self.control.answer(number, &answer);
                }
                Request::Stop { grace_ms } => {
                    self.control.keep(number);
                    let exit = JobExit::because(ExitReason::Stopped, "it was told to stop");
                    self.stop(launched, exit, grace_ms);
                }
            }
        }
        if is_ready(0) { self.hear(launched) } else { Ok(false) }
    }

    /// Takes in the job's news. True when nothing of the job is left.
    fn hear(&mut self, launched: &mut Launched) -> io::Result<bool> {
        let mut buffer = vec![0; 4 << 10];
        let count = match launched.news.read(&mut buffer) {
            Ok(count) => count,
            // The other end was killed with data unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(error),
        };
        self.news.extend_from_slice(&buffer[..count]);
        while let Some(end) = self.news.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.news.drain(..=end).collect();
            if self.take(launched, serde_json::from_slice(&line)?)? {
                return Ok(true);
            }
        }
        Ok(count == 0)
    }

    fn take(&mut self, launched: &mut Launched, news: News) -> io::Result<bool> {
        match news {
            News::Shortfall(message) => self.state.isolation.shortfalls.push(message),
            News::Started => {
                if self.stopping.is_none() {
                    self.state.phase = Phase::Running;
                }
                self.state.pids = launched.workload.pids();
                self.publish()?;
                announce();
            }
            News::StartFailed { module, message } => {
                let mut exit = JobExit::because(ExitReason::StartFailed, message);
                exit.module = Some(module).filter(|module| !module.is_empty());
                self.stop(launched, exit, 0);
            }
            News::Ended { module, code, signal, oom, message } => {
                self.alive = self.alive.saturating_sub(1);
                let module = self.spec.modules.get(module).map(|module| module.name.clone());
                self.ended(
                    launched,
                    JobExit {
                        reason: reason(code, oom),
                        code,
                        signal,
                        module,
                        killed: false,
                        message,
                    },
                );
            }
            News::Empty => return Ok(true),
        }
        Ok(false)
    }

    /// A module ended: the first that fails, or the last that completes, ends the job.
    fn ended(&mut self, launched: &mut Launched, mut exit: JobExit) {
        if let Some(stopping) = &mut self.stopping {
            if stopping.exit.module.is_none() && stopping.exit.code.is_none() {
                stopping.exit.code = exit.code;
                stopping.exit.signal = exit.signal;
            }
            return;
        }
        if exit.reason == ExitReason::Completed && self.alive > 0 {
            return;
        }
        if exit.message.is_empty() {
            let module = exit.module.as_deref().unwrap_or("a module");
            exit.message = match (exit.code, exit.signal) {
                (Some(code), _) => format!("{module} ended with code {code}"),
                (None, Some(signal)) => format!("{module} was ended by signal {signal}"),
                (None, None) => format!("{module} ended"),
            };
        }
        self.stop(launched, exit, self.spec.stop_grace_ms);
    }

    /// Takes what is left in the pipes; a writer that still lives is not waited for.
    fn drain(&mut self, launched: &mut Launched) {
        for (pipe, log) in
            [(&mut launched.stdout, &mut self.stdout), (&mut launched.stderr, &mut self.stderr)]
        {
            for _ in 0..DRAIN_READS_MAX {
                let ready = readable(&[pipe.as_fd()], PollTimeout::ZERO);
                if !ready.is_ok_and(|ready| ready[0]) || copy(pipe, log) == 0 {
                    break;
                }
            }
        }
    }

    fn end(&mut self, exit: JobExit) -> io::Result<()> {
        self.state.phase = Phase::Exited;
        self.state.pids.clear();
        self.state.exit = Some(exit);
        self.publish()
    }

    fn answer(&self) -> String {
        serde_json::to_string(&self.state).unwrap_or_default()
    }

    fn publish(&self) -> io::Result<()> {
        files::write_json(&self.dir.join(files::STATE), &self.state)
    }
}

fn reason(code: Option<i32>, oom: bool) -> ExitReason {
    match (code, oom) {
        (_, true) => ExitReason::Oom,
        (Some(0), false) => ExitReason::Completed,
        (_, false) => ExitReason::Crashed,
    }
}
