//! `get` and `describe`: what there is, and all about one.

use crate::{
    command::{Session, watch},
    failure::Failure,
    noun::{Freshness, Noun, Query},
    render,
};
use serde_json::Value;

/// What to show.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  muster get hosts\n  muster get jobs --deployment shop -o wide\n  \
    muster get deployment shop -o yaml\n  muster get jobs -w\n  muster get hosts --stale"
)]
pub struct Arguments {
    /// Kind: tenant, host, cluster, image, package, deployment, job, role, token or node
    kind: Noun,
    /// Name; all of the kind if not given
    name: Option<String>,
    /// Labels that must match
    #[arg(short = 'l', long, default_value = "", value_name = "K=V,..")]
    selector: String,
    /// Jobs of this deployment
    #[arg(long)]
    deployment: Option<String>,
    /// Jobs in this cluster
    #[arg(long)]
    cluster: Option<String>,
    /// Jobs on this host
    #[arg(long)]
    host: Option<String>,
    /// Then show what changes
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    freshness: Freshness,
}

/// What to show all about.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  muster describe deployment shop\n  muster describe job shop/north/web/0"
)]
pub struct DescribeArguments {
    /// Kind
    kind: Noun,
    /// Name
    name: String,
    #[command(flatten)]
    freshness: Freshness,
}

pub(super) async fn run(session: &Session, arguments: Arguments) -> Result<(), Failure> {
    let noun = arguments.kind;
    match &arguments.name {
        Some(name) => {
            session.printer.one(noun, &read_as(session, noun, name, arguments.freshness).await?)?;
        }
        None => {
            let query = Query {
                freshness: arguments.freshness,
                tenant: String::new(),
                selector: arguments.selector,
                deployment: arguments.deployment,
                cluster: arguments.cluster,
                host: arguments.host,
            };
            list(session, noun, query).await?;
        }
    }
    if arguments.watch {
        watch::follow(session, &[noun], None).await?;
    }
    Ok(())
}

pub(super) async fn list(session: &Session, noun: Noun, mut query: Query) -> Result<(), Failure> {
    if noun.is_of_tenant() {
        query.tenant = session.client.tenant_as(query.freshness).await?;
    }
    let rows = noun.list(&session.client, &query).await?;
    session.printer.list(noun, &rows)
}

pub(super) async fn one(session: &Session, noun: Noun, name: &str) -> Result<(), Failure> {
    session.printer.one(noun, &read(session, noun, name).await?)
}

/// One resource as it is now.
pub(super) async fn read(session: &Session, noun: Noun, name: &str) -> Result<Value, Failure> {
    read_as(session, noun, name, Freshness::default()).await
}

async fn read_as(
    session: &Session,
    noun: Noun,
    name: &str,
    freshness: Freshness,
) -> Result<Value, Failure> {
    let tenant = match noun.is_of_tenant() {
        true => session.client.tenant_as(freshness).await?,
        false => String::new(),
    };
    let resource = noun.resource(&tenant, name)?;
    match noun.get_as(&session.client, &resource, freshness).await {
        Err(failure) => Err(noun.perhaps(&session.client, name, failure).await),
        found => found,
    }
}

pub(super) async fn describe(
    session: &Session,
    arguments: &DescribeArguments,
) -> Result<(), Failure> {
    let (noun, freshness) = (arguments.kind, arguments.freshness);
    let one = read_as(session, noun, &arguments.name, freshness).await?;
    let jobs = match noun {
        Noun::Deployment | Noun::Cluster | Noun::Host => {
            let name = Some(arguments.name.clone());
            let tenant = session.client.tenant_as(freshness).await?;
            let mut query = Query { tenant, freshness, ..Query::default() };
            match noun {
                Noun::Deployment => query.deployment = name,
                Noun::Cluster => query.cluster = name,
                _ => query.host = name,
            }
            Some(Noun::Job.list(&session.client, &query).await?)
        }
        _ => None,
    };
    let why = (noun == Noun::Job).then(|| render::reason(&one)).flatten();
    let why = why.and_then(|reason| Some((reason, api::job_reason::meaning(reason)?)));
    if session.printer.is_structured() {
        let mut document = one.clone();
        if let (Some(jobs), Some(map)) = (jobs, document.as_object_mut()) {
            map.insert("jobs".into(), jobs.into());
        }
        if let (Some((_, meaning)), Some(map)) = (why, document.as_object_mut()) {
            map.insert("meaning".into(), meaning.into());
        }
        return session.printer.document(&document);
    }
    session.printer.document(&one)?;
    if let Some((reason, meaning)) = why {
        session.printer.text(&format!("\n{reason}: {meaning} (docs/job-reasons.md)\n"))?;
    }
    if let Some(jobs) = jobs.filter(|jobs| !jobs.is_empty()) {
        session.printer.text("\njobs:\n")?;
        session.printer.list(Noun::Job, &jobs)?;
        for job in &jobs {
            let detail = render::detail(job);
            if !detail.is_empty() {
                session.printer.text(&format!("{}: {detail}\n", render::job_name(job)))?;
            }
        }
    }
    Ok(())
}
