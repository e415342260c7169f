//! `muster serve`: a control node on this machine.

use crate::failed::failed;
use anyhow::Result;
use console::{Failure, exit};
use node::{Begin, Config, LogFormat, NodeConfig, Ticket};
use std::{env, fs, io::Write, net::TcpListener, path::PathBuf, process::ExitCode};

/// How the node is to be.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  muster serve --data /var/lib/muster --bootstrap\n  \
    muster serve --data /var/lib/muster --join MST10... --server 10.0.0.1:7400\n  \
    muster serve --data /var/lib/muster                again, at the same addresses\n  \
    muster serve --config muster.toml --print-config   what is in force\n\n\
    Every setting can be given by file, by variable (MUSTER_LEASE__TTL_MS=20000) or by flag \
    (--set lease.ttl_ms=20000).")]
pub(crate) struct Arguments {
    /// Folder for this node's data
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address for clients and agents; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    client_addr: Option<String>,
    /// Address for the other control nodes
    #[arg(long, value_name = "ADDR")]
    peer_addr: Option<String>,
    /// Address at which clients and agents reach it, if another
    #[arg(long, value_name = "ADDR")]
    advertise_client: Option<String>,
    /// Address at which control nodes reach it, if another
    #[arg(long, value_name = "ADDR")]
    advertise_peer: Option<String>,
    /// Found a new cluster: its authority, this node, and an operator in DIR/admin
    #[arg(long, conflicts_with = "join")]
    bootstrap: bool,
    /// Join the cluster that this token is of
    #[arg(long, value_name = "TOKEN", env = "MUSTER_TOKEN", hide_env_values = true)]
    join: Option<String>,
    /// Copy only and do not vote, until `muster cluster promote`
    #[arg(long, requires = "join")]
    learner: bool,
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

/// Runs the node until it is asked to stop.
pub(crate) fn run(arguments: Arguments, global: &console::Global) -> ExitCode {
    match serve(arguments, global) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error, global),
    }
}

fn serve(arguments: Arguments, global: &console::Global) -> Result<()> {
    let mut config = Config::load(arguments.config.as_deref(), env::vars(), flags(&arguments)?)?;
    if arguments.print_config {
        std::io::stdout().lock().write_all(config.to_toml().as_bytes())?;
        return Ok(());
    }
    // Flags and tokens of the first start may stay in a unit file: a node that knows its cluster
    // does not need them.
    let known = config.node.data.join("identity").join("node.json").exists();
    if known {
        keep_addresses(&mut config);
    }
    let begin = match (&arguments.join, arguments.bootstrap) {
        _ if known => Begin::Again,
        (_, true) => Begin::Bootstrap,
        (Some(token), _) => {
            if global.server.is_empty() {
                let message = "--join needs --server: the address of a control node of the cluster";
                let remedy = "name one or several with --server HOST:PORT,...";
                return Err(Failure::usage(message.into(), remedy).at("server").into());
            }
            let token = token.parse().map_err(|bad| {
                let message = format!("the join token cannot be read: {bad}");
                let remedy = "give all of what `muster token create --kind node` printed";
                Failure::usage(message, remedy).at("join")
            })?;
            let (servers, learner) = (global.server.clone(), arguments.learner);
            Begin::Join(Ticket { token, servers, learner })
        }
        (None, false) => Begin::Again,
    };
    if !matches!(begin, Begin::Again) {
        check_addresses(&config.node)?;
    }
    let format = if arguments.log_format == "json" { LogFormat::Json } else { LogFormat::Text };
    node::start_logs(format, env::var(node::LOG_VARIABLE).ok().as_deref())?;
    // One thread: commits per second and their tails are better than with several.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(node::serve(config, begin, node::asked_by_signal()))?;
    Ok(())
}

/// Refuses addresses that a first start could not use, before it leaves anything in the folder.
fn check_addresses(node: &NodeConfig) -> Result<()> {
    for (field, addr) in [("client_addr", &node.client_addr), ("peer_addr", &node.peer_addr)] {
        if let Err(error) = TcpListener::bind(addr.as_str()) {
            let message = format!("{addr} cannot be listened at: {error}");
            let remedy = "name host:port of this machine at which nothing else listens";
            return Err(Failure::of(exit::USAGE, "LISTEN", message, remedy).at(field).into());
        }
    }
    let advertised =
        [("advertise_client", &node.advertise_client), ("advertise_peer", &node.advertise_peer)];
    for (field, addr) in advertised {
        let port = |addr: &str| addr.rsplit_once(':')?.1.parse::<u16>().ok().filter(|it| *it > 0);
        if !addr.is_empty() && port(addr).is_none() {
            let message = format!("{addr} is not host:port, so nobody would reach this node");
            let remedy = "write it as host:port, as others reach this machine";
            return Err(Failure::of(exit::USAGE, "LISTEN", message, remedy).at(field).into());
        }
    }
    Ok(())
}

/// A node that is started again without addresses listens where it did before: its members know it
/// there.
fn keep_addresses(config: &mut Config) {
    let before = fs::read_to_string(config.node.data.join("addr.json")).unwrap_or_default();
    let Ok(before) = serde_json::from_str::<serde_json::Value>(&before) else { return };
    let default = Config::default().node;
    let keep = |addr: &mut String, default: &str, before: &serde_json::Value| {
        if let Some(before) = before.as_str().filter(|_| addr == default) {
            *addr = before.to_owned();
        }
    };
    keep(&mut config.node.client_addr, &default.client_addr, &before["client"]);
    keep(&mut config.node.peer_addr, &default.peer_addr, &before["peer"]);
}

/// What `--set` gives, each `(section.key, value)`.
pub(crate) fn settings_of(set: &[String], example: &str) -> Result<Vec<(String, String)>> {
    let mut settings = Vec::new();
    for setting in set {
        let (key, value) = setting.split_once('=').ok_or_else(|| {
            let message = format!("--set takes KEY=VALUE, not {setting:?}");
            Failure::usage(message, &format!("write it as --set {example}")).at("set")
        })?;
        settings.push((key.to_owned(), value.to_owned()));
    }
    Ok(settings)
}

fn flags(arguments: &Arguments) -> Result<Vec<(String, String)>> {
    let mut flags = settings_of(&arguments.set, "lease.ttl_ms=20000")?;
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            flags.push((format!("node.{key}"), value));
        }
    };
    add("data", arguments.data.as_ref().map(|folder| folder.display().to_string()));
    add("client_addr", arguments.client_addr.clone());
    add("peer_addr", arguments.peer_addr.clone());
    add("advertise_client", arguments.advertise_client.clone());
    add("advertise_peer", arguments.advertise_peer.clone());
    Ok(flags)
}
