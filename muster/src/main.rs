//! The one binary: reads the command line and hands over. Nothing is decided here.

mod agent_verb;
mod dev;
mod failed;
mod guard_verb;
mod serve_verb;
mod storage_verb;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Runs applications on fleets of edge machines.
#[derive(Debug, Parser)]
#[command(name = "muster", version, about, propagate_version = true, infer_subcommands = false)]
#[command(
    after_help = "Examples:\n  muster dev                       a whole cluster on this machine\n  \
    muster get deployments           what is deployed, and how it is\n  \
    muster status shop --wait=60s    wait until it runs"
)]
struct Muster {
    #[command(flatten)]
    global: console::Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Starts three control nodes and three agents on this machine, and deploys two examples
    Dev(dev::Arguments),
    /// Runs a control node
    Serve(serve_verb::Arguments),
    /// Looks at the data folder of a control node that does not run
    Storage(storage_verb::Arguments),
    /// Runs the agent of an edge host, or looks at one
    Agent(agent_verb::Arguments),
    /// Guards one job of this host; agents start it
    Guard(guard_verb::Arguments),
    #[command(flatten)]
    Console(console::Verb),
}

fn main() -> ExitCode {
    // A guard is this program too. It comes first: it needs a process without threads.
    if let Some(code) = agent::guard::dispatch(std::env::args_os().skip(1)) {
        return code;
    }
    let muster = Muster::parse();
    match muster.verb {
        Verb::Dev(arguments) => dev::run(&arguments, &muster.global),
        Verb::Serve(arguments) => serve_verb::run(arguments, &muster.global),
        Verb::Storage(arguments) => storage_verb::run(&arguments, &muster.global),
        Verb::Agent(arguments) => agent_verb::run(arguments, &muster.global),
        Verb::Guard(arguments) => guard_verb::run(&arguments, &muster.global),
        Verb::Console(verb) => console::run(verb, muster.global),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_verb_of_this_room_shows_examples() {
        let mut command = Muster::command();
        command.build();
        command.clone().debug_assert();
        let mut open: Vec<_> = ["dev", "serve", "agent", "guard"]
            .map(|verb| command.find_subcommand(verb).cloned().unwrap())
            .into();
        let mut leaves = 0;
        while let Some(command) = open.pop() {
            let below: Vec<_> =
                command.get_subcommands().filter(|it| it.get_name() != "help").cloned().collect();
            if below.is_empty() {
                leaves += 1;
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.starts_with("Examples:\n  "), "{} shows none", command.get_name());
            }
            open.extend(below);
        }
        assert!(leaves >= 6, "the walk must find the verbs");
    }
}
