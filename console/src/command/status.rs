//! `muster status`: how deployments are, and waiting until one runs.

use crate::{
    command::{Session, get},
    failure::{Failure, exit},
    noun::{Noun, Query},
    parse,
    render::{number, say},
};
use serde_json::Value;
use std::{process::ExitCode, time::Duration};
use tokio::time::Instant;

/// Which deployments, and how long to wait for one.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  muster status\n  muster status shop\n  muster status shop --wait=2m\n\n\
    Exit codes with --wait: 0 it runs, 3 not in time, 4 it failed for good"
)]
pub struct Arguments {
    /// Name of a deployment; all if not given
    deployment: Option<String>,
    /// Wait until it runs, at most so long
    #[arg(long, value_name = "SPAN", value_parser = parse::span, num_args = 0..=1,
        default_missing_value = "10m", require_equals = true, requires = "deployment")]
    wait: Option<Duration>,
}

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Some(name) = &arguments.deployment else {
        let tenant = session.client.tenant().await?;
        let query = Query { tenant, ..Query::default() };
        let rows = Noun::Deployment.list(&session.client, &query).await?;
        session.printer.list(Noun::Deployment, &rows)?;
        return Ok(ExitCode::SUCCESS);
    };
    match arguments.wait {
        Some(span) => wait(session, name, span).await,
        None => {
            let found = get::read(session, Noun::Deployment, name).await?;
            session.printer.one(Noun::Deployment, &found)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Waits until the deployment's state is RUNNING and nothing of it is in progress.
pub(crate) async fn wait(
    session: &Session,
    name: &str,
    span: Duration,
) -> Result<ExitCode, Failure> {
    let deadline = Instant::now() + span;
    let progress = Progress::new(name);
    loop {
        let found = get::read(session, Noun::Deployment, name).await?;
        progress.show(&found);
        let state = found["state"].as_str().unwrap_or_default();
        let in_progress = found["in_progress"].as_bool().unwrap_or(false);
        if state == "RUNNING" && !in_progress {
            progress.end();
            session.printer.one(Noun::Deployment, &found)?;
            return Ok(ExitCode::SUCCESS);
        }
        let retryable = found["status"]["retryable"].as_bool().unwrap_or(false);
        let failed = state == "ERROR" && !retryable;
        if failed || Instant::now() >= deadline {
            progress.end();
            session.printer.one(Noun::Deployment, &found)?;
            let text = found["status"]["text"].as_str().unwrap_or_default();
            return Err(if failed {
                let message = format!("deployment {name} failed: {text}");
                Failure::of(
                    exit::FAILED,
                    "FAILED",
                    message,
                    "see `muster describe deployment`, then change the spec",
                )
            } else {
                let message =
                    format!("deployment {name} is {state} after {} s: {text}", span.as_secs());
                Failure::of(
                    exit::NOT_REACHED,
                    "NOT_REACHED",
                    message,
                    "see `muster describe deployment`, or wait longer",
                )
            });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How far it is: a bar on a terminal, nothing elsewhere.
struct Progress(indicatif::ProgressBar);

impl Progress {
    fn new(name: &str) -> Self {
        let bar = indicatif::ProgressBar::new(0);
        let style =
            indicatif::ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {msg}");
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(name.to_owned());
        Self(bar)
    }

    fn show(&self, deployment: &Value) {
        self.0.set_length(number(&deployment["counts"]["total"]));
        self.0.set_position(number(&deployment["counts"]["running"]));
        let state = deployment["state"].as_str().unwrap_or_default();
        let text = deployment["status"]["text"].as_str().unwrap_or_default();
        self.0.set_message(format!("{state} {text}"));
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// Says what was asked for, for verbs that then wait.
pub(crate) fn say_waiting(name: &str, span: Duration) {
    say(&format!("waiting at most {} s until deployment {name} runs", span.as_secs()));
}
