//! Deployments and their parts, to and from the wire.

use super::{
    field::{self, Read, Within},
    host::{resources_from_proto, resources_to_proto},
    meta,
    package::{env_from_proto, env_to_proto},
};
use crate::{resource, v1};
use model::{
    Condition, Counts, Deployment, DeploymentCluster, DeploymentRevision, DeploymentSpec,
    DeploymentState, Key, Name, Outlook, Override, Revision, Settling, Strategy, Targets,
    Timestamp, limits::ANTI_FLAP_MS,
};
use std::collections::BTreeMap;

/// The message of a tenant's deployment.
pub fn to_proto(tenant: &Name, deployment: &Deployment) -> v1::Deployment {
    let key = Key::Deployment(tenant.clone(), deployment.meta.name.clone());
    let revision = |revision: &DeploymentRevision| v1::DeploymentRevision {
        generation: revision.generation,
        at: Some(field::time(revision.at)),
        spec: Some(spec_to_proto(&revision.spec)),
    };
    v1::Deployment {
        meta: Some(meta::to_proto(&key, &deployment.meta)),
        spec: Some(spec_to_proto(&deployment.spec)),
        revisions: deployment.revisions.iter().map(revision).collect(),
        in_progress: deployment.in_progress,
        targetless_since: deployment.targetless_since.map(field::time),
        state: state_to_proto(deployment.state).into(),
        counts: Some(counts_to_proto(&deployment.counts)),
        status: Some(meta::status_to_proto(&deployment.status)),
        conditions: deployment.conditions.iter().map(meta::condition_to_proto).collect(),
        workload_revision: deployment.workload_revision.0,
    }
}

/// The tenant and deployment of a message.
///
/// # Errors
/// `FIELD` at the first field that is missing or malformed.
pub fn from_proto(deployment: v1::Deployment) -> Read<(Name, Deployment)> {
    let (Key::Deployment(tenant, _), meta) = meta::from_proto(deployment.meta)? else {
        return Err(resource::other_kind("meta.resource", v1::Kind::Deployment));
    };
    let revisions = deployment.revisions.into_iter().enumerate().map(|(at, revision)| {
        revision_from_proto(revision).within(format_args!("revisions[{at}]"))
    });
    let conditions = deployment.conditions.into_iter().enumerate().map(|(at, condition)| {
        meta::condition_from_proto(condition).within(format_args!("conditions[{at}]"))
    });
    let deployment = Deployment {
        meta,
        spec: spec_from_proto(deployment.spec)?,
        revisions: revisions.collect::<Read<_>>()?,
        workload_revision: Revision(deployment.workload_revision),
        in_progress: deployment.in_progress,
        targetless_since: field::read_optional_time(
            "targetless_since",
            deployment.targetless_since,
        )?,
        state: state_from_proto(deployment.state)?,
        counts: counts_from_proto(deployment.counts)?,
        status: meta::status_from_proto(deployment.status)?,
        conditions: conditions.collect::<Read<Vec<Condition>>>()?,
    };
    Ok((tenant, deployment))
}

/// The message of the part of a deployment on one cluster.
pub fn part_to_proto(
    tenant: &Name,
    deployment: &Name,
    cluster: &Name,
    part: &DeploymentCluster,
) -> v1::DeploymentCluster {
    let key = Key::DeploymentCluster(tenant.clone(), deployment.clone(), cluster.clone());
    let partitions = |(name, number): (&Name, &u32)| (name.to_string(), *number);
    v1::DeploymentCluster {
        resource: resource::format(&key).unwrap_or_default(),
        targeted: part.targeted,
        num_partitions: part.num_partitions.iter().map(partitions).collect(),
        state: state_to_proto(part.state).into(),
        counts: Some(counts_to_proto(&part.counts)),
        status: Some(meta::status_to_proto(&part.status)),
    }
}

/// Tenant, deployment, cluster and the part that a message says.
///
/// # Errors
/// `FIELD` at the first field that is missing or malformed.
pub fn part_from_proto(
    part: v1::DeploymentCluster,
) -> Read<((Name, Name, Name), DeploymentCluster)> {
    let key = resource::parse("resource", &part.resource)?;
    let Key::DeploymentCluster(tenant, deployment, cluster) = key else {
        return Err(resource::other_kind("resource", v1::Kind::DeploymentCluster));
    };
    let part = DeploymentCluster {
        targeted: part.targeted,
        num_partitions: field::name_map("num_partitions", part.num_partitions, Ok)?,
        state: state_from_proto(part.state)?,
        counts: counts_from_proto(part.counts)?,
        status: meta::status_from_proto(part.status)?,
    };
    Ok(((tenant, deployment, cluster), part))
}

/// Adds to a deployment's or part's status what follows from the time `now`: when what failed is tried
/// again, and that jobs are up which do not count as running yet.
pub fn foresee(status: &mut Option<v1::Status>, outlook: &Outlook, now: Timestamp) {
    let Some(status) = status else { return };
    status.next_retry_at = outlook.next_retry_at.map(field::time);
    let Settling { jobs, until } = outlook.settling;
    let counts = status.indicator != i32::from(v1::Indicator::Idle) && jobs > 0;
    if counts {
        let left_ms = until.since_ms(now).min(ANTI_FLAP_MS);
        let (healthy, needed) = ((ANTI_FLAP_MS - left_ms) / 1_000, ANTI_FLAP_MS / 1_000);
        let more = format!("; {jobs} up, healthy for {healthy} s of {needed} s");
        status.text.push_str(&more);
    }
}

