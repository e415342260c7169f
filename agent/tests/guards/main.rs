//! Guards, drivers and limits with real processes.
//!
//! This binary is everything at once: called with `guard ..` it is a guard, its init or the
//! compiler, called with `job ..` it is a job (see `jobs`), otherwise it runs the tests, one after
//! the other, those whose name contains the first argument.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::zombie_processes,
    reason = "it is a test, its own harness, and a job that leaves its descendants behind"
)]

mod bench;
mod exec;
mod jobs;
mod wasm;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

type Test = (&'static str, fn() -> Pin<Box<dyn Future<Output = ()> + Send>>);

macro_rules! tests {
    ($($module:ident :: $name:ident),* $(,)?) => {
        [$((concat!(stringify!($module), "::", stringify!($name)), || Box::pin($module::$name()))),*]
    };
}

const TESTS: &[Test] = &tests![
    exec::the_exec_driver_keeps_the_contract,
    exec::a_stop_reaches_the_whole_family,
    exec::a_killed_guard_takes_its_whole_family_along,
    exec::the_lease_ends_a_stop_job_without_any_agent,
    exec::a_job_that_is_over_its_memory_says_so,
    exec::logs_are_bounded,
    exec::a_second_guard_is_refused,
    exec::a_guard_that_hangs_is_killed_by_a_stop,
    exec::a_job_finds_its_surroundings,
    exec::data_is_deleted_when_that_is_asked_and_nothing_else,
    exec::data_of_before_owners_were_kept_goes_to_the_first_that_starts,
    exec::the_first_module_that_fails_ends_the_job,
    exec::guards_are_small,
    wasm::the_wasm_driver_keeps_the_contract,
    wasm::a_module_finds_its_surroundings,
    wasm::a_module_that_computes_or_sleeps_is_ended_at_once,
    wasm::a_module_over_its_memory_says_so,
    wasm::a_module_that_traps_has_crashed,
    wasm::compiled_code_is_reused_unless_it_is_damaged,
    wasm::wasm_guards_are_small,
];

/// No test takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    if let Some(code) = agent::guard::dispatch(std::env::args_os().skip(1)) {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "job") {
        return jobs::main(&arguments[1..]);
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut failed = Vec::new();
    for (name, test) in TESTS {
        if filter.is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        let begun = tokio::time::Instant::now();
        let outcome =
            runtime.block_on(async { tokio::time::timeout(PATIENCE, tokio::spawn(test())).await });
        let passed = matches!(outcome, Ok(Ok(())));
        println!(
            "test {name} ... {} ({:?})",
            if passed { "ok" } else { "FAILED" },
            begun.elapsed()
        );
        if !passed {
            failed.push(name);
        }
    }
    println!("{} failed: {failed:?}", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
