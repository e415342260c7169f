//! `muster token`: what lets nodes, agents and operators join.

use crate::{
    command::{Session, change, get},
    failure::Failure,
    noun::{Noun, Query},
    parse,
    retry::Effect,
};
use api::v1;
use clap::ValueEnum;
use std::time::Duration;

/// Verbs about join tokens.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Makes a token and prints it, once
    #[command(
        after_help = "Examples:\n  muster token create --kind agent --tenant acme --uses 50 --ttl 1h\n  \
        muster token create --kind node\n  muster token create --kind operator --name ann"
    )]
    Create(Create),
    /// Lists tokens, without their secrets
    #[command(after_help = "Examples:\n  muster token list")]
    List,
    /// Revokes a token
    #[command(after_help = "Examples:\n  muster token revoke k3x9a2")]
    Revoke {
        /// Its public id
        id: String,
    },
}

/// A token to make.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// What its bearer becomes
    #[arg(long)]
    kind: Kind,
    /// Name of the operator, for an operator's token
    #[arg(long, required_if_eq("kind", "operator"))]
    name: Option<String>,
    /// How many times it may be used
    #[arg(long, default_value_t = 1)]
    uses: u32,
    /// How long it works
    #[arg(long, value_name = "SPAN", value_parser = parse::span, default_value = "24h")]
    ttl: Duration,
}

/// What a token's bearer becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A control node.
    Node,
    /// The agent of a host of the tenant.
    Agent,
    /// An operator.
    Operator,
}

pub(super) async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create(create) => make(session, create).await,
        Verb::List => get::list(session, Noun::Token, Query::default()).await,
        Verb::Revoke { id } => {
            let resource = Noun::Token.resource("", &id)?;
            change::remove_resource(session, Noun::Token, &resource, false).await
        }
    }
}

async fn make(session: &Session, create: Create) -> Result<(), Failure> {
    use v1::token_kind::Kind as Shape;
    let kind = match create.kind {
        Kind::Node => Shape::Node(v1::NodeToken {}),
        Kind::Agent => Shape::Agent(v1::AgentToken { tenant: session.client.tenant().await? }),
        Kind::Operator => {
            Shape::Operator(v1::OperatorToken { name: create.name.unwrap_or_default() })
        }
    };
    let request = v1::CreateTokenRequest {
        kind: Some(v1::TokenKind { kind: Some(kind) }),
        ttl_ms: parse::ms(create.ttl),
        uses: create.uses,
    };
    let made = session
        .client
        // Each try would make another token.
        .call_as(Effect::Unnamed, |channel| {
            let request = request.clone();
            async move { v1::tokens_client::TokensClient::new(channel).create(request).await }
        })
        .await?;
    if session.printer.is_structured() {
        return session.printer.document(&session.client.json(&made)?);
    }
    session.printer.text(&format!("{}\n", made.token))
}
