//! Native executables under guards.

use std::process::Command;
use std::time::Duration;

use agent::cgroup::{Cgroups, Controller};
use agent::driver::conformance::{self, must, name, until};
use agent::driver::{Driver, DriverKind, ExitReason, JobState, Phase};
use agent::guard::spec::{LogLimits, OnDisconnect};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bench::{Room, gone, is_root, marked, memory_kib, wait};

fn exited(state: &JobState) -> bool {
    state.phase == Phase::Exited
}

fn reason(state: &JobState) -> Option<ExitReason> {
    state.exit.as_ref().map(|exit| exit.reason)
}

pub(crate) async fn the_exec_driver_keeps_the_contract() {
    conformance::run(&mut Room::open(DriverKind::Exec).await).await;
}

/// The pids of a whole family that is up: it, a child, an orphan and one in its own session.
async fn family(mark: &str) -> Vec<u32> {
    // The orphan's parent is gone when four processes are left that are not on their way.
    let members = || {
        let all = marked(mark);
        let words =
            |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        all.into_iter()
            .filter(|pid| !words(pid).contains("again-") || words(pid).contains("member"))
            .collect::<Vec<_>>()
    };
    wait("a family of four", || members().len() == 4).await;
    members()
}

pub(crate) async fn a_stop_reaches_the_whole_family() {
    let (room, job) = (Room::open(DriverKind::Exec).await, name("family"));
    let mark = format!("stop-{}", std::process::id());
    room.up(&job, room.exec(&["family", &mark])).await;
    let pids = family(&mark).await;
    let state = must(room.driver.stop(&job, 200).await, "stop");
    assert!(state.exit.as_ref().is_some_and(|exit| exit.killed), "{state:?}");
    assert_eq!(marked(&mark), Vec::<u32>::new(), "of {pids:?}");
}

pub(crate) async fn a_killed_guard_takes_its_whole_family_along() {
    let (room, job) = (Room::open(DriverKind::Exec).await, name("family"));
    let mark = format!("kill-{}", std::process::id());
    let state = room.up(&job, room.exec(&["family", &mark])).await;
    let pids = family(&mark).await;
    assert!(state.pids.iter().all(|pid| pids.contains(pid)), "{state:?} {pids:?}");
    kill(Pid::from_raw(state.guard_pid.cast_signed()), Signal::SIGKILL).unwrap();
    gone(&pids).await;
    let state = must(room.driver.probe(&job).await, "probe");
    assert_eq!(reason(&state), Some(ExitReason::GuardLost));
}

pub(crate) async fn the_lease_ends_a_stop_job_without_any_agent() {
    let (mut room, job) = (Room::open(DriverKind::Exec).await, name("fenced"));
    let mark = format!("lease-{}", std::process::id());
    let mut spec = room.exec(&["family", &mark]);
    spec.on_disconnect = OnDisconnect::Stop;
    spec.stop_grace_ms = 200;
    spec.kill_margin_ms = 300;
    let deadline = room.driver.boottime_ms() + 3_000;
    must(room.driver.renew(deadline).await, "renew");
    room.up(&job, spec).await;
    family(&mark).await;
    // From here on nobody but the guard does anything: only /proc is looked at.
    let driver = room.driver.clone();
    wait("the lease's end", || {
        let now = driver.boottime_ms();
        let alive = marked(&mark).len();
        assert!(
            alive == 0 || now <= deadline,
            "{alive} alive {} ms late",
            now.saturating_sub(deadline)
        );
        alive == 0 && now > deadline
    })
    .await;
    conformance::Bench::restart_agent(&mut room).await;
    let state = must(room.driver.probe(&job).await, "probe");
    assert_eq!(reason(&state), Some(ExitReason::LeaseExpired), "{state:?}");
}

