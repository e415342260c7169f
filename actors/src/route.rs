//! From changed rows to who must look: the only place that knows which noun concerns which actor.

use model::{Change, Key, Name};
use std::collections::{BTreeMap, BTreeSet};

/// Who must look at the state after a change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Route {
    /// Control nodes came, went or changed: ownership has to be looked at again.
    pub(crate) ownership: bool,
    /// By tenant.
    pub(crate) tenants: BTreeMap<Name, TenantRoute>,
}

/// Who must look within a tenant.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TenantRoute {
    /// The tenant's own actor: deployments and what they expand over.
    pub(crate) own: bool,
    /// Every cluster of the tenant.
    pub(crate) all: bool,
    /// These clusters.
    pub(crate) clusters: BTreeSet<Name>,
}

/// Routes one event's changes.
pub(crate) fn route(changes: &[Change], route: &mut Route) {
    for change in changes {
        match &change.key {
            Key::Node(_) => route.ownership = true,
            Key::Tenant(tenant) => route.tenant(tenant).own = true,
            // A host may be in any cluster of its tenant, and which one is written in the cluster.
            Key::Host(tenant, _) => {
                let tenant = route.tenant(tenant);
                tenant.own = true;
                tenant.all = true;
            }
            Key::Cluster(tenant, cluster) | Key::DeploymentCluster(tenant, _, cluster) => {
                let tenant = route.tenant(tenant);
                tenant.own = true;
                tenant.clusters.insert(cluster.clone());
            }
            Key::Deployment(tenant, _) | Key::Package(tenant, _, _) => {
                route.tenant(tenant).own = true;
            }
            Key::Job(key) => {
                let tenant = route.tenant(&key.tenant);
                tenant.own = true;
                tenant.clusters.insert(key.cluster.clone());
            }
            Key::Image(..)
            | Key::Binding(..)
            | Key::Token(_)
            | Key::Tombstone(..)
            | Key::Request(_)
            | Key::RemovedNode(_) => {}
        }
    }
}

impl Route {
    fn tenant(&mut self, tenant: &Name) -> &mut TenantRoute {
        self.tenants.entry(tenant.clone()).or_default()
    }
}
