//! `cargo sim`: runs the simulation. Ends with one line of numbers, or with the command that shows a
//! violation again and exit code 1.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

mod sweep;

use anyhow::{Context as _, bail};
use clap::{Parser, ValueEnum};
use simulation::{Faults, Plant, Report, Settings, run_many, run_one};
use std::io::IsTerminal as _;
use std::path::PathBuf;

/// Run muster's rules in a hostile world, from a seed.
#[derive(Parser, Debug)]
#[command(name = "muster-sim")]
struct Arguments {
    /// Which ring: `a` is model, planner and agent reconcile without any IO; `b` is the whole house over
    /// simulated disks, network and clocks.
    #[arg(long, value_enum, default_value = "a")]
    ring: Ring,
    /// Number of seeds; 1000 of ring a and 200 of ring b if left out.
    #[arg(long, conflicts_with = "seed")]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Ring a: steps under faults per seed, of 250 ms of the world's time.
    #[arg(long, default_value_t = 1_000)]
    steps: u64,
    /// Ring b: how long there are faults, in seconds of the world.
    #[arg(long)]
    seconds: Option<u64>,
    /// Ring b: what travels between nodes and agents: `messages`, or `bytes` below real gRPC.
    #[arg(long, default_value = "messages")]
    wire: String,
    /// Number of edge hosts; 10 of ring a and 50 of ring b if left out.
    #[arg(long)]
    hosts: Option<usize>,
    /// Number of control nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Kinds of faults: `all`, `none`, or some of nodes,links,hosts,messages,clocks,jobs,users,disks.
    #[arg(long, default_value = "all")]
    faults: String,
    /// Plant a bug in the world, to see that it is caught.
    #[arg(long)]
    plant: Option<String>,
    /// Go on after a violation, to see them all.
    #[arg(long)]
    keep_going: bool,
    /// Ring b: run each seed twice, in one process each, and compare the traces.
    #[arg(long)]
    twice: bool,
    /// Number of threads, or of processes of ring b; as many as there are cores if left out.
    #[arg(long)]
    threads: Option<usize>,
    /// Write the results of all seeds to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the trace of the seed to this file.
    #[arg(long, requires = "seed")]
    trace: Option<PathBuf>,
    /// Ring b: run the seed in this process and print its report as JSON.
    #[arg(long, hide = true, requires = "seed")]
    here: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Ring {
    A,
    B,
}

/// Edge hosts of ring a.
const HOSTS: usize = 10;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.nodes == 0 || arguments.hosts == Some(0) {
        bail!("a world has at least one node and one host");
    }
    let faults: Faults = arguments.faults.parse().map_err(anyhow::Error::msg)?;
    if let Ring::B = arguments.ring {
        return sweep::run(&arguments, faults);
    }
    let plant = arguments.plant.as_deref().map(str::parse::<Plant>).transpose();
    let settings = Settings {
        seed: arguments.seed.unwrap_or(arguments.from),
        steps: arguments.steps,
        hosts: arguments.hosts.unwrap_or(HOSTS),
        nodes: arguments.nodes,
        faults,
        plant: plant.map_err(anyhow::Error::msg)?,
        trace: arguments.trace.is_some(),
        keep_going: arguments.keep_going,
    };
    #[expect(clippy::disallowed_methods, reason = "how fast the simulation is, not what it does")]
    let began = std::time::Instant::now();
    let reports = match arguments.seed {
        Some(_) => vec![run_one(settings)],
        None => many(&arguments, settings),
    };
    let seconds = began.elapsed().as_secs_f64();
    if let (Some(path), Some(report)) = (&arguments.trace, reports.first()) {
        std::fs::write(path, &report.trace).context("could not write the trace")?;
    }
    if let Some(path) = &arguments.json {
        let text = serde_json::to_vec_pretty(&reports).context("could not encode the results")?;
        std::fs::write(path, text).context("could not write the results")?;
    }
    conclude(&arguments, &reports, seconds);
    Ok(())
}

impl Arguments {
    fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.unwrap_or_else(cores)
    }
}

fn many(arguments: &Arguments, settings: Settings) -> Vec<Report> {
    let threads = arguments.threads();
    let seeds = arguments.seeds.unwrap_or(1_000);
    let shown = std::io::stderr().is_terminal();
    let every = if shown { 20 } else { 250 };
    let progress = |done: u64| {
        if done.is_multiple_of(every) && done < seeds {
            eprintln!("{done} of {seeds} seeds");
        }
    };
    run_many(settings, (arguments.from, seeds), threads, progress)
}

fn conclude(arguments: &Arguments, reports: &[Report], seconds: f64) {
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    println!(
        "events {}, log entries {} ({} refused), starts {}, faults {}, hosts lost {}, copies evicted {}, \
         leaders {}, acknowledged {}",
        sum(|it| it.stats.events),
        sum(|it| it.stats.entries),
        sum(|it| it.stats.refused),
        sum(|it| it.stats.starts),
        sum(|it| it.stats.faults),
        sum(|it| it.stats.losses),
        sum(|it| it.stats.evictions),
        sum(|it| it.stats.terms),
        sum(|it| it.stats.acknowledged),
    );
    let failed: Vec<_> = reports.iter().filter(|report| report.violation.is_some()).collect();
    for report in &failed {
        show(arguments, report);
    }
    let steps = sum(|it| it.steps) as f64;
    println!(
        "ring a: seeds {}, violations {}, steps/s {:.0}",
        reports.len(),
        failed.len(),
        steps / seconds.max(0.001)
    );
    if !failed.is_empty() {
        std::process::exit(1);
    }
}

/// A violation, and how to see it again.
fn show(arguments: &Arguments, report: &Report) {
    let Some(violation) = &report.violation else { return };
    println!("violation of {} at {} ms: {}", violation.oracle, violation.at_ms, violation.detail);
    let mut more = String::new();
    if let Some(plant) = &arguments.plant {
        more.push_str(&format!(" --plant {plant}"));
    }
    if arguments.faults != "all" {
        more.push_str(&format!(" --faults {}", arguments.faults));
    }
    let (hosts, nodes) = (arguments.hosts.unwrap_or(HOSTS), arguments.nodes);
    if (hosts, nodes) != (HOSTS, 3) {
        more.push_str(&format!(" --hosts {hosts} --nodes {nodes}"));
    }
    println!(
        "REPRODUCE: cargo sim -- --ring a --seed {} --steps {}{more} --trace f",
        report.seed, report.steps
    );
}
