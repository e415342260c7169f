//! `muster deploy`: an image or a package version onto clusters, in one step.
//!
//! A lone image becomes a package of one application with the image's own defaults; package and
//! deployment are applied together, both or none.

use crate::{
    command::{Session, apply, image, status},
    document,
    failure::Failure,
    noun::Noun,
    parse,
    render::number,
};
use api::v1;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path, process::ExitCode, time::Duration};

/// What to deploy, and where.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  muster deploy ./ticker/image --name ticker --cluster north\n  \
    muster deploy sha256:0123... --name ticker --selector color=blue --partitions 8 --wait\n  \
    muster deploy shop@1.2 --name shop --cluster north --cluster south --wait=5m"
)]
pub struct Arguments {
    /// A digest of a pushed image, a folder or zip to push first, or PACKAGE@VERSION
    what: String,
    /// Name of the deployment; the application's or package's if not given
    #[arg(long)]
    name: Option<String>,
    /// Clusters to deploy to
    #[arg(long = "cluster", value_name = "CLUSTER")]
    clusters: Vec<String>,
    /// Deploy to every cluster with these labels, now and later
    #[arg(long, value_name = "K=V,..", value_parser = parse::pairs, conflicts_with = "clusters")]
    selector: Option<BTreeMap<String, String>>,
    /// Number of partitions; frozen once deployed to a cluster
    #[arg(long, value_name = "NUMBER", value_parser = parse::whole)]
    partitions: Option<u32>,
    /// Environment of every partition
    #[arg(long = "env", value_name = "K=V", value_parser = parse::pair)]
    env: Vec<(String, String)>,
    /// For an image: keep_running, stop or replace
    #[arg(long, value_name = "POLICY")]
    on_disconnect: Option<String>,
    /// Memory of each partition, such as 64MiB
    #[arg(long, value_parser = parse::bytes)]
    memory: Option<u64>,
    /// CPU of each partition, such as 250m
    #[arg(long, value_parser = parse::cpu_millis)]
    cpu: Option<u64>,
    /// Partitions that may be down at once because of an update
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = parse::whole)]
    max_unavailable: u32,
    /// Wait until it runs, at most so long
    #[arg(long, value_name = "SPAN", value_parser = parse::span, num_args = 0..=1,
        default_missing_value = "10m", require_equals = true)]
    wait: Option<Duration>,
}

impl Arguments {
    /// Name and version of the stored package to deploy; `None` for an image.
    fn stored(&self) -> Option<(&str, &str)> {
        self.what.split_once('@').filter(|_| !Path::new(&self.what).exists())
    }

    /// Refuses before anything is pushed or asked what could not be done.
    fn check(&self) -> Result<(), Failure> {
        if self.clusters.is_empty() && self.selector.is_none() {
            let message = "no cluster is named to deploy to".to_owned();
            let remedy = "name clusters with --cluster NAME, or their labels with --selector K=V; \
                          `muster cluster list` shows both";
            return Err(Failure::usage(message, remedy).at("cluster"));
        }
        let Some(policy) = &self.on_disconnect else { return Ok(()) };
        if self.stored().is_some() {
            let message =
                format!("{} has the policy of its applications, which never changes", self.what);
            let remedy = "leave it out, or apply another version of the package with this policy";
            return Err(Failure::usage(message, remedy).at("on_disconnect"));
        }
        let known = document::on_disconnect(policy).map(|_| ());
        known.map_err(|_| {
            let message = format!("--on-disconnect {policy} is no policy for lost contact");
            let remedy = "choose keep_running, stop or replace";
            Failure::usage(message, remedy).at("on_disconnect")
        })
    }
}

/// A package version that is, or is to be.
struct Package {
    name: String,
    version: String,
    /// Names of its applications.
    applications: Vec<String>,
    /// What has to be stored first.
    draft: Option<v1::Document>,
    /// Limits of its first application.
    limits: v1::Resources,
}

