//! `muster guard`: what it is, for those who find one in the process table. `main` hands the process to a
//! guard before anything is read here, because a guard needs a process without threads.

use crate::failed::failed;
use console::{Failure, Global};
use std::{path::PathBuf, process::ExitCode};

/// The guard's arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  muster agent list --data /var/lib/muster-agent    names the guards of a host\n  \
    muster guard --dir /var/lib/muster-agent/jobs/JOB  what an agent starts\n\n\
    A guard owns one job: it starts it, answers how it is, and ends with it. It needs no agent and no \
    link; a job under `on_disconnect: stop` is killed by its guard at the end of the host's lease. If a \
    guard is killed, its job dies with it."
)]
pub(crate) struct Arguments {
    /// Folder of the job
    #[arg(long, value_name = "DIR", required = true)]
    dir: PathBuf,
}

/// Refuses: what a guard understands never gets here.
pub(crate) fn run(arguments: &Arguments, global: &Global) -> ExitCode {
    let message = format!("a guard of {} takes --dir and nothing else", arguments.dir.display());
    let remedy = "agents start guards; see the jobs of a host with `muster agent list`";
    failed(&Failure::usage(message, remedy).at("dir").into(), global)
}
