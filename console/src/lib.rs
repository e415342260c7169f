//! The console: what `muster` does for people and scripts, as a client of the API like any other.
//!
//! Reading order: [`Verb`] (what can be asked), `global` and `profile` (as whom, of which cluster),
//! `client` (how a call is made), `noun` (the kinds of resources), `command` (one module per group of
//! verbs), `document` (files), `render` (what is printed), `failure` (what went wrong, exit codes).
//!
//! Standard output carries data, standard error talk. Exit codes: 0 done, 1 error, 2 usage, 3 not
//! reached in time, 4 failed for good.

mod client;
mod command;
mod document;
mod failure;
mod global;
mod near;
mod noun;
mod parse;
mod profile;
mod render;
mod retry;

pub use command::Verb;
pub use failure::{Failure, exit};
pub use global::{Global, Output};
pub use profile::{announce_dev, retire_dev};

use std::process::ExitCode;

/// Prints a document on standard output as the flags ask for; as YAML where they ask for no format.
///
/// # Errors
/// When standard output cannot be written.
pub fn print(document: &serde_json::Value, global: &Global) -> Result<(), Failure> {
    render::Printer::new(global).document(document)
}

/// Carries out a verb, and says how it went.
pub fn run(verb: Verb, global: Global) -> ExitCode {
    let output = global.output;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let message = format!("no runtime could be started: {error}");
            return failure::Failure::usage(message, "see the limits of this user").show(output);
        }
    };
    match runtime.block_on(command::run(verb, &global)) {
        Ok(code) => code,
        Err(failure) => failure.show(output),
    }
}
