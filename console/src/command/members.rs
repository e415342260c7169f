//! `muster cluster add|promote|remove|transfer-leader|members|status`: the control nodes themselves.

use crate::{
    client::Client,
    command::{Session, get},
    failure::Failure,
    noun::{Noun, Query},
    parse,
    render::{member_columns, number, say},
    retry::Effect,
};
use api::v1::{self, control_plane_client::ControlPlaneClient};
use serde_json::{Value, json};
use std::time::Duration;

/// Verbs about the control nodes.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Makes a join token for one more control node, and prints the command that joins it
    #[command(
        after_help = "Examples:\n  muster cluster add 10.0.0.4\n  muster cluster add 10.0.0.4 --learner\n\n\
        Run what it prints on the new machine. The node copies the log, and votes as soon as it has caught up;\n\
        with --learner it votes after `muster cluster promote`. The token works once."
    )]
    Add {
        /// Address of the new machine, as the other nodes reach it
        #[arg(default_value = "HOST")]
        host: String,
        /// It only copies, until it is promoted
        #[arg(long)]
        learner: bool,
        /// How long the token works
        #[arg(long, value_name = "SPAN", value_parser = parse::span, default_value = "24h")]
        ttl: Duration,
    },
    /// Lets a learner vote
    #[command(
        after_help = "Examples:\n  muster cluster promote 57\n  muster cluster promote node-57"
    )]
    Promote {
        /// Its id
        #[arg(value_parser = node_id)]
        node: u64,
    },
    /// Removes a control node for good: a dead one, or one that runs
    #[command(
        after_help = "Examples:\n  muster cluster remove 57\n  muster cluster remove node-57 -o json\n\n\
        To replace a node whose disk is lost: `muster cluster add`, then remove the old id. A node that runs\n\
        ends with exit code 4, and is refused when it comes back. A leader hands over first. Ask again if it\n\
        fails half-way: that ends what was begun."
    )]
    Remove {
        /// Its id
        #[arg(value_parser = node_id)]
        node: u64,
        /// Even if the voters that remain have no majority in contact: nothing can be written then
        #[arg(long)]
        force: bool,
    },
    /// Lets another control node lead, and waits until it does
    #[command(
        after_help = "Examples:\n  muster cluster transfer-leader\n  muster cluster transfer-leader 57"
    )]
    TransferLeader {
        /// Its id; the voter that has most of the log if not given
        #[arg(value_parser = node_id)]
        node: Option<u64>,
    },
    /// Lists the control nodes
    #[command(after_help = "Examples:\n  muster cluster members\n  muster cluster members -o json")]
    Members,
    /// Shows who leads the control nodes, how far each is, and how many may be lost
    #[command(
        after_help = "Examples:\n  muster cluster status\n  muster cluster status -o json\n\n\
        It works without a leader too, and says so."
    )]
    Status,
}

/// `57`, `node-57` or `nodes/57`.
fn node_id(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("node-").or_else(|| text.strip_prefix("nodes/")).unwrap_or(text);
    let id = digits.parse().ok().filter(|id| *id > 0);
    id.ok_or_else(|| "write its id, such as 57: `muster cluster status` lists them".to_owned())
}

pub(super) async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    macro_rules! ask {
        ($effect:expr, $method:ident($request:expr)) => {{
            let request = $request;
            let call = session.client.call_as($effect, |channel| async move {
                ControlPlaneClient::new(channel).$method(request).await
            });
            call.await?
        }};
    }
    match verb {
        Verb::Add { host, learner, ttl } => add(session, &host, learner, ttl).await,
        Verb::Promote { node } => {
            let changed = ask!(Effect::Named, promote(v1::PromoteNodeRequest { node }));
            told(session, &changed, "promoted")
        }
        Verb::Remove { node, force } => {
            let changed = ask!(Effect::Named, remove(v1::RemoveNodeRequest { node, force }));
            told(session, &changed, "removed")
        }
        Verb::TransferLeader { node } => {
            // To any other node: a repeat would move it once more.
            let effect = if node.is_some() { Effect::Named } else { Effect::Unnamed };
            let changed = ask!(effect, transfer_leader(v1::TransferLeaderRequest { node }));
            told(session, &changed, "leads")
        }
        Verb::Members => get::list(session, Noun::Node, Query::default()).await,
        Verb::Status => {
            let document = session.client.json(&status(&session.client).await?)?;
            if session.printer.is_structured() {
                return session.printer.document(&document);
            }
            session.printer.text(&format!("{}\n", summary(&document).join("\n")))?;
            let members = document["members"].as_array().cloned().unwrap_or_default();
            session.printer.table(member_columns(), &members)
        }
    }
}

