//! Verbs that change tenants, hosts and clusters, and `delete` for all kinds.

use crate::{
    client::request_id,
    command::{Session, apply, get, members, rules},
    document,
    failure::Failure,
    noun::{Noun, Query},
    parse,
};
use api::v1;
use std::path::PathBuf;
use v1::document::Draft;

/// Verbs about tenants.
#[derive(Debug, clap::Subcommand)]
pub enum TenantVerb {
    /// Creates a tenant, or changes its text
    #[command(after_help = "Examples:\n  muster tenant create acme --display-name 'Acme Stores'")]
    Create {
        /// Name
        name: String,
        /// Text for people; the name if not given
        #[arg(long)]
        display_name: Option<String>,
    },
    /// Lists those you may see
    #[command(after_help = "Examples:\n  muster tenant list -o name")]
    List,
    /// Shows one
    #[command(after_help = "Examples:\n  muster tenant get acme -o yaml")]
    Get {
        /// Name
        name: String,
    },
    /// Deletes one, with everything in it
    #[command(after_help = "Examples:\n  muster tenant delete acme")]
    Delete {
        /// Name
        name: String,
    },
}

/// Verbs about hosts.
#[derive(Debug, clap::Subcommand)]
pub enum HostVerb {
    /// Registers a host before its agent joins, or changes its site, zone and labels
    #[command(after_help = "Examples:\n  muster host register till-17 --site store-4 --zone north")]
    Register {
        /// Name
        name: String,
        /// Site it stands at
        #[arg(long)]
        site: Option<String>,
        /// Failure zone
        #[arg(long)]
        zone: Option<String>,
        /// Labels
        #[arg(long = "label", value_name = "K=V", value_parser = parse::pair)]
        labels: Vec<(String, String)>,
    },
    /// Lists hosts
    #[command(after_help = "Examples:\n  muster host list -o wide\n  muster host list -l rack=7")]
    List {
        /// Labels that must match
        #[arg(short = 'l', long, default_value = "", value_name = "K=V,..")]
        selector: String,
    },
    /// Shows one
    #[command(after_help = "Examples:\n  muster host get till-17 -o yaml")]
    Get {
        /// Name
        name: String,
    },
    /// No new jobs on a host
    #[command(after_help = "Examples:\n  muster host cordon till-17")]
    Cordon(CordonArguments),
    /// New jobs on a host again
    #[command(after_help = "Examples:\n  muster host uncordon till-17")]
    Uncordon(CordonArguments),
    /// Says that a host will not return: what must not run twice may be replaced
    #[command(
        after_help = "Examples:\n  muster host declare-lost till-17\n  muster host declare-lost till-17 --undo"
    )]
    DeclareLost {
        /// Name
        name: String,
        /// It will return after all
        #[arg(long)]
        undo: bool,
    },
    /// Deletes a host
    #[command(
        after_help = "Examples:\n  muster host delete till-17\n  muster host delete till-17 --force"
    )]
    Delete {
        /// Name
        name: String,
        /// Do not wait for a host out of contact
        #[arg(long)]
        force: bool,
    },
}

/// Verbs about clusters.
#[derive(Debug, clap::Subcommand)]
pub enum ClusterVerb {
    /// Creates a cluster of hosts, or changes it
    #[command(
        after_help = "Examples:\n  muster cluster create north --members h1,h2 --environment production --label color=blue"
    )]
    Create {
        /// Name
        name: String,
        /// Hosts in it
        #[arg(long, value_delimiter = ',', value_name = "HOST,..")]
        members: Vec<String>,
        /// Environment, such as production
        #[arg(long)]
        environment: Option<String>,
        /// Labels, for selectors
        #[arg(long = "label", value_name = "K=V", value_parser = parse::pair)]
        labels: Vec<(String, String)>,
    },
    /// Lists clusters of hosts
    #[command(after_help = "Examples:\n  muster cluster list -o wide")]
    List {
        /// Labels that must match
        #[arg(short = 'l', long, default_value = "", value_name = "K=V,..")]
        selector: String,
    },
    /// Shows one cluster of hosts
    #[command(after_help = "Examples:\n  muster cluster get north -o yaml")]
    Get {
        /// Name
        name: String,
    },
    /// Deletes a cluster of hosts; the hosts stay
    #[command(after_help = "Examples:\n  muster cluster delete north")]
    Delete {
        /// Name
        name: String,
        /// Do not wait for hosts out of contact
        #[arg(long)]
        force: bool,
    },
    /// Raises the rules level, where the leader is not to do it by itself
    RaiseRules(rules::Arguments),
    /// Verbs about the control nodes.
    #[command(flatten)]
    Nodes(members::Verb),
}

