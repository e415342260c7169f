//! What `serve`, `agent`, `dev` and `guard` say when they fail: the same shape, exit codes and formats as
//! every verb of the console.

use agent::{RunError, enrol::EnrolError, local::LocalError};
use console::{Failure, Global, exit};
use node::{ConfigError, InspectError, JoinError, PassportError, ServeError};
use std::{error::Error, process::ExitCode};

/// Says why it failed in the format that the flags ask for, and gives the exit code.
pub(crate) fn failed(error: &anyhow::Error, global: &Global) -> ExitCode {
    failure(error).show(global.output())
}

/// The failure that an error stands for: its own, or that of the first cause that is known.
fn failure(error: &anyhow::Error) -> Failure {
    let known = error.chain().find_map(known);
    known.unwrap_or_else(|| {
        let remedy = "see `--help` of the verb; MUSTER_LOG=debug makes it say more";
        Failure::of(exit::ERROR, "FAILED", format!("{error:#}"), remedy)
    })
}

fn known(error: &(dyn Error + 'static)) -> Option<Failure> {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return Some(failure.clone());
    }
    let config = error.downcast_ref().map(of_config);
    let serve = || error.downcast_ref().and_then(of_serve);
    let passport = || error.downcast_ref().map(of_passport);
    let join = || error.downcast_ref().and_then(of_join);
    let run = || error.downcast_ref().and_then(of_run);
    let local = || error.downcast_ref().map(of_local);
    let folder = || error.downcast_ref().map(of_inspect);
    let local = || local().or_else(folder);
    config.or_else(serve).or_else(passport).or_else(join).or_else(run).or_else(local)
}

/// What went wrong, with its causes.
fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn of_config(error: &ConfigError) -> Failure {
    let field = match error {
        ConfigError::Read { path, .. } => path.display().to_string(),
        ConfigError::Malformed { place, .. } => place.clone(),
        ConfigError::Refused { setting, .. } => setting.clone(),
    };
    let remedy = "compare it with what `muster serve --print-config` prints";
    Failure::of(exit::USAGE, "SETTING", told(error), remedy).at(field)
}

fn of_serve(error: &ServeError) -> Option<Failure> {
    let of = |reason, field: &str, remedy| {
        Some(Failure::of(exit::ERROR, reason, told(error), remedy).at(field))
    };
    if let Some((reason, remedy)) = error.lasting() {
        return of(reason, "data", remedy);
    }
    match error {
        // These are transparent: they are no causes of their own.
        ServeError::Passport(error) => Some(of_passport(error)),
        ServeError::Join(error) => of_join(error),
        ServeError::Removed { .. } => {
            Some(Failure::of(exit::FAILED, "NODE_REMOVED", told(error), REMOVED).at("data"))
        }
        ServeError::Storage(_) => of("DATA_FOLDER", "data", DATA_FOLDER),
        ServeError::Listen { .. } => of(
            "LISTEN",
            "client_addr, peer_addr",
            "see what else listens there, or name others with --client-addr and --peer-addr",
        ),
        ServeError::Tls(_) | ServeError::OtherIdentity { .. } => of(
            "IDENTITY",
            "data",
            "give it the folder as this node left it, or join again with an empty one",
        ),
        _ => of("NODE", "data", "read its log above; `muster serve` again goes on from its folder"),
    }
}

const REMOVED: &str = "empty its data folder and let it join anew, under a new id, with the command \
    that `muster cluster add` prints";

const DATA_FOLDER: &str =
    "see that no other process uses it, who may write to it, and how full it is";

fn of_passport(error: &PassportError) -> Failure {
    let (exit, remedy) = match error {
        PassportError::None { .. } => (
            exit::USAGE,
            "found a cluster with --bootstrap, join one with --join TOKEN, or name another --data",
        ),
        PassportError::Exists { .. } => (exit::USAGE, "leave --bootstrap and --join out"),
        _ => (exit::ERROR, DATA_FOLDER),
    };
    Failure::of(exit, "IDENTITY", told(error), remedy).at("data")
}

fn of_join(error: &JoinError) -> Option<Failure> {
    Some(match error {
        JoinError::NoServer => no_server(told(error)),
        JoinError::Address { .. } => no_address(told(error)),
        JoinError::Refused { addr, status } => refused(addr, Failure::from_status(status)),
        _ => return None,
    })
}