pub(crate) async fn a_job_that_is_over_its_memory_says_so() {
    if Cgroups::detect().version(Controller::Memory).is_none() || !is_root() {
        assert!(
            !(is_root() && std::env::var_os("CI").is_some()),
            "CI as root must have memory groups"
        );
        println!("skipped: no right or no controller to limit memory");
        return;
    }
    let (room, job) = (Room::open(DriverKind::Exec).await, name("hog"));
    let mut spec = room.exec(&["hog"]);
    spec.limits.memory_bytes = Some(64 << 20);
    let state = room.up(&job, spec).await;
    assert!(state.isolation.memory_limited, "{state:?}");
    let state = until(&*room.driver, &job, "be killed for memory", exited).await;
    assert_eq!(reason(&state), Some(ExitReason::Oom), "{state:?}");
    must(room.driver.remove(&job).await, "remove");
}

pub(crate) async fn logs_are_bounded() {
    let (room, job) = (Room::open(DriverKind::Exec).await, name("spam"));
    let mut spec = room.exec(&["spam"]);
    spec.logs = LogLimits { file_bytes_max: 100 << 10, files_max: 3 };
    room.up(&job, spec).await;
    let state = until(&*room.driver, &job, "write a megabyte and end", exited).await;
    assert_eq!(reason(&state), Some(ExitReason::Completed), "{state:?}");
    let files = std::fs::read_dir(room.job_dir(&job)).unwrap().flatten();
    let logs = files.filter(|file| file.file_name().to_string_lossy().starts_with("stdout."));
    let sizes: Vec<u64> = logs.map(|file| file.metadata().unwrap().len()).collect();
    assert_eq!(sizes.len(), 3);
    assert!(sizes.iter().all(|size| *size <= 100 << 10), "{sizes:?}");
    let kept = room.stdout(&job).await;
    assert!(kept.len() > 200 << 10 && kept.ends_with("xx\n"), "the newest is kept");
}

pub(crate) async fn a_second_guard_is_refused() {
    let (room, job) = (Room::open(DriverKind::Exec).await, name("one"));
    let before = room.up(&job, room.exec(&["run"])).await;
    let mut second = Command::new(std::env::current_exe().unwrap());
    let output = second.args(["guard", "--dir"]).arg(room.job_dir(&job)).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("another guard holds the job"), "{said}");
    assert_eq!(must(room.driver.probe(&job).await, "probe"), before, "the first is undisturbed");
    must(room.driver.stop(&job, 1_000).await, "stop");
}

pub(crate) async fn a_guard_that_hangs_is_killed_by_a_stop() {
    let root = Room::open(DriverKind::Exec).await;
    let (room, job) = (root, name("hung"));
    let state = room.up(&job, room.exec(&["run"])).await;
    kill(Pid::from_raw(state.guard_pid.cast_signed()), Signal::SIGSTOP).unwrap();
    let state = must(room.driver.stop(&job, 100).await, "stop");
    assert_eq!(reason(&state), Some(ExitReason::GuardLost), "{state:?}");
    gone(&state.pids).await;
}

pub(crate) async fn a_job_finds_its_surroundings() {
    let (room, job) = (Room::open(DriverKind::Exec).await, name("env"));
    room.up(&job, room.exec(&["env"])).await;
    let state = until(&*room.driver, &job, "end", exited).await;
    let said = room.stdout(&job).await;
    let data = std::fs::canonicalize(room.path("data")).unwrap();
    for line in [
        "COLOUR=green".to_owned(),
        "MUSTER_APP=till".to_owned(),
        "MUSTER_DEPLOYMENT=shop".to_owned(),
        "MUSTER_NUM_PARTITIONS=5".to_owned(),
        "MUSTER_PARTITION=2".to_owned(),
        "MUSTER_TENANT=acme".to_owned(),
        format!("MUSTER_DATA_DIR={}", data.display()),
        format!("cwd={}", data.display()),
    ] {
        assert!(said.lines().any(|said| said == line), "no {line} in {said}");
    }
    assert!(!said.contains("CARGO"), "the agent's environment is not the job's: {said}");
    let value = |key: &str| said.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
    // Not everyone may mount a /proc of their own; then the state has to say so.
    let told = state.isolation.shortfalls.iter().any(|shortfall| shortfall.contains("/proc"));
    assert_eq!(value("pid=") == value("proc="), !told, "{said} {state:?}");
    must(room.driver.remove(&job).await, "remove");
    assert!(room.path("data/left-behind").is_file(), "data outlives the job");
}

