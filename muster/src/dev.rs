//! `muster dev`: a whole cluster on this machine, with two example applications running on it.
//!
//! Three control nodes and three agents as processes of their own on loopback, in a temporary or a
//! given folder. Everything beyond starting processes is done with the console's verbs, so the tour
//! a user gets is the one this program took.

mod cluster;
mod console;
mod examples;
mod processes;
mod report;

use crate::{
    dev::{cluster::Cluster, console::Console},
    failed::failed,
};
use ::console::Failure;
use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// How the development cluster is to be.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  muster dev                     until Ctrl-C, in a temporary folder\n  \
    muster dev --data ./cluster    keep it: the next start goes on from there\n  \
    muster dev --check -o json     start, wait until all runs, measure, stop"
)]
pub(crate) struct Arguments {
    /// Folder for the data of all processes; a temporary one if not given
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Stop when everything runs, and print what was measured
    #[arg(long)]
    check: bool,
}

/// How long everything may take to run.
const RUNNING_TIMEOUT: Duration = Duration::from_secs(75);

/// How long it may take to find out why not everything runs.
const EXPLAIN_TIMEOUT: Duration = Duration::from_secs(5);

// A check ends within two minutes however it goes: agents, jobs and nodes are stopped one after another.
const _: () = assert!(
    RUNNING_TIMEOUT.as_secs()
        + EXPLAIN_TIMEOUT.as_secs()
        + 2 * processes::STOP_TIMEOUT.as_secs()
        + processes::STOP_JOBS_TIMEOUT.as_secs()
        < 120
);

/// Runs the cluster until Ctrl-C, or until the check is done.
pub(crate) fn run(arguments: &Arguments, global: &::console::Global) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::from(error), global),
    };
    match runtime.block_on(dev(arguments, global)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error, global),
    }
}

async fn dev(arguments: &Arguments, global: &::console::Global) -> Result<()> {
    let temporary;
    let folder = match &arguments.data {
        Some(folder) => std::path::absolute(folder).context("name the data folder")?,
        None => {
            temporary = tempfile::TempDir::with_prefix("muster-dev-").context("make a folder")?;
            temporary.path().to_owned()
        }
    };
    let _lock = lock(&folder)?;
    let began = Instant::now();
    let mut cluster = Cluster::new(&folder);
    let mut interrupt = std::pin::pin!(interrupted());
    let result = tokio::select! {
        biased;
        () = &mut interrupt => Ok(None),
        result = timeout(RUNNING_TIMEOUT, bring_up(&mut cluster, began)) => match result {
            Ok(result) => result.map(Some),
            Err(_) => Err(cluster.explain(EXPLAIN_TIMEOUT).await),
        },
    };
    let result = match result {
        Ok(Some(times)) if arguments.check => {
            let measured = report::measure(&cluster, &times);
            report::print_check(&measured, global)
        }
        Ok(Some(_)) => {
            report::say_what_next(&folder);
            tokio::select! {
                biased;
                () = &mut interrupt => Ok(()),
                result = cluster.watch() => result,
            }
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    report::say("stopping");
    cluster.stop().await;
    result
}

/// Holds the data folder for this process.
fn lock(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let path = folder.join("dev.lock");
    let file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    if file.try_lock().is_err() {
        let message = format!("another `muster dev` runs in {}", folder.display());
        let remedy = "stop it with Ctrl-C, or name another folder with --data";
        return Err(Failure::usage(message, remedy).at("data").into());
    }
    Ok(file)
}

/// Moments counted from the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// All partitions run.
    pub(crate) running: Duration,
    /// The deployments' status is RUNNING.
    pub(crate) settled: Duration,
}

async fn bring_up(cluster: &mut Cluster, began: Instant) -> Result<Times> {
    cluster.start_nodes().await?;
    cluster.start_agents().await?;
    let console = cluster.console();
    deploy_examples(&console, &cluster.folder).await?;
    let mut running = None;
    let mut shown = report::Table::new();
    loop {
        cluster.check()?;
        let view = report::View::read(&console).await?;
        shown.draw(&view, began.elapsed());
        if view.running == examples::PARTITIONS && running.is_none() {
            running = Some(began.elapsed());
        }
        if let Some(running) = running
            && view.settled
        {
            return Ok(Times { running, settled: began.elapsed() });
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn deploy_examples(console: &Console, folder: &Path) -> Result<()> {
    for example in examples::ALL {
        let source = example.unpack(&folder.join("examples"))?;
        let source = source.to_str().context("the data folder's path must be UTF-8")?;
        let image = console.json(&["-t", cluster::TENANT, "image", "push", source]).await?;
        let Some(digest) = image["digest"].as_str() else { bail!("the image has no digest") };
        let partitions = example.partitions.to_string();
        let flags =
            ["--name", example.name, "--cluster", cluster::NAME, "--partitions", &partitions];
        let mut words = vec!["-t", cluster::TENANT, "deploy", digest];
        words.extend(flags);
        console.run(&words).await?;
    }
    Ok(())
}

/// Ends when the user asks: Ctrl-C or SIGTERM.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        // Without a handler the default one ends the process: nothing to add here.
        _ = tokio::signal::ctrl_c() => {}
    }
}