fn of_run(error: &RunError) -> Option<Failure> {
    let of = |reason, field: &str, remedy| {
        Failure::of(exit::ERROR, reason, told(error), remedy).at(field)
    };
    Some(match error {
        RunError::Disk(_) | RunError::Images(_) => of("DATA_FOLDER", "data", DATA_FOLDER),
        RunError::Enrol(EnrolError::None { .. }) => Failure::of(
            exit::USAGE,
            "IDENTITY",
            told(error),
            "name its --host and give it --join TOKEN and --server, or name another --data",
        )
        .at("data"),
        RunError::Enrol(EnrolError::NoServer) => no_server(told(error)),
        RunError::Enrol(EnrolError::Address { .. }) => no_address(told(error)),
        RunError::Enrol(EnrolError::Refused { addr, status }) => {
            refused(addr, Failure::from_status(status))
        }
        RunError::Driver(_) => {
            of("DRIVER", "data", "see that the folder's path is short, and may hold programs")
        }
        _ => of("IDENTITY", "data", DATA_FOLDER),
    })
}

fn of_inspect(error: &InspectError) -> Failure {
    let (exit, reason, remedy) = match error {
        InspectError::Foreign { .. } => {
            (exit::ERROR, "DATA_FOLDER", "name the folder that `muster serve --data` was given")
        }
        InspectError::Running { .. } => {
            (exit::ERROR, "RUNNING", "stop the node, or ask it with `muster inspect`")
        }
        InspectError::Storage(_) => (exit::ERROR, "DATA_FOLDER", DATA_FOLDER),
    };
    Failure::of(exit, reason, told(error), remedy).at("data")
}

fn of_local(error: &LocalError) -> Failure {
    let (reason, field, remedy) = match error {
        LocalError::Unknown { .. } => {
            ("UNKNOWN_JOB", "job", "see the names with `muster agent list`; name one of them")
        }
        LocalError::Read { .. } => ("DATA_FOLDER", "data", DATA_FOLDER),
        _ => ("STOP", "job", "see its guard.log, and ask again; `kill -9` of its guard ends it"),
    };
    Failure::of(exit::ERROR, reason, told(error), remedy).at(field)
}

fn no_server(message: String) -> Failure {
    let remedy = "name control nodes with --server HOST:PORT,...";
    Failure::usage(message, remedy).at("server")
}

fn no_address(message: String) -> Failure {
    Failure::usage(message, "write it as host:port").at("server")
}

/// What the cluster said; where nobody answered it, what to look at.
fn refused(addr: &str, said: Failure) -> Failure {
    let mut failure = said.because(&format!("could not join by {addr}"));
    if failure.remedy().is_empty() {
        failure = failure.then("see that --server is reached, and whether the token has expired");
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn an_error_is_told_by_the_first_cause_that_is_known() {
        let bad = node::Config::load(None, [], [("lease.ttl_ms".into(), "1".into())]).unwrap_err();
        let shown = failure(&anyhow::Error::from(bad).context("read the settings")).to_json();
        let error = &shown["error"];
        assert_eq!(
            (&error["reason"], &error["field"]),
            (&"SETTING".into(), &"lease.ttl_ms".into())
        );

        let none = ServeError::from(PassportError::None { path: "/x".into() });
        let shown = failure(&none.into()).to_json();
        assert_eq!(shown["error"]["reason"], "IDENTITY");
        assert_eq!(shown["error"]["field"], "data");

        let own = Err::<(), _>(Failure::usage("no".into(), "do").at("set"));
        let shown = failure(&own.context("first").unwrap_err()).to_json();
        assert_eq!(shown["error"]["field"], "set");
    }

    #[test]
    fn what_a_cluster_refuses_keeps_its_reason_and_an_unknown_error_has_a_remedy() {
        let status = Box::new(api::status::overloaded());
        let refused = JoinError::Refused { addr: "h:1".into(), status };
        let shown = failure(&ServeError::from(refused).into()).to_json();
        assert_eq!(shown["error"]["reason"], "OVERLOADED");
        assert!(shown["error"]["message"].as_str().unwrap().contains("h:1"));
        for unknown in [anyhow!("x"), JoinError::NoServer.into()] {
            let shown = failure(&unknown).to_json();
            assert_ne!(shown["error"]["reason"], "");
            assert_ne!(shown["error"]["remedy"], "");
        }
    }
}
