//! The suite every driver passes: what the sentences of the contract mean.
//!
//! A `Bench` supplies a driver, jobs that behave in a known way, and the accidents: an agent that
//! starts again, a guard that is killed. The real driver runs it with real processes, the fake one
//! in simulated time; what one allows and the other does not is a bug in one of them. The suite
//! panics with the broken sentence.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};

use crate::driver::{
    Cause, Driver, DriverError, ExitReason, JobId, JobSpec, JobState, LogPosition, LogStream, Phase,
};
use crate::guard::spec::OnDisconnect;

/// What a job of the suite does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Writes `ready` and a line end to stdout, then runs until it is asked to stop.
    RunsUntilStopped,
    /// Does the same and does not end when asked.
    IgnoresStop,
    /// Ends at once with this code.
    EndsWith(u8),
    /// Its program cannot be run.
    CannotStart,
}

/// A driver in surroundings that the suite can disturb.
pub trait Bench: Send {
    /// The driver as the agent holds it now.
    fn driver(&self) -> Arc<dyn Driver>;
    /// A job with the behaviour. Equal arguments give equal specifications.
    fn spec(&self, behaviour: Behaviour, assignment: u64) -> JobSpec;
    /// The agent dies and starts again.
    fn restart_agent(&mut self) -> BoxFuture<'_, ()>;
    /// Kills the guard of a job that has this state, and returns when it is dead.
    fn kill_guard<'a>(&'a self, job: &'a JobId, state: &'a JobState) -> BoxFuture<'a, ()>;
}

const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);
const GRACE_MS: u64 = 10_000;

/// Runs the whole suite.
pub async fn run(bench: &mut dyn Bench) {
    a_job_goes_from_prepared_to_removed(bench).await;
    a_job_that_ends_by_itself_says_how(bench).await;
    a_job_that_ignores_the_stop_is_killed(bench).await;
    trouble_is_told_by_its_cause(bench).await;
    a_restarted_agent_finds_its_jobs_untouched(bench).await;
    a_killed_guard_is_reported_and_replaced(bench).await;
    a_stop_job_lives_by_the_lease(bench).await;
}

/// The answer, or a panic that names what was attempted.
pub fn must<T>(answer: Result<T, DriverError>, what: &str) -> T {
    match answer {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error:?}"),
    }
}

/// A job's name; panics if it is none.
pub fn name(text: &str) -> JobId {
    match JobId::new(text) {
        Ok(job) => job,
        Err(error) => panic!("{error}"),
    }
}

