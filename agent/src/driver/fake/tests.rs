//! The fake driver passes the conformance suite, in simulated time.

use super::*;
use crate::driver::conformance::{self, Behaviour, Bench, must, name};
use crate::driver::{Cause, ExitReason};
use crate::guard::spec::{LogLimits, ModuleSpec, OnDisconnect};

struct FakeBench {
    host: FakeHost,
    driver: Arc<FakeDriver>,
}

fn spec(app: &str, assignment: u64) -> JobSpec {
    JobSpec {
        tenant: "acme".into(),
        deployment: "shop".into(),
        app: app.into(),
        slot: "partition 0".into(),
        partition: Some(0),
        num_partitions: 1,
        assignment,
        driver: DriverKind::Exec,
        modules: vec![ModuleSpec {
            name: "main".into(),
            path: "/bin/true".into(),
            compiled: None,
            static_dir: None,
            args: Vec::new(),
            env: Vec::new(),
        }],
        data_dir: "/data".into(),
        limits: Default::default(),
        on_disconnect: OnDisconnect::KeepRunning,
        stop_grace_ms: 1_000,
        kill_margin_ms: 500,
        logs: LogLimits::default(),
        lease: Default::default(),
        cgroup: String::new(),
    }
}

impl Bench for FakeBench {
    fn driver(&self) -> Arc<dyn Driver> {
        self.driver.clone()
    }

    fn spec(&self, behaviour: Behaviour, assignment: u64) -> JobSpec {
        let ready = Script { output: b"ready\n".to_vec(), start_ms: 5, ..Script::default() };
        let (app, script) = match behaviour {
            Behaviour::RunsUntilStopped => ("runs".to_owned(), Script { stop_ms: 20, ..ready }),
            Behaviour::IgnoresStop => ("ignores".to_owned(), Script { stop_ms: u64::MAX, ..ready }),
            Behaviour::EndsWith(code) => {
                (format!("ends-{code}"), Script { ends_after: Some((3, code.into())), ..ready })
            }
            Behaviour::CannotStart => ("cannot".to_owned(), Script { cannot_start: true, ..ready }),
        };
        self.host.script(app.clone(), script);
        spec(&app, assignment)
    }

    fn restart_agent(&mut self) -> BoxFuture<'_, ()> {
        self.driver = Arc::new(self.host.driver());
        futures::future::ready(()).boxed()
    }

    fn kill_guard<'a>(&'a self, job: &'a JobId, _state: &'a JobState) -> BoxFuture<'a, ()> {
        assert!(self.host.kill_guard(job));
        futures::future::ready(()).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn the_fake_driver_keeps_the_contract() {
    let host = FakeHost::new();
    let driver = Arc::new(host.driver());
    conformance::run(&mut FakeBench { host, driver }).await;
}

#[tokio::test(start_paused = true)]
async fn a_restarted_host_has_lost_its_jobs_and_its_lease() {
    let host = FakeHost::new();
    let (driver, job) = (host.driver(), name("a"));
    sleep(Duration::from_secs(100)).await;
    must(driver.renew(driver.boottime_ms() + 60_000).await, "renew");
    let fenced = JobSpec { on_disconnect: OnDisconnect::Stop, ..spec("runs", 1) };
    must(driver.prepare(&job, fenced).await, "prepare");
    must(driver.start(&job).await, "start");
    assert_eq!(host.running().len(), 1);
    host.restart();
    assert!(host.running().is_empty());
    let state = must(driver.probe(&job).await, "probe");
    assert_eq!(state.exit.map(|exit| exit.reason), Some(ExitReason::GuardLost));
    let refused = driver.start(&job).await;
    assert_eq!(refused.err().map(|error| error.cause()), Some(Cause::Lease));
}
