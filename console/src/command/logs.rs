//! `muster logs`: what a job writes, asked of any node.

use crate::{
    command::{Session, get},
    failure::Failure,
    noun::{Noun, Query},
    render::job_name,
};
use api::v1;
use std::io::Write;
use v1::job_key::Slot;

/// Whose logs.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  muster logs shop/north/web/0\n  muster logs shop/north/web/0 -f --tail 10\n  \
    muster logs shop              if the deployment has one job\n  muster logs shop/north/web/3 --stderr"
)]
pub struct Arguments {
    /// deployment/cluster/application/slot, or a deployment with one job
    job: String,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Only so many lines from the end
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,
    /// What went to standard error, instead of both
    #[arg(long, conflicts_with = "stdout")]
    stderr: bool,
    /// What went to standard output, instead of both
    #[arg(long)]
    stdout: bool,
    /// Begin each line with its time
    #[arg(long)]
    timestamps: bool,
    /// The copy on this host, instead of the newest
    #[arg(long)]
    host: Option<String>,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<(), Failure> {
    let tenant = session.client.tenant().await?;
    let job = find(session, &tenant, &arguments.job).await?;
    let stream = match (arguments.stdout, arguments.stderr) {
        (true, _) => v1::LogStream::Stdout,
        (_, true) => v1::LogStream::Stderr,
        _ => v1::LogStream::Both,
    };
    let request = v1::ReadLogsRequest {
        job: Some(job),
        stream: stream.into(),
        follow: arguments.follow,
        tail_lines: arguments.tail,
        timestamps: arguments.timestamps,
        host: arguments.host.clone(),
    };
    let mut chunks = session
        .client
        .call(|channel| {
            let request = request.clone();
            async move { v1::logs_client::LogsClient::new(channel).read(request).await }
        })
        .await?;
    loop {
        match chunks.message().await {
            Ok(Some(chunk)) => print(&chunk)?,
            Ok(None) => return Ok(()),
            Err(status) => return Err(session.client.failure(&status, 1)),
        }
    }
}

fn print(chunk: &v1::LogsChunk) -> Result<(), Failure> {
    let written = if chunk.stream() == v1::LogStream::Stderr {
        std::io::stderr().lock().write_all(&chunk.data)
    } else {
        let mut out = std::io::stdout().lock();
        out.write_all(&chunk.data).and_then(|()| out.flush())
    };
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            let message = format!("the output cannot be written: {error}");
            Err(Failure::of(crate::failure::exit::ERROR, "OUTPUT", message, ""))
        }
        Ok(()) => Ok(()),
    }
}

async fn find(session: &Session, tenant: &str, text: &str) -> Result<v1::JobKey, Failure> {
    let parts: Vec<_> = text.split('/').collect();
    if let [deployment, cluster, application, slot] = parts.as_slice() {
        return Ok(v1::JobKey {
            tenant: tenant.to_owned(),
            deployment: (*deployment).to_owned(),
            cluster: (*cluster).to_owned(),
            application: (*application).to_owned(),
            slot: Some(slot_of(slot)?),
        });
    }
    let query =
        Query { tenant: tenant.to_owned(), deployment: Some(text.to_owned()), ..Query::default() };
    let jobs = Noun::Job.list(&session.client, &query).await?;
    match jobs.as_slice() {
        [only] => Box::pin(find(session, tenant, &job_name(only))).await,
        [] => {
            // Or there is no such deployment: then that is said.
            get::read(session, Noun::Deployment, text).await?;
            let message = format!("deployment {text} has no jobs yet");
            Err(Failure::usage(message, "see why with `muster status`").at("job"))
        }
        many => {
            let names: Vec<_> = many.iter().take(5).map(job_name).collect();
            let message = format!("{text} has {} jobs, such as {}", many.len(), names.join(", "));
            Err(Failure::usage(message, "name one of them").at("job"))
        }
    }
}

fn slot_of(text: &str) -> Result<Slot, Failure> {
    let bad = || {
        let message = format!("{text:?} is no slot");
        Failure::usage(message, "write a partition's number, host-NAME or run-N").at("job")
    };
    if let Some(host) = text.strip_prefix("host-") {
        return Ok(Slot::Host(host.to_owned()));
    }
    match text.strip_prefix("run-") {
        Some(run) => run.parse().map(Slot::Run).map_err(|_| bad()),
        None => text.parse().map(Slot::Partition).map_err(|_| bad()),
    }
}