/// What came of a change: `node/57 removed`, or the document.
fn told(session: &Session, changed: &v1::MembersChanged, done: &str) -> Result<(), Failure> {
    if session.printer.is_structured() {
        return session.printer.document(&session.client.json(changed)?);
    }
    let done = if changed.changed { done } else { "unchanged" };
    session.printer.text(&format!("node/{} {done}\n", changed.node))
}

async fn status(client: &Client) -> Result<v1::ControlPlaneStatus, Failure> {
    let asked = v1::GetControlPlaneStatusRequest {};
    client
        .call(|channel| async move { ControlPlaneClient::new(channel).get_status(asked).await })
        .await
}

async fn add(session: &Session, host: &str, learner: bool, ttl: Duration) -> Result<(), Failure> {
    let members = status(&session.client).await?.members;
    let servers: Vec<_> = members.into_iter().map(|member| member.client_addr).collect();
    let kind = v1::token_kind::Kind::Node(v1::NodeToken {});
    let request = v1::CreateTokenRequest {
        kind: Some(v1::TokenKind { kind: Some(kind) }),
        ttl_ms: parse::ms(ttl),
        uses: 1,
    };
    // Each try would make another token.
    let call = session.client.call_as(Effect::Unnamed, |channel| {
        let request = request.clone();
        async move { v1::tokens_client::TokensClient::new(channel).create(request).await }
    });
    let made = call.await?;
    let command = join_command(host, &made.token, &servers, learner);
    if session.printer.is_structured() {
        let mut document = session.client.json(&made)?;
        document["servers"] = json!(servers);
        document["command"] = json!(command);
        return session.printer.document(&document);
    }
    say("run this on the new machine; the token works once:");
    session.printer.text(&format!("{command}\n"))
}

fn join_command(host: &str, token: &str, servers: &[String], learner: bool) -> String {
    let learner = if learner { " --learner" } else { "" };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    format!(
        "muster serve --data /var/lib/muster --client-addr {host}:7400 --peer-addr {host}:7401 \
         --join {token} --server {}{learner}",
        servers.join(",")
    )
}

/// The lines above the table: which cluster, who leads, what it can bear.
fn summary(status: &Value) -> Vec<String> {
    let word = |name: &str| status[name].as_str().unwrap_or("-").to_owned();
    let first = format!(
        "cluster {}, term {}, revision {}, rules {}, as node {} sees it",
        word("cluster_id"),
        number(&status["term"]),
        number(&status["revision"]),
        number(&status["rules"]),
        number(&status["answered_by"]),
    );
    let leader = match &status["leader"] {
        Value::Null => "no leader: nothing can be written until a majority elects one".to_owned(),
        leader => format!("node {} leads", number(leader)),
    };
    let of = |name: &str| number(&status["quorum"][name]);
    let (voters, up, needed) = (of("voters"), of("up"), of("needed"));
    let bears = match up.checked_sub(needed) {
        Some(spare) => format!("may lose {spare}"),
        None => format!("no quorum, {} more needed", needed - up),
    };
    vec![first, leader, format!("{up} of {voters} voters up, {bears}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_by_its_id_however_it_is_written() {
        for text in ["57", "node-57", "nodes/57"] {
            assert_eq!(node_id(text), Ok(57), "{text}");
        }
        for text in ["", "0", "node", "node-", "-1", "57x"] {
            assert!(node_id(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_status_says_plainly_what_may_be_lost_and_when_nobody_leads() {
        let of = |leader: Value, voters: u64, up: u64| {
            let quorum = json!({ "voters": voters, "up": up, "needed": voters / 2 + 1 });
            summary(&json!({ "leader": leader, "quorum": quorum }))[1..].to_vec()
        };
        assert_eq!(of(json!("3"), 3, 3), ["node 3 leads", "3 of 3 voters up, may lose 1"]);
        assert_eq!(of(json!("3"), 5, 4)[1], "4 of 5 voters up, may lose 1");
        assert_eq!(of(json!("1"), 1, 1)[1], "1 of 1 voters up, may lose 0");
        let alone = of(Value::Null, 3, 1);
        assert!(alone[0].starts_with("no leader"), "{alone:?}");
        assert_eq!(alone[1], "1 of 3 voters up, no quorum, 1 more needed");
    }

    #[test]
    fn the_printed_command_joins_as_asked() {
        let servers = ["a:1".to_owned(), "b:2".to_owned()];
        let command = join_command("10.0.0.4", "MST10", &servers, true);
        let expected = "muster serve --data /var/lib/muster --client-addr 10.0.0.4:7400 \
            --peer-addr 10.0.0.4:7401 --join MST10 --server a:1,b:2 --learner";
        assert_eq!(command, expected);
        assert!(join_command("fd00::4", "t", &servers, false).contains(" [fd00::4]:7401 "));
    }
}
