//! Deletion in two phases: asked for, then done when nothing is waited for.

use super::Decision;
use crate::{Event, Key, Meta, Name, State, limits::WAITING_ON_MAX};

impl Decision<'_> {
    /// Asks for a deletion, or adds force to one under way. Whether anything changed.
    pub(super) fn request_deletion(&mut self, key: Key, force: bool) -> bool {
        let deletion = meta(&self.state, &key).and_then(|meta| meta.deletion.as_ref());
        let changed = deletion.is_none_or(|deletion| force && !deletion.force);
        if changed {
            self.emit(Event::DeletionRequested { key, force });
        }
        changed
    }
}

/// The envelope of a resource that is deleted in two phases.
pub(super) fn meta<'a>(state: &'a State, key: &Key) -> Option<&'a Meta> {
    let pair = |a: &Name, b: &Name| (a.clone(), b.clone());
    match key {
        Key::Tenant(a) => state.tenants.get(a).map(|row| &row.meta),
        Key::Host(a, b) => state.hosts.get(&pair(a, b)).map(|row| &row.meta),
        Key::Cluster(a, b) => state.clusters.get(&pair(a, b)).map(|row| &row.meta),
        Key::Deployment(a, b) => state.deployments.get(&pair(a, b)).map(|row| &row.meta),
        Key::Image(..)
        | Key::Package(..)
        | Key::DeploymentCluster(..)
        | Key::Job(..)
        | Key::Binding(..)
        | Key::Token(..)
        | Key::Node(..)
        | Key::Tombstone(..)
        | Key::Request(..)
        | Key::RemovedNode(..) => None,
    }
}

/// What the deletion of a resource waits for: the first few, in order.
pub(crate) fn waiting_on(state: &State, key: &Key) -> Vec<String> {
    match key {
        Key::Tenant(tenant) => {
            let start = (tenant.clone(), Name::first());
            let of = |at: &&(Name, Name)| at.0 == *tenant;
            let deployments = state.deployments.range(start.clone()..).map(|(at, _)| at);
            let clusters = state.clusters.range(start.clone()..).map(|(at, _)| at);
            let hosts = state.hosts.range(start..).map(|(at, _)| at);
            let deployments = deployments.take_while(of).map(|(_, it)| format!("deployments/{it}"));
            let clusters = clusters.take_while(of).map(|(_, it)| format!("clusters/{it}"));
            let hosts = hosts.take_while(of).map(|(_, it)| format!("hosts/{it}"));
            deployments.chain(clusters).chain(hosts).take(WAITING_ON_MAX).collect()
        }
        Key::Host(tenant, host) => {
            let jobs = state.jobs_on(tenant, host).map(|(key, _)| format!("jobs/{key}"));
            jobs.take(WAITING_ON_MAX).collect()
        }
        Key::Cluster(tenant, cluster) => {
            let deployments = state.deployments_on(tenant, cluster);
            deployments.map(|it| format!("deployments/{it}")).take(WAITING_ON_MAX).collect()
        }
        Key::Deployment(tenant, deployment) => {
            let parts = state.parts_of(tenant, deployment);
            let parts = parts.map(|((_, _, cluster), _)| format!("clusters/{cluster}"));
            parts.take(WAITING_ON_MAX).collect()
        }
        Key::Image(..)
        | Key::Package(..)
        | Key::DeploymentCluster(..)
        | Key::Job(..)
        | Key::Binding(..)
        | Key::Token(..)
        | Key::Node(..)
        | Key::Tombstone(..)
        | Key::Request(..)
        | Key::RemovedNode(..) => Vec::new(),
    }
}