/// Probes until the state is as wanted; panics when patience ends.
pub async fn until(
    driver: &dyn Driver,
    job: &JobId,
    what: &str,
    wanted: impl Fn(&JobState) -> bool,
) -> JobState {
    let begun = Instant::now();
    loop {
        let state = must(driver.probe(job).await, what);
        if wanted(&state) {
            return state;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: still {state:?}");
        sleep(LOOK).await;
    }
}

fn reason(state: &JobState) -> Option<ExitReason> {
    state.exit.as_ref().map(|exit| exit.reason)
}

fn cause<T: std::fmt::Debug>(answer: Result<T, DriverError>) -> Option<(Cause, bool)> {
    answer.err().map(|error| (error.cause(), error.is_transient()))
}

async fn a_job_goes_from_prepared_to_removed(bench: &mut dyn Bench) {
    let (driver, job) = (bench.driver(), name("a"));
    let spec = bench.spec(Behaviour::RunsUntilStopped, 1);
    assert_eq!(cause(driver.probe(&job).await), Some((Cause::Unknown, false)));
    assert_eq!(cause(driver.start(&job).await), Some((Cause::Unknown, false)));
    must(driver.prepare(&job, spec.clone()).await, "prepare");
    must(driver.prepare(&job, spec.clone()).await, "prepare again");
    assert_eq!(must(driver.probe(&job).await, "probe").phase, Phase::Prepared);
    must(driver.stop(&job, GRACE_MS).await, "stop what never ran");

    let started = must(driver.start(&job).await, "start");
    assert_eq!(started.phase, Phase::Running, "{started:?}");
    assert!(started.started_at_boot_ms <= driver.boottime_ms());
    let again = must(driver.start(&job).await, "start again");
    assert_eq!((again.guard_pid, again.pids), (started.guard_pid, started.pids), "left alone");
    must(driver.prepare(&job, spec).await, "prepare the same while it runs");
    let other = bench.spec(Behaviour::RunsUntilStopped, 2);
    assert_eq!(cause(driver.prepare(&job, other).await), Some((Cause::Running, true)));
    assert_eq!(cause(driver.remove(&job).await), Some((Cause::Running, true)));
    the_log_is_readable(&*driver, &job).await;

    let stopped = must(driver.stop(&job, GRACE_MS).await, "stop");
    assert_eq!(stopped.phase, Phase::Exited);
    assert_eq!(reason(&stopped), Some(ExitReason::Stopped), "{stopped:?}");
    assert!(stopped.exit.as_ref().is_some_and(|exit| !exit.killed), "{stopped:?}");
    assert_eq!(must(driver.stop(&job, GRACE_MS).await, "stop again"), stopped);
    must(driver.remove(&job).await, "remove");
    must(driver.remove(&job).await, "remove again");
    assert_eq!(cause(driver.probe(&job).await), Some((Cause::Unknown, false)));
}

async fn the_log_is_readable(driver: &dyn Driver, job: &JobId) {
    let (mut position, mut text) = (LogPosition::default(), Vec::<u8>::new());
    let begun = Instant::now();
    while text.as_slice() != b"ready\n" {
        let read = driver.logs(job, LogStream::Stdout, position, 4).await;
        let chunk = must(read, "logs");
        assert!(chunk.bytes.len() <= 4, "no more than asked for");
        text.extend(&chunk.bytes);
        position = chunk.next;
        assert!(begun.elapsed() < PATIENCE, "the log has only {text:?}");
        sleep(LOOK).await;
    }
}

async fn a_job_that_ends_by_itself_says_how(bench: &mut dyn Bench) {
    let (driver, job) = (bench.driver(), name("b"));
    let exited = |state: &JobState| state.phase == Phase::Exited;
    for (code, expected) in [(3, ExitReason::Crashed), (0, ExitReason::Completed)] {
        must(driver.prepare(&job, bench.spec(Behaviour::EndsWith(code), 1)).await, "prepare");
        must(driver.start(&job).await, "start");
        let state = until(&*driver, &job, "end by itself", exited).await;
        assert_eq!(reason(&state), Some(expected), "{state:?}");
        assert_eq!(state.exit.as_ref().and_then(|exit| exit.code), Some(i32::from(code)));
        must(driver.start(&job).await, "start once more");
        let state = until(&*driver, &job, "end once more", exited).await;
        assert_eq!(state.restarts, 1, "{state:?}");
    }
    must(driver.remove(&job).await, "remove");
}

async fn a_job_that_ignores_the_stop_is_killed(bench: &mut dyn Bench) {
    let (driver, job) = (bench.driver(), name("c"));
    must(driver.prepare(&job, bench.spec(Behaviour::IgnoresStop, 1)).await, "prepare");
    must(driver.start(&job).await, "start");
    the_log_is_readable(&*driver, &job).await;
    let begun = driver.boottime_ms();
    let state = must(driver.stop(&job, 300).await, "stop");
    let took = driver.boottime_ms() - begun;
    assert_eq!(reason(&state), Some(ExitReason::Stopped), "{state:?}");
    assert!(state.exit.as_ref().is_some_and(|exit| exit.killed), "{state:?}");
    assert!((300..5_000).contains(&took), "killed after {took} ms");
    must(driver.remove(&job).await, "remove");
}

async fn trouble_is_told_by_its_cause(bench: &mut dyn Bench) {
    let (driver, job) = (bench.driver(), name("d"));
    must(driver.prepare(&job, bench.spec(Behaviour::CannotStart, 1)).await, "prepare");
    assert_eq!(cause(driver.start(&job).await), Some((Cause::Program, false)));
    let state = must(driver.probe(&job).await, "probe");
    assert_eq!(reason(&state), Some(ExitReason::StartFailed), "{state:?}");
    let mut empty = bench.spec(Behaviour::RunsUntilStopped, 1);
    empty.modules.clear();
    assert_eq!(cause(driver.prepare(&job, empty).await), Some((Cause::Spec, false)));
    must(driver.remove(&job).await, "remove");
}

async fn a_restarted_agent_finds_its_jobs_untouched(bench: &mut dyn Bench) {
    let (up, down) = (name("e.up"), name("e.down"));
    let spec = bench.spec(Behaviour::RunsUntilStopped, 7);
    let driver = bench.driver();
    must(driver.prepare(&up, spec.clone()).await, "prepare");
    must(driver.prepare(&down, spec).await, "prepare");
    let started = must(driver.start(&up).await, "start");
    drop(driver);
    bench.restart_agent().await;

    let driver = bench.driver();
    let found = must(driver.recover().await, "recover");
    let names: Vec<_> = found.iter().map(|found| found.job.as_str()).collect();
    assert_eq!(names, ["e.down", "e.up"]);
    assert_eq!(found[0].state.phase, Phase::Prepared);
    assert_eq!(found[1].spec.assignment, 7);
    assert_eq!(found[1].state, started, "the same guard, the same processes");
    let stopped = must(driver.stop(&up, GRACE_MS).await, "stop");
    assert_eq!(reason(&stopped), Some(ExitReason::Stopped));
    must(driver.remove(&up).await, "remove");
    must(driver.remove(&down).await, "remove");
}

async fn a_killed_guard_is_reported_and_replaced(bench: &mut dyn Bench) {
    let (driver, job) = (bench.driver(), name("f"));
    must(driver.prepare(&job, bench.spec(Behaviour::RunsUntilStopped, 1)).await, "prepare");
    let first = must(driver.start(&job).await, "start");
    bench.kill_guard(&job, &first).await;
    let lost = must(driver.probe(&job).await, "probe");
    assert_eq!(reason(&lost), Some(ExitReason::GuardLost), "{lost:?}");
    let second = must(driver.start(&job).await, "start again");
    assert_eq!((second.phase, second.restarts), (Phase::Running, 1));
    assert_ne!(second.guard_pid, first.guard_pid);
    must(driver.stop(&job, GRACE_MS).await, "stop");
    must(driver.remove(&job).await, "remove");
}

async fn a_stop_job_lives_by_the_lease(bench: &mut dyn Bench) {
    let (driver, fenced, free) = (bench.driver(), name("g.fenced"), name("g.free"));
    let mut spec = bench.spec(Behaviour::IgnoresStop, 1);
    must(driver.prepare(&free, spec.clone()).await, "prepare");
    must(driver.start(&free).await, "a job that keeps running needs no lease");
    spec.on_disconnect = OnDisconnect::Stop;
    spec.stop_grace_ms = 200;
    spec.kill_margin_ms = 300;
    must(driver.prepare(&fenced, spec).await, "prepare");
    assert_eq!(cause(driver.start(&fenced).await), Some((Cause::Lease, true)), "no lease yet");

    let first = driver.boottime_ms() + 2_000;
    must(driver.renew(first).await, "renew");
    must(driver.start(&fenced).await, "start under a lease");
    let last = driver.boottime_ms() + 4_000;
    must(driver.renew(last).await, "renew");
    must(driver.renew(first).await, "an older answer arrives late");
    until(&*driver, &fenced, "outlive the first deadline", |state| {
        assert_eq!(state.phase, Phase::Running, "renewed and yet {state:?}");
        driver.boottime_ms() > first
    })
    .await;
    let state = until(&*driver, &fenced, "end with the lease", |state| {
        let exited = state.phase == Phase::Exited;
        assert!(exited || driver.boottime_ms() <= last, "alive after the lease: {state:?}");
        exited
    })
    .await;
    assert_eq!(reason(&state), Some(ExitReason::LeaseExpired), "{state:?}");
    assert_eq!(must(driver.probe(&free).await, "probe").phase, Phase::Running);
    assert_eq!(cause(driver.start(&fenced).await), Some((Cause::Lease, true)), "still none");
    must(driver.renew(driver.boottime_ms() + 60_000).await, "renew");
    must(driver.start(&fenced).await, "start when the lease is back");
    for job in [&fenced, &free] {
        must(driver.stop(job, 0).await, "stop");
        must(driver.remove(job).await, "remove");
    }
}