pub(super) async fn run(session: &Session, arguments: Arguments) -> Result<ExitCode, Failure> {
    arguments.check()?;
    let tenant = session.client.tenant().await?;
    let package = match arguments.stored() {
        Some((name, version)) => stored(session, &tenant, name, version).await?,
        None => lone_image(session, &tenant, &arguments).await?,
    };
    let name = arguments.name.clone().unwrap_or_else(|| package.name.clone());
    let spec = spec(&arguments, &package);
    let deployment = v1::DeploymentDraft {
        resource: Noun::Deployment.resource(&tenant, &name)?,
        spec: Some(spec),
        ..v1::DeploymentDraft::default()
    };
    let draft = v1::document::Draft::Deployment(deployment);
    let mut documents: Vec<_> = package.draft.into_iter().collect();
    documents.push(v1::Document { draft: Some(draft) });
    let response = match apply::send(&session.client, documents, false).await {
        Err(failure) if failure.reason == "UNKNOWN_CLUSTER" => {
            return Err(perhaps(session, &arguments.clusters, failure).await);
        }
        sent => sent?,
    };
    if let Some(span) = arguments.wait {
        status::say_waiting(&name, span);
        return status::wait(session, &name, span).await;
    }
    if let Some(outcome) = response.outcomes.last() {
        session.printer.outcome(&session.client.json(outcome)?, "configured")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The failure, with the cluster that was perhaps meant by one that is not there.
async fn perhaps(session: &Session, clusters: &[String], failure: Failure) -> Failure {
    for name in clusters {
        let better = Noun::Cluster.perhaps(&session.client, name, failure.clone()).await;
        if better != failure {
            return better;
        }
    }
    failure
}

async fn stored(
    session: &Session,
    tenant: &str,
    name: &str,
    version: &str,
) -> Result<Package, Failure> {
    let resource = Noun::Package.resource(tenant, &format!("{name}@{version}"))?;
    let found = match Noun::Package.get(&session.client, &resource).await {
        Err(failure) => {
            let wanted = format!("{name}@{version}");
            return Err(Noun::Package.perhaps(&session.client, &wanted, failure).await);
        }
        Ok(found) => found,
    };
    let applications = found["applications"].as_array().into_iter().flatten();
    let limits = found["applications"].get(0).map(limits_of).unwrap_or_default();
    Ok(Package {
        name: name.to_owned(),
        version: version.to_owned(),
        applications: applications
            .filter_map(|it| it["name"].as_str().map(str::to_owned))
            .collect(),
        draft: None,
        limits,
    })
}

/// A package of one application for an image, with the image's defaults. Its version is that of the
/// application and the digest: another build of the same version is another package version.
async fn lone_image(
    session: &Session,
    tenant: &str,
    arguments: &Arguments,
) -> Result<Package, Failure> {
    let image = if arguments.what.starts_with("sha256:") {
        let resource = Noun::Image.resource(tenant, &arguments.what)?;
        Noun::Image.get(&session.client, &resource).await?
    } else {
        image::push(session, Path::new(&arguments.what)).await?
    };
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let digest = word(&image["digest"]);
    let application = &image["application"];
    let name = word(&application["name"]);
    let mut applied = v1::Application {
        name: name.clone(),
        version: word(&application["version"]),
        driver: document::driver(&word(&application["driver"]))?.into(),
        num_partitions: u32::try_from(number(&application["num_partitions"])).unwrap_or(u32::MAX),
        artifacts: BTreeMap::from([("main".to_owned(), digest.clone())]),
        limits: Some(limits_of(application)),
        on_disconnect: document::on_disconnect(&word(&application["on_disconnect"]))?.into(),
        stop_grace_ms: number(&application["stop_grace_ms"]),
        ..v1::Application::default()
    };
    let mut version = format!("{}-{}", applied.version, digest.get(7..15).unwrap_or_default());
    if let Some(policy) = &arguments.on_disconnect {
        applied.on_disconnect = document::on_disconnect(policy)?.into();
        // A package version never changes: another policy is another version.
        version = format!("{version}-{}", policy.replace('_', "-"));
    }
    let draft = v1::PackageDraft {
        resource: Noun::Package.resource(tenant, &format!("{name}@{version}"))?,
        applications: vec![applied],
        ..v1::PackageDraft::default()
    };
    let draft = v1::document::Draft::Package(draft);
    Ok(Package {
        applications: vec![name.clone()],
        limits: limits_of(application),
        draft: Some(v1::Document { draft: Some(draft) }),
        name,
        version,
    })
}

fn limits_of(application: &Value) -> v1::Resources {
    v1::Resources {
        cpu_millis: number(&application["limits"]["cpu_millis"]),
        memory_bytes: number(&application["limits"]["memory_bytes"]),
    }
}

fn spec(arguments: &Arguments, package: &Package) -> v1::DeploymentSpec {
    use v1::targets::Targets;
    let targets = match &arguments.selector {
        Some(labels) => Targets::Selector(v1::LabelSelector { labels: labels.clone() }),
        None => Targets::Clusters(v1::ClusterNames { names: arguments.clusters.clone() }),
    };
    let limits = (arguments.memory.is_some() || arguments.cpu.is_some()).then(|| v1::Resources {
        cpu_millis: arguments.cpu.unwrap_or(package.limits.cpu_millis),
        memory_bytes: arguments.memory.unwrap_or(package.limits.memory_bytes),
    });
    let literal =
        |text: &String| v1::Value { value: Some(v1::value::Value::Literal(text.clone())) };
    let env: BTreeMap<_, _> =
        arguments.env.iter().map(|(name, text)| (name.clone(), literal(text))).collect();
    let change = v1::Override { env, num_partitions: arguments.partitions, limits };
    let overrides = if change == v1::Override::default() {
        BTreeMap::new()
    } else {
        package.applications.iter().map(|name| (name.clone(), change.clone())).collect()
    };
    v1::DeploymentSpec {
        package: package.name.clone(),
        version: package.version.clone(),
        profile: None,
        overrides,
        targets: Some(v1::Targets { targets: Some(targets) }),
        strategy: Some(v1::Strategy { max_unavailable: arguments.max_unavailable }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::exit;
    use clap::{Args, FromArgMatches};

    fn read(words: &[&str]) -> Arguments {
        let command = Arguments::augment_args(clap::Command::new("deploy").no_binary_name(true));
        let all = [words, &["--cluster", "north"]].concat();
        Arguments::from_arg_matches(&command.try_get_matches_from(all).unwrap()).unwrap()
    }

    #[test]
    fn a_policy_that_would_be_ignored_or_is_none_is_refused_before_anything_is_sent() {
        let nowhere = Arguments { clusters: Vec::new(), ..read(&["./image"]) };
        assert_eq!(nowhere.check().unwrap_err().field, "cluster");
        for words in [["shop@1.0", "--on-disconnect=stop"], ["./image", "--on-disconnect=hope"]] {
            let refused = read(&words).check().unwrap_err();
            assert_eq!((refused.exit, refused.field.as_str()), (exit::USAGE, "on_disconnect"));
            assert!(!refused.remedy.is_empty(), "{words:?}");
        }
        assert_eq!(read(&["./image", "--on-disconnect=stop"]).check(), Ok(()));
        assert_eq!(read(&["shop@1.0"]).check(), Ok(()));
    }
}
