//! Which clusters are targets of which deployments: kept as parts, so that a cluster that appears,
//! changes its labels or goes is noticed at once (APP-18, APP-19, APP-24).

use super::Decision;
use crate::{Cluster, Deployment, Event, Name, Targets};
use std::collections::BTreeMap;

impl Decision<'_> {
    /// Brings the parts of one deployment in line with all clusters.
    pub(super) fn retarget_deployment(&mut self, tenant: &Name, deployment: &Name) {
        let Some(row) = self.state.deployment(tenant, deployment) else { return };
        let mut clusters: BTreeMap<Name, bool> = self
            .state
            .parts_of(tenant, deployment)
            .map(|((_, _, cluster), _)| (cluster.clone(), false))
            .collect();
        let start = (tenant.clone(), Name::first());
        let all = self.state.clusters.range(start..).take_while(|((of, _), _)| of == tenant);
        for ((_, name), cluster) in all {
            if is_target(row, name, cluster) {
                clusters.insert(name.clone(), true);
            }
        }
        for (cluster, targeted) in clusters {
            self.set_target(tenant, deployment, &cluster, targeted);
        }
        self.set_targetless(tenant, deployment);
    }

    /// Brings the parts of all deployments on one cluster in line.
    pub(super) fn retarget_cluster(&mut self, tenant: &Name, cluster: &Name) {
        let row = self.state.cluster(tenant, cluster);
        let start = (tenant.clone(), Name::first());
        let all = self.state.deployments.range(start..).take_while(|((of, _), _)| of == tenant);
        let wanted: Vec<(Name, bool)> = all
            .map(|((_, name), deployment)| {
                let targeted = row.is_some_and(|row| is_target(deployment, cluster, row));
                (name.clone(), targeted)
            })
            .collect();
        for (deployment, targeted) in wanted {
            if self.set_target(tenant, &deployment, cluster, targeted) {
                self.set_targetless(tenant, &deployment);
            }
        }
    }

    fn set_target(
        &mut self,
        tenant: &Name,
        deployment: &Name,
        cluster: &Name,
        targeted: bool,
    ) -> bool {
        let at = (tenant.clone(), deployment.clone(), cluster.clone());
        let part = self.state.deployment_clusters.get(&at);
        if part.is_none() && !targeted {
            return false;
        }
        let mut num_partitions = BTreeMap::new();
        if targeted {
            for ((_, _, application), workload) in self.state.workloads_of(tenant, deployment) {
                num_partitions.insert(application.clone(), workload.num_partitions);
            }
        }
        let known = part.is_some_and(|part| {
            let frozen = |name| part.num_partitions.contains_key(name);
            part.targeted == targeted && num_partitions.keys().all(frozen)
        });
        if !known {
            let (tenant, deployment, cluster) = at;
            self.emit(Event::PartTargeted {
                tenant,
                deployment,
                cluster,
                targeted,
                num_partitions,
            });
        }
        !known
    }

    fn set_targetless(&mut self, tenant: &Name, deployment: &Name) {
        let targetless = !self.state.parts_of(tenant, deployment).any(|(_, part)| part.targeted);
        let Some(row) = self.state.deployment(tenant, deployment) else { return };
        if row.targetless_since.is_some() != targetless {
            let (tenant, deployment) = (tenant.clone(), deployment.clone());
            self.emit(Event::DeploymentTargetless { tenant, deployment, targetless });
        }
    }
}

/// Whether a cluster is a target of a deployment.
fn is_target(deployment: &Deployment, name: &Name, cluster: &Cluster) -> bool {
    if cluster.meta.deletion.is_some() || deployment.meta.deletion.is_some() {
        return false;
    }
    match &deployment.spec.targets {
        Targets::Clusters(names) => names.contains(name),
        Targets::Selector(pairs) => {
            let environment = cluster.spec.environment.as_ref().map(Name::as_str);
            pairs.iter().all(|(key, value)| match key.as_str() {
                "environment" if environment.is_some() => environment == Some(value),
                _ => cluster.meta.labels.get(key) == Some(value),
            })
        }
    }
}