/// A host to cordon or uncordon.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  muster cordon till-17\n  muster uncordon till-17")]
pub struct CordonArguments {
    /// Name of the host
    name: String,
}

/// What to delete.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  muster delete deployment shop\n  muster delete deployment shop --force\n  \
    muster delete -f shop.yaml"
)]
pub struct DeleteArguments {
    /// Kind, such as deployment
    #[arg(required_unless_present = "file", requires = "name")]
    kind: Option<Noun>,
    /// Name
    name: Option<String>,
    /// Delete what these documents name, the last one first
    #[arg(short, long, value_name = "FILE", conflicts_with = "kind")]
    file: Option<PathBuf>,
    /// Do not wait for hosts out of contact
    #[arg(long)]
    force: bool,
}

pub(super) async fn tenant(session: &Session, verb: TenantVerb) -> Result<(), Failure> {
    match verb {
        TenantVerb::Create { name, display_name } => {
            let draft = v1::TenantDraft {
                resource: format!("tenants/{name}"),
                display_name: display_name.unwrap_or(name),
                ..v1::TenantDraft::default()
            };
            apply::one(session, Draft::Tenant(draft), "configured").await
        }
        TenantVerb::List => get::list(session, Noun::Tenant, Query::default()).await,
        TenantVerb::Get { name } => get::one(session, Noun::Tenant, &name).await,
        TenantVerb::Delete { name } => remove(session, Noun::Tenant, &name, false).await,
    }
}

pub(super) async fn host(session: &Session, verb: HostVerb) -> Result<(), Failure> {
    match verb {
        HostVerb::Register { name, site, zone, labels } => {
            let tenant = session.client.tenant().await?;
            let draft = v1::HostDraft {
                resource: format!("tenants/{tenant}/hosts/{name}"),
                labels: labels.into_iter().collect(),
                site,
                zone,
                ..v1::HostDraft::default()
            };
            apply::one(session, Draft::Host(draft), "configured").await
        }
        HostVerb::List { selector } => {
            get::list(session, Noun::Host, Query { selector, ..Query::default() }).await
        }
        HostVerb::Get { name } => get::one(session, Noun::Host, &name).await,
        HostVerb::Cordon(arguments) => cordon(session, &arguments, true).await,
        HostVerb::Uncordon(arguments) => cordon(session, &arguments, false).await,
        HostVerb::DeclareLost { name, undo } => declare_lost(session, &name, !undo).await,
        HostVerb::Delete { name, force } => remove(session, Noun::Host, &name, force).await,
    }
}

pub(super) async fn cluster(session: &Session, verb: ClusterVerb) -> Result<(), Failure> {
    match verb {
        ClusterVerb::Create { name, members, environment, labels } => {
            let tenant = session.client.tenant().await?;
            let draft = v1::ClusterDraft {
                resource: format!("tenants/{tenant}/clusters/{name}"),
                labels: labels.into_iter().collect(),
                spec: Some(v1::ClusterSpec { environment, members }),
                ..v1::ClusterDraft::default()
            };
            apply::one(session, Draft::Cluster(draft), "configured").await
        }
        ClusterVerb::List { selector } => {
            get::list(session, Noun::Cluster, Query { selector, ..Query::default() }).await
        }
        ClusterVerb::Get { name } => get::one(session, Noun::Cluster, &name).await,
        ClusterVerb::Delete { name, force } => remove(session, Noun::Cluster, &name, force).await,
        ClusterVerb::RaiseRules(arguments) => rules::run(session, &arguments).await,
        ClusterVerb::Nodes(verb) => members::run(session, verb).await,
    }
}

pub(super) async fn cordon(
    session: &Session,
    arguments: &CordonArguments,
    cordoned: bool,
) -> Result<(), Failure> {
    let tenant = session.client.tenant().await?;
    let request = v1::CordonHostRequest {
        resource: Noun::Host.resource(&tenant, &arguments.name)?,
        cordoned,
        request_id: request_id()?,
        ..v1::CordonHostRequest::default()
    };
    let call = session.client.change(|channel| {
        let request = request.clone();
        async move { v1::hosts_client::HostsClient::new(channel).cordon(request).await }
    });
    let done = if cordoned { "cordoned" } else { "uncordoned" };
    about(session, Noun::Host, &arguments.name, call.await, done).await
}

