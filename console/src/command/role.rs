//! `muster role`: who may do what.

use crate::{
    command::{Session, apply, change, get},
    document,
    failure::Failure,
    noun::{Noun, Query},
};
use api::v1;

/// Verbs about roles.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Gives an operator a role in the tenant, or everywhere
    #[command(
        after_help = "Examples:\n  muster role bind ann operator --tenant acme\n  muster role bind bob viewer --everywhere"
    )]
    Bind {
        /// The operator
        operator: String,
        /// viewer, operator or admin
        role: String,
        /// In every tenant, and for what belongs to none
        #[arg(long)]
        everywhere: bool,
    },
    /// Takes an operator's role in the tenant, or everywhere, away
    #[command(after_help = "Examples:\n  muster role unbind ann --tenant acme")]
    Unbind {
        /// The operator
        operator: String,
        /// The role that holds everywhere
        #[arg(long)]
        everywhere: bool,
    },
    /// Lists who has which role where
    #[command(after_help = "Examples:\n  muster role list")]
    List,
}

pub(super) async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Bind { operator, role, everywhere } => {
            let resource = resource(session, &operator, everywhere).await?;
            // A role in one tenant is not one everywhere: say which it is.
            let tenant = resource.strip_prefix("tenants/").and_then(|it| it.split('/').next());
            let place = tenant.map_or("everywhere".to_owned(), |it| format!("in tenant {it}"));
            let draft = v1::RoleBindingDraft {
                resource: resource.clone(),
                role: document::role(&role)?.into(),
            };
            let done = format!("bound as {role} {place}");
            apply::one(session, v1::document::Draft::RoleBinding(draft), &done).await
        }
        Verb::Unbind { operator, everywhere } => {
            let resource = resource(session, &operator, everywhere).await?;
            change::remove_resource(session, Noun::RoleBinding, &resource, false).await
        }
        Verb::List => get::list(session, Noun::RoleBinding, Query::default()).await,
    }
}

async fn resource(session: &Session, operator: &str, everywhere: bool) -> Result<String, Failure> {
    if everywhere {
        return Ok(format!("bindings/{operator}"));
    }
    Ok(format!("tenants/{}/bindings/{operator}", session.client.tenant().await?))
}
