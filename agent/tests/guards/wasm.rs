//! WASI modules under guards. The modules are written as text; see `module`.

use agent::driver::conformance::{self, Behaviour, must, name, until};
use agent::driver::{Driver, DriverKind, ExitReason, JobState, Phase};
use tokio::time::Instant;

use crate::bench::{Room, memory_kib};

/// A module that imports what it needs and has a few words to act with.
fn text(start: &str) -> String {
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $env_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $env (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 100) "ready\n")
  (data (i32.const 120) "count")
  (func $write (param $fd i32) (param $at i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $length))
    (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 20))))
  (func $ready (call $write (i32.const 1) (i32.const 100) (i32.const 6)))
  (func $listen
    (i32.store (i32.const 0) (i32.const 200))
    (i32.store (i32.const 4) (i32.const 64))
    (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 20))))
  ;; one subscription at 304: clock 1, so many nanoseconds from now
  (func $sleep (param $nanoseconds i64)
    (i32.store (i32.const 320) (i32.const 1))
    (i64.store (i32.const 328) (local.get $nanoseconds))
    (drop (call $poll (i32.const 304) (i32.const 400) (i32.const 1) (i32.const 20))))
  (func $environment
    (drop (call $env_sizes (i32.const 500) (i32.const 504)))
    (drop (call $env (i32.const 1024) (i32.const 4096)))
    (call $write (i32.const 1) (i32.const 4096) (i32.load (i32.const 504))))
  ;; writes into the file `count` of the first preopened directory
  (func $keep
    (drop (call $open (i32.const 3) (i32.const 0) (i32.const 120) (i32.const 5) (i32.const 1)
      (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 24)))
    (call $write (i32.load (i32.const 24)) (i32.const 100) (i32.const 6)))
  (func (export "_start") {start}))"#
    )
}

/// The modules of the conformance suite.
pub(crate) fn module(behaviour: Behaviour) -> String {
    match behaviour {
        Behaviour::RunsUntilStopped => text("(call $ready) (call $listen)"),
        Behaviour::IgnoresStop => {
            text("(call $ready) (call $listen) (loop (call $sleep (i64.const 1000000)) (br 0))")
        }
        Behaviour::EndsWith(code) => text(&format!("(call $exit (i32.const {code}))")),
        Behaviour::CannotStart => {
            r#"(module (import "nobody" "knows" (func)) (func (export "_start")))"#.to_owned()
        }
    }
}

fn exited(state: &JobState) -> bool {
    state.phase == Phase::Exited
}

fn reason(state: &JobState) -> Option<ExitReason> {
    state.exit.as_ref().map(|exit| exit.reason)
}

pub(crate) async fn the_wasm_driver_keeps_the_contract() {
    conformance::run(&mut Room::open(DriverKind::Wasm).await).await;
}

pub(crate) async fn a_module_finds_its_surroundings() {
    let (room, job) = (Room::open(DriverKind::Wasm).await, name("env"));
    room.up(&job, room.wasm(&text("(call $environment) (call $keep)"))).await;
    let state = until(&*room.driver, &job, "end", exited).await;
    assert_eq!(reason(&state), Some(ExitReason::Completed), "{state:?}");
    let said = room.stdout(&job).await;
    for line in [
        "COLOUR=green",
        "MUSTER_APP=till",
        "MUSTER_DATA_DIR=/data",
        "MUSTER_DEPLOYMENT=shop",
        "MUSTER_NUM_PARTITIONS=5",
        "MUSTER_PARTITION=2",
        "MUSTER_TENANT=acme",
    ] {
        assert!(said.split('\0').any(|said| said == line), "no {line} in {said:?}");
    }
    assert_eq!(std::fs::read(room.path("data/count")).unwrap(), b"ready\n");
}

pub(crate) async fn a_module_that_computes_or_sleeps_is_ended_at_once() {
    let room = Room::open(DriverKind::Wasm).await;
    let sleeps = "(call $ready) (loop (call $sleep (i64.const 3600000000000)) (br 0))";
    let computes = "(call $ready) (loop (br 0))";
    let listens = "(call $ready) (call $listen) (loop (br 0))";
    for (job, start, grace_ms) in
        [("sleeps", sleeps, 60_000), ("computes", computes, 60_000), ("listens", listens, 300)]
    {
        let job = name(job);
        room.up(&job, room.wasm(&text(start))).await;
        room.until_stdout(&job, "ready").await;
        let begun = Instant::now();
        let state = must(room.driver.stop(&job, grace_ms).await, "stop");
        assert_eq!(reason(&state), Some(ExitReason::Stopped), "{state:?}");
        let took = begun.elapsed().as_millis();
        println!("{job} ended after {took} ms");
        assert!(took < 2_000, "{job} took {took} ms");
    }
}

pub(crate) async fn a_module_over_its_memory_says_so() {
    let (room, job) = (Room::open(DriverKind::Wasm).await, name("hog"));
    let mut spec = room.wasm(&text("(loop (drop (memory.grow (i32.const 16))) (br 0))"));
    spec.limits.memory_bytes = Some(8 << 20);
    room.up(&job, spec).await;
    let state = until(&*room.driver, &job, "be ended for memory", exited).await;
    assert_eq!(reason(&state), Some(ExitReason::Oom), "{state:?}");
}

pub(crate) async fn a_module_that_traps_has_crashed() {
    let (room, job) = (Room::open(DriverKind::Wasm).await, name("trap"));
    room.up(&job, room.wasm(&text("unreachable"))).await;
    let state = until(&*room.driver, &job, "crash", exited).await;
    let exit = state.exit.unwrap();
    assert_eq!((exit.reason, exit.code), (ExitReason::Crashed, None));
    assert!(exit.message.contains("unreachable"), "{exit:?}");
}

pub(crate) async fn compiled_code_is_reused_unless_it_is_damaged() {
    let (room, job) = (Room::open(DriverKind::Wasm).await, name("cached"));
    let spec = room.wasm(&text("(call $ready)"));
    must(room.driver.prepare(&job, spec.clone()).await, "prepare");
    let cached = || {
        let files =
            std::fs::read_dir(room.path("cache")).unwrap().flatten().map(|file| file.path());
        files
            .filter(|path| path.extension().is_some_and(|kind| kind == "cwasm"))
            .collect::<Vec<_>>()
    };
    let code = cached();
    assert_eq!(code.len(), 1);
    let written = || std::fs::metadata(&code[0]).unwrap().modified().unwrap();
    let first = written();
    must(room.driver.prepare(&name("other"), spec.clone()).await, "prepare");
    assert_eq!((cached().len(), written()), (1, first), "compiled once for both");

    let mut bytes = std::fs::read(&code[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&code[0], &bytes).unwrap();
    let refused = room.driver.start(&job).await;
    assert!(format!("{refused:?}").contains("is damaged"), "{refused:?}");
    must(room.driver.prepare(&job, spec).await, "prepare compiles again");
    must(room.driver.start(&job).await, "start");
}

pub(crate) async fn wasm_guards_are_small() {
    let (room, job) = (Room::open(DriverKind::Wasm).await, name("small"));
    let sleeps = "(call $ready) (loop (call $sleep (i64.const 3600000000000)) (br 0))";
    let state = room.up(&job, room.wasm(&text(sleeps))).await;
    room.until_stdout(&job, "ready").await;
    let (rss, pss) = memory_kib(state.guard_pid);
    println!("wasm guard: rss {rss} KiB, pss {pss} KiB");
    assert!(rss < 11 << 10, "{rss} KiB");
    must(room.driver.stop(&job, 1_000).await, "stop");
}
