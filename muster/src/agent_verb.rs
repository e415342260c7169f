//! `muster agent`: the agent of an edge host, and what a person can do on that host without any link.

mod settings;

use crate::failed::failed;
use agent::{Ticket, local};
use anyhow::{Context, Result, bail};
use node::{LogFormat, SystemClock};
use serde_json::json;
use settings::Settings;
use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

/// What to do on this host.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Runs the agent
    #[command(after_help = "Examples:\n  \
        muster agent run --data /var/lib/muster-agent --host till-17 --join MST10... --server 10.0.0.1:7400\n  \
        muster agent run --data /var/lib/muster-agent       again, after a restart\n  \
        muster agent run --data /var/lib/muster-agent --config agent.toml --set leftovers.data_keep_ms=3600000\n  \
        muster agent run --data /var/lib/muster-agent --config agent.toml --print-config   what is in force\n\n\
        Every setting can be given by file, by variable (MUSTER_AGENT_WORK__STEPS_MAX=4) or by flag \
        (--set work.steps_max=4); the later wins.\n\n\
        Its jobs go on when it ends; the next start takes them over.")]
    Run(Run),
    /// Lists the jobs of this host; works without any link
    #[command(after_help = "Examples:\n  muster agent list --data /var/lib/muster-agent")]
    List(Place),
    /// Shows one job of this host; works without any link
    #[command(after_help = "Examples:\n  muster agent inspect --data /var/lib/muster-agent JOB")]
    Inspect(Job),
    /// Stops a job of this host, or all; works without any link. An agent that runs starts it again
    #[command(after_help = "Examples:\n  muster agent stop --data /var/lib/muster-agent JOB\n  \
        muster agent stop --data /var/lib/muster-agent --all")]
    Stop(Stop),
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Folder of the agent's data
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Job {
    #[command(flatten)]
    place: Place,
    /// The job, as `muster agent list` names it, or how its name begins
    job: String,
}

#[derive(Debug, clap::Args)]
struct Stop {
    #[command(flatten)]
    place: Place,
    /// The job, as `muster agent list` names it, or how its name begins
    #[arg(required_unless_present = "all")]
    job: Option<String>,
    /// All of them
    #[arg(long, conflicts_with = "job")]
    all: bool,
}

#[derive(Debug, clap::Args)]
struct Run {
    #[command(flatten)]
    place: Place,
    /// Name of this host, for its first start
    #[arg(long)]
    host: Option<String>,
    /// Join token of kind agent, for its first start
    #[arg(long, value_name = "TOKEN", env = "MUSTER_TOKEN", hide_env_values = true)]
    join: Option<String>,
    /// CPU that may be given to jobs, in thousandths; what the machine has if not given
    #[arg(long)]
    cpu_millis: Option<u64>,
    /// Memory that may be given to jobs, in bytes; what the machine has if not given
    #[arg(long)]
    memory_bytes: Option<u64>,
    /// Settings file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print the settings in force, and end
    #[arg(long)]
    print_config: bool,
    /// How log lines look: text or json
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    log_format: String,
}

/// Carries it out.
pub(crate) fn run(arguments: Arguments, global: &console::Global) -> ExitCode {
    let done = match arguments.verb {
        Verb::Run(run) => run_agent(run, global),
        Verb::List(place) => list(&place.data, global),
        Verb::Inspect(job) => inspect(&job),
        Verb::Stop(stop) => stop_jobs(&stop),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error, global),
    }
}

fn run_agent(run: Run, global: &console::Global) -> Result<()> {
    let settings = Settings::load(run.config.as_deref(), env::vars(), flags(&run)?)?;
    if run.print_config {
        return print(node::config::to_toml(&settings).trim_end());
    }
    let format = if run.log_format == "json" { LogFormat::Json } else { LogFormat::Text };
    node::start_logs(format, env::var(node::LOG_VARIABLE).ok().as_deref())?;
    let config = settings.into_config(run.place.data, global.server.clone());
    let ticket = match (run.join, run.host) {
        (Some(token), Some(host)) => Some(Ticket {
            token: token.parse().context("read the join token")?,
            host: host.parse().context("read the name of the host")?,
        }),
        (Some(_), None) => bail!("--join needs --host: the name this machine is to have"),
        (None, _) => None,
    };
    let clock = Arc::new(SystemClock);
    let entropy = Arc::new(identity::SystemEntropy::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(agent::run_here(config, ticket, (clock, entropy), node::asked_by_signal()))?;
    Ok(())
}

fn flags(run: &Run) -> Result<Vec<(String, String)>> {
    let mut flags = crate::serve_verb::settings_of(&run.set, "work.steps_max=4")?;
    let mut add = |key: &str, value: Option<u64>| {
        flags.extend(value.map(|value| (format!("capacity.{key}"), value.to_string())));
    };
    add("cpu_millis", run.cpu_millis);
    add("memory_bytes", run.memory_bytes);
    Ok(flags)
}

fn list(data: &Path, global: &console::Global) -> Result<()> {
    let jobs = local::list(data)?;
    if global.output().is_structured() {
        return Ok(console::print(&json!({ "items": jobs }), global)?);
    }
    let mut text = format!("{:<60} {:<10} {:<8} GUARD\n", "JOB", "PHASE", "ASSIGNED");
    for job in jobs {
        let phase = format!("{:?}", job.state.phase).to_uppercase();
        let guard = if job.guarded { job.state.guard_pid.to_string() } else { "-".to_owned() };
        text.push_str(&format!(
            "{:<60} {phase:<10} {:<8} {guard}\n",
            job.name, job.spec.assignment
        ));
    }
    print(text.trim_end())
}

fn inspect(job: &Job) -> Result<()> {
    let found = local::inspect(&job.place.data, &job.job)?;
    print(&serde_json::to_string_pretty(&found)?)
}

fn stop_jobs(stop: &Stop) -> Result<()> {
    if let Some(job) = &stop.job {
        let stopped = local::stop(&stop.place.data, job)?;
        return print(&format!("{} stopped", stopped.name));
    }
    print(&format!("{} jobs stopped", local::stop_all(&stop.place.data)?))
}

fn print(text: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("write to standard output")
}