async fn declare_lost(session: &Session, name: &str, lost: bool) -> Result<(), Failure> {
    let tenant = session.client.tenant().await?;
    let request = v1::DeclareHostLostRequest {
        resource: Noun::Host.resource(&tenant, name)?,
        lost,
        request_id: request_id()?,
        ..v1::DeclareHostLostRequest::default()
    };
    let call = session.client.change(|channel| {
        let request = request.clone();
        async move { v1::hosts_client::HostsClient::new(channel).declare_lost(request).await }
    });
    let done = if lost { "declared lost" } else { "no longer declared lost" };
    about(session, Noun::Host, name, call.await, done).await
}

pub(super) async fn delete(session: &Session, arguments: &DeleteArguments) -> Result<(), Failure> {
    if let Some(file) = &arguments.file {
        let sources = document::read(file, async || session.client.tenant().await).await?;
        for source in sources.iter().rev() {
            let resource = document::resource(&source.document);
            let noun = noun_of(&source.document);
            remove_resource(session, noun, resource, arguments.force).await?;
        }
        return Ok(());
    }
    let (Some(noun), Some(name)) = (arguments.kind, &arguments.name) else { return Ok(()) };
    remove(session, noun, name, arguments.force).await
}

fn noun_of(document: &v1::Document) -> Noun {
    match &document.draft {
        Some(Draft::Host(_)) => Noun::Host,
        Some(Draft::Cluster(_)) => Noun::Cluster,
        Some(Draft::Package(_)) => Noun::Package,
        Some(Draft::Deployment(_)) => Noun::Deployment,
        Some(Draft::RoleBinding(_)) => Noun::RoleBinding,
        Some(Draft::Tenant(_)) | None => Noun::Tenant,
    }
}

async fn remove(session: &Session, noun: Noun, name: &str, force: bool) -> Result<(), Failure> {
    let tenant = if noun.is_of_tenant() { session.client.tenant().await? } else { String::new() };
    let resource = noun.resource(&tenant, name)?;
    match remove_resource(session, noun, &resource, force).await {
        Err(failure) => Err(noun.perhaps(&session.client, name, failure).await),
        Ok(()) => Ok(()),
    }
}

/// Prints what came of a change of one resource that somebody named.
pub(super) async fn about(
    session: &Session,
    noun: Noun,
    name: &str,
    outcome: Result<v1::Outcome, Failure>,
    done: &str,
) -> Result<(), Failure> {
    match outcome {
        Ok(outcome) => session.printer.outcome(&session.client.json(&outcome)?, done),
        Err(failure) => Err(noun.perhaps(&session.client, name, failure).await),
    }
}

pub(crate) async fn remove_resource(
    session: &Session,
    noun: Noun,
    resource: &str,
    force: bool,
) -> Result<(), Failure> {
    let request = v1::DeleteRequest {
        resource: resource.to_owned(),
        force,
        request_id: request_id()?,
        ..v1::DeleteRequest::default()
    };
    macro_rules! delete {
        ($module:ident :: $client:ident . $method:ident) => {
            session
                .client
                .change(|channel| {
                    let request = request.clone();
                    async move { v1::$module::$client::new(channel).$method(request).await }
                })
                .await?
        };
    }
    let outcome = match noun {
        Noun::Tenant => delete!(tenants_client::TenantsClient.delete),
        Noun::Host => delete!(hosts_client::HostsClient.delete),
        Noun::Cluster => delete!(clusters_client::ClustersClient.delete),
        Noun::Image => delete!(images_client::ImagesClient.delete),
        Noun::Package => delete!(packages_client::PackagesClient.delete),
        Noun::Deployment => delete!(deployments_client::DeploymentsClient.delete),
        Noun::RoleBinding => delete!(role_bindings_client::RoleBindingsClient.delete),
        Noun::Token => delete!(tokens_client::TokensClient.revoke),
        Noun::Job | Noun::Node => {
            let message = format!("a {} is not deleted by hand", noun.word());
            return Err(Failure::usage(
                message,
                "jobs follow from deployments: delete the deployment",
            ));
        }
    };
    session.printer.outcome(&session.client.json(&outcome)?, "deletion requested")
}
