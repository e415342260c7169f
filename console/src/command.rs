//! The verbs, one module per group. A verb reads its arguments, calls, and prints; what it says when
//! things go wrong comes from one place, `failure`.

mod apply;
mod change;
mod deploy;
mod get;
mod image;
mod inspect;
mod login;
mod logs;
mod members;
mod retry;
mod role;
mod rules;
mod status;
mod token;
mod watch;

use crate::{client::Client, failure::Failure, global::Global, render::Printer};
use clap::Subcommand;
use std::process::ExitCode;

/// What the console can be asked.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Gets an operator's certificate for a join token
    Login(login::Arguments),
    /// Makes, lists and revokes join tokens
    #[command(subcommand)]
    Token(token::Verb),
    /// Tenants: who owns everything else
    #[command(subcommand)]
    Tenant(change::TenantVerb),
    /// Hosts: edge machines
    #[command(subcommand)]
    Host(change::HostVerb),
    /// Clusters of hosts; and the control nodes: add, promote, remove, transfer-leader, members, status
    #[command(subcommand)]
    Cluster(change::ClusterVerb),
    /// Images: validate, push, list
    #[command(subcommand)]
    Image(image::Verb),
    /// Deploys an image or a package to clusters
    Deploy(deploy::Arguments),
    /// Applies documents: all of them or none
    Apply(apply::Arguments),
    /// Deletes a resource, or those named in documents
    Delete(change::DeleteArguments),
    /// Lists resources, or shows one
    Get(get::Arguments),
    /// Shows all about one resource
    Describe(get::DescribeArguments),
    /// Shows changes as they happen, from any revision on
    Watch(watch::Arguments),
    /// Shows how deployments are, and waits for them
    Status(status::Arguments),
    /// Shows what a job writes, whatever host it is on
    Logs(logs::Arguments),
    /// No new jobs on a host
    Cordon(change::CordonArguments),
    /// New jobs on a host again
    Uncordon(change::CordonArguments),
    /// Tries at once what failed or waits
    #[command(subcommand)]
    Retry(retry::Verb),
    /// Gives and takes roles
    #[command(subcommand)]
    Role(role::Verb),
    /// Looks inside a control node
    Inspect(inspect::Arguments),
    /// Prints the version of this program
    #[command(after_help = "Examples:\n  muster version -o json")]
    Version,
}

/// What most verbs need.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) printer: Printer,
}

/// Carries out a verb.
pub(crate) async fn run(verb: Verb, global: &Global) -> Result<ExitCode, Failure> {
    let printer = Printer::new(global);
    match verb {
        Verb::Version => return version(printer),
        Verb::Login(arguments) => return login::run(arguments, global).await,
        Verb::Image(image::Verb::Validate(arguments)) => {
            image::validate(&arguments, printer)?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let session = Session { client: Client::open(global)?, printer };
    match verb {
        Verb::Version | Verb::Login(_) => {}
        Verb::Token(verb) => token::run(&session, verb).await?,
        Verb::Tenant(verb) => change::tenant(&session, verb).await?,
        Verb::Host(verb) => change::host(&session, verb).await?,
        Verb::Cluster(verb) => change::cluster(&session, verb).await?,
        Verb::Image(verb) => image::run(&session, verb).await?,
        Verb::Deploy(arguments) => return deploy::run(&session, arguments).await,
        Verb::Apply(arguments) => apply::run(&session, &arguments).await?,
        Verb::Delete(arguments) => change::delete(&session, &arguments).await?,
        Verb::Get(arguments) => get::run(&session, arguments).await?,
        Verb::Describe(arguments) => get::describe(&session, &arguments).await?,
        Verb::Watch(arguments) => watch::run(&session, &arguments).await?,
        Verb::Status(arguments) => return status::run(&session, &arguments).await,
        Verb::Logs(arguments) => logs::run(&session, &arguments).await?,
        Verb::Cordon(arguments) => change::cordon(&session, &arguments, true).await?,
        Verb::Uncordon(arguments) => change::cordon(&session, &arguments, false).await?,
        Verb::Retry(verb) => retry::run(&session, verb).await?,
        Verb::Role(verb) => role::run(&session, verb).await?,
        Verb::Inspect(arguments) => inspect::run(&session, &arguments).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn version(printer: Printer) -> Result<ExitCode, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if printer.is_structured() {
        printer.document(&serde_json::json!({ "version": version }))?;
    } else {
        printer.text(&format!("muster {version}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_shows_examples() {
        let mut command = Verb::augment_subcommands(clap::Command::new("muster"));
        command.build();
        command.clone().debug_assert();
        let mut open = vec![command];
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
        assert!(leaves > 25, "the walk must find the verbs");
    }
}
