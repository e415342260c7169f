//! (4) Every derived row has an owner that is there, after each entry: jobs a part, a deployment and
//! hosts; parts a deployment and a cluster; nothing outlives its tenant.

use super::Found;
use model::{Change, Key, State};

/// Nothing that this entry wrote, or took the owner of, is without an owner.
pub(super) fn none(state: &State, changes: &[Change]) -> Found {
    let owners = |key: &Key| {
        matches!(
            key,
            Key::Tenant(_)
                | Key::Host(..)
                | Key::Cluster(..)
                | Key::Deployment(..)
                | Key::DeploymentCluster(..)
        )
    };
    let removed = changes.iter().any(|change| change.after.is_none() && owners(&change.key));
    let created = changes.iter().any(|change| change.before.is_none());
    if !removed && !created {
        return Ok(());
    }
    for (key, job) in state.jobs.iter() {
        let at = (key.tenant.clone(), key.deployment.clone(), key.cluster.clone());
        if !state.deployment_clusters.contains(&at) {
            return Err(format!("job {key} has no part"));
        }
        for placement in &job.placements {
            if state.host(&key.tenant, &placement.host).is_none() {
                return Err(format!("job {key} is on {}, which is gone", placement.host));
            }
        }
    }
    for ((tenant, deployment, cluster), _) in state.deployment_clusters.iter() {
        let owned = state.deployment(tenant, deployment).is_some()
            && state.cluster(tenant, cluster).is_some();
        if !owned {
            return Err(format!("part {deployment} on {cluster} has no owner"));
        }
    }
    let hosts = state.hosts.iter().map(|((tenant, _), _)| tenant);
    let clusters = state.clusters.iter().map(|((tenant, _), _)| tenant);
    let deployments = state.deployments.iter().map(|((tenant, _), _)| tenant);
    match hosts.chain(clusters).chain(deployments).find(|of| !state.tenants.contains(of)) {
        Some(tenant) => Err(format!("something of tenant {tenant} outlived it")),
        None => Ok(()),
    }
}