pub(crate) fn spec_to_proto(spec: &DeploymentSpec) -> v1::DeploymentSpec {
    let targets = match &spec.targets {
        Targets::Clusters(clusters) => v1::targets::Targets::Clusters(v1::ClusterNames {
            names: clusters.iter().map(Name::to_string).collect(),
        }),
        Targets::Selector(labels) => {
            v1::targets::Targets::Selector(v1::LabelSelector { labels: labels.clone() })
        }
    };
    let change = |change: &Override| v1::Override {
        env: env_to_proto(&change.env),
        num_partitions: change.num_partitions,
        limits: change.limits.map(resources_to_proto),
    };
    v1::DeploymentSpec {
        package: spec.package.to_string(),
        version: spec.version.clone(),
        profile: spec.profile.as_ref().map(Name::to_string),
        overrides: spec
            .overrides
            .iter()
            .map(|(name, found)| (name.to_string(), change(found)))
            .collect(),
        targets: Some(v1::Targets { targets: Some(targets) }),
        strategy: Some(v1::Strategy { max_unavailable: spec.strategy.max_unavailable }),
    }
}

pub(crate) fn spec_from_proto(spec: Option<v1::DeploymentSpec>) -> Read<DeploymentSpec> {
    let spec = field::required("spec", spec)?;
    read_spec(spec).within("spec")
}

fn read_spec(spec: v1::DeploymentSpec) -> Read<DeploymentSpec> {
    let targets = field::required("targets", spec.targets.and_then(|targets| targets.targets))?;
    let targets = match targets {
        v1::targets::Targets::Clusters(clusters) => {
            Targets::Clusters(field::name_set("names", &clusters.names).within("targets.clusters")?)
        }
        v1::targets::Targets::Selector(selector) => Targets::Selector(selector.labels),
    };
    let max_unavailable = spec.strategy.map_or(1, |strategy| strategy.max_unavailable);
    Ok(DeploymentSpec {
        package: field::name("package", &spec.package)?,
        version: field::version("version", spec.version)?,
        profile: field::optional_name("profile", spec.profile.as_deref())?,
        overrides: overrides_from_proto(spec.overrides)?,
        targets,
        strategy: Strategy { max_unavailable },
    })
}

fn overrides_from_proto(
    overrides: BTreeMap<String, v1::Override>,
) -> Read<BTreeMap<Name, Override>> {
    field::name_map("overrides", overrides, |change| {
        Ok(Override {
            env: env_from_proto(change.env)?,
            num_partitions: change.num_partitions,
            limits: change
                .limits
                .map(|limits| resources_from_proto("limits", Some(limits)))
                .transpose()?,
        })
    })
}

fn revision_from_proto(revision: v1::DeploymentRevision) -> Read<DeploymentRevision> {
    Ok(DeploymentRevision {
        generation: revision.generation,
        at: field::read_time("at", revision.at)?,
        spec: spec_from_proto(revision.spec)?,
    })
}

fn counts_to_proto(counts: &Counts) -> v1::Counts {
    v1::Counts {
        total: counts.total,
        running: counts.running,
        pending: counts.pending,
        unknown: counts.unknown,
        failed: counts.failed,
    }
}

fn counts_from_proto(counts: Option<v1::Counts>) -> Read<Counts> {
    let counts = field::required("counts", counts)?;
    Ok(Counts {
        total: counts.total,
        running: counts.running,
        pending: counts.pending,
        unknown: counts.unknown,
        failed: counts.failed,
    })
}

fn state_to_proto(state: DeploymentState) -> v1::DeploymentState {
    match state {
        DeploymentState::Unknown => v1::DeploymentState::Unknown,
        DeploymentState::Running => v1::DeploymentState::Running,
        DeploymentState::Down => v1::DeploymentState::Down,
        DeploymentState::InternalError => v1::DeploymentState::InternalError,
        DeploymentState::Deploying => v1::DeploymentState::Deploying,
        DeploymentState::Updating => v1::DeploymentState::Updating,
        DeploymentState::Terminating => v1::DeploymentState::Terminating,
        DeploymentState::Error => v1::DeploymentState::Error,
        DeploymentState::NoTargetClusters => v1::DeploymentState::NoTargetClusters,
    }
}

fn state_from_proto(state: i32) -> Read<DeploymentState> {
    match v1::DeploymentState::try_from(state) {
        Ok(v1::DeploymentState::Unknown) => Ok(DeploymentState::Unknown),
        Ok(v1::DeploymentState::Running) => Ok(DeploymentState::Running),
        Ok(v1::DeploymentState::Down) => Ok(DeploymentState::Down),
        Ok(v1::DeploymentState::InternalError) => Ok(DeploymentState::InternalError),
        Ok(v1::DeploymentState::Deploying) => Ok(DeploymentState::Deploying),
        Ok(v1::DeploymentState::Updating) => Ok(DeploymentState::Updating),
        Ok(v1::DeploymentState::Terminating) => Ok(DeploymentState::Terminating),
        Ok(v1::DeploymentState::Error) => Ok(DeploymentState::Error),
        Ok(v1::DeploymentState::NoTargetClusters) => Ok(DeploymentState::NoTargetClusters),
        Ok(v1::DeploymentState::Unspecified) | Err(_) => {
            field::unknown_word("state", "the states of a deployment, such as RUNNING")
        }
    }
}