pub(crate) async fn data_is_deleted_when_that_is_asked_and_nothing_else() {
    let (room, job) = (Room::open(DriverKind::Exec).await, name("gone"));
    let mut spec = room.exec(&["run"]);
    let data = room.path("data");
    spec.data_dir = data.join("acme/shop/north/web/0");
    let other = data.join("acme/shop/north/web/1");
    std::fs::create_dir_all(&other).unwrap();
    room.up(&job, spec.clone()).await;
    let outside = room.path("precious");
    std::fs::create_dir_all(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, spec.data_dir.join("link")).unwrap();
    std::fs::write(outside.join("file"), "x").unwrap();
    must(room.driver.stop(&job, 200).await, "stop");
    must(room.driver.remove(&job).await, "remove");
    assert!(spec.data_dir.is_dir(), "data outlives the job");

    let above = data.join("acme/../../precious");
    for dir in [&outside, &data, &above] {
        let refused = room.driver.remove_data(dir).await;
        assert!(refused.is_err_and(|error| !error.is_transient()), "{}", dir.display());
    }
    must(room.driver.remove_data(&spec.data_dir).await, "delete the data");
    must(room.driver.remove_data(&spec.data_dir).await, "delete the data again");
    assert!(!spec.data_dir.exists() && other.is_dir() && outside.join("file").is_file());
    must(room.driver.remove_data(&other).await, "delete the last of it");
    assert!(!data.join("acme").exists() && data.is_dir(), "no empty folders are left");
}

pub(crate) async fn data_of_before_owners_were_kept_goes_to_the_first_that_starts() {
    let (room, job) = (Room::open(DriverKind::Exec).await, name("kept"));
    let data = room.path("data/acme/shop/north/web");
    std::fs::create_dir_all(data.join("0")).unwrap();
    std::fs::write(data.join("0/file"), "kept").unwrap();
    let mut spec = room.exec(&["run"]);
    for (owner, file) in [("0@41-0", true), ("0@77-0", false), ("0@41-0", true)] {
        spec.data_dir = data.join(owner);
        room.up(&job, spec.clone()).await;
        assert_eq!(spec.data_dir.join("file").is_file(), file, "{owner}");
        assert!(!data.join("0").exists());
        must(room.driver.stop(&job, 200).await, "stop");
    }
}

pub(crate) async fn the_first_module_that_fails_ends_the_job() {
    let (room, job) = (Room::open(DriverKind::Exec).await, name("two"));
    let mut spec = room.exec(&["run"]);
    let mut failing = room.exec(&["end", "9"]).modules.remove(0);
    failing.name = "failing".into();
    spec.modules.push(failing);
    room.up(&job, spec).await;
    let state = until(&*room.driver, &job, "end as a whole", exited).await;
    let exit = state.exit.unwrap();
    assert_eq!(
        (exit.reason, exit.code, exit.module.as_deref()),
        (ExitReason::Crashed, Some(9), Some("failing"))
    );
}

pub(crate) async fn guards_are_small() {
    let (room, job) = (Room::open(DriverKind::Exec).await, name("small"));
    let state = room.up(&job, room.exec(&["run"])).await;
    let (rss, pss) = memory_kib(state.guard_pid);
    let init = std::fs::read_to_string(format!("/proc/{}/stat", state.pids[0])).unwrap();
    let init: u32 = init.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
    let (init_rss, init_pss) = memory_kib(init);
    println!(
        "exec guard: rss {rss} KiB, pss {pss} KiB; its init: rss {init_rss} KiB, pss {init_pss} KiB"
    );
    assert!(rss < 10 << 10 && init_rss < 10 << 10, "guard {rss} KiB, init {init_rss} KiB");
    must(room.driver.stop(&job, Duration::from_secs(5).as_millis() as u64).await, "stop");
}
