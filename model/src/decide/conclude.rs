//! What follows from the events of a command: parts and deletions that are done, sums, states.
//!
//! Rows that were written left a note (`Dirty`). Each is looked at until nothing follows any more.

use super::{Decision, waiting_on};
use crate::{
    Assignment, Contact, Counts, DeploymentState, Event, Key, Name,
    index::{Pair, Triple},
    rollup,
};
use std::collections::BTreeMap;

impl Decision<'_> {
    /// Says everything that follows.
    pub(super) fn conclude(&mut self) {
        let mut sums: BTreeMap<Pair, rollup::Change> = BTreeMap::new();
        loop {
            let dirty = std::mem::take(&mut self.state.dirty);
            if dirty.is_empty() {
                return;
            }
            for part in dirty.parts {
                self.conclude_part(part, &mut sums);
            }
            for at in dirty.deployments {
                let change = sums.remove(&at).unwrap_or_default();
                self.conclude_deployment(at, change);
            }
            for (tenant, cluster) in dirty.clusters {
                if self.is_done(&Key::Cluster(tenant.clone(), cluster.clone())) {
                    self.emit(Event::ClusterRemoved { tenant, cluster });
                }
            }
            for (tenant, host) in dirty.hosts {
                if self.is_done(&Key::Host(tenant.clone(), host.clone())) {
                    let tombstone = self.tombstone(&tenant, &host);
                    self.emit(Event::HostRemoved { tenant, host, tombstone });
                }
            }
            for tenant in dirty.tenants {
                if self.is_done(&Key::Tenant(tenant.clone())) {
                    self.remove_tenant(tenant);
                }
            }
        }
    }

    /// Whether a deletion was asked for and waits for nothing. What it waits for is kept up to date.
    fn is_done(&mut self, key: &Key) -> bool {
        let meta = super::deletion::meta(&self.state, key);
        let Some(deletion) = meta.and_then(|meta| meta.deletion.as_ref()) else { return false };
        let waiting_on = waiting_on(&self.state, key);
        if waiting_on.is_empty() {
            return true;
        }
        if deletion.waiting_on != waiting_on {
            self.emit(Event::DeletionWaits { key: key.clone(), waiting_on });
        }
        false
    }

    fn conclude_part(&mut self, at: Triple, sums: &mut BTreeMap<Pair, rollup::Change>) {
        let Some(part) = self.state.deployment_clusters.get(&at) else { return };
        let (before, owner) = (part.counts, (at.0.clone(), at.1.clone()));
        let (tenant, deployment, cluster) = at.clone();
        let row = self.state.deployments.get(&owner);
        let wanted = part.targeted && row.is_some_and(|row| row.meta.deletion.is_none());
        if !wanted && self.state.jobs_of_part(&at.0, &at.1, &at.2).next().is_none() {
            sums.entry(owner).or_default().add(before, Counts::default());
            self.emit(Event::PartRemoved { tenant, deployment, cluster });
            return;
        }
        let Some(summary) = rollup::part(&self.state, &at) else { return };
        let Some(part) = self.state.deployment_clusters.get(&at) else { return };
        if !summary.is_of(part.state, &part.counts, &part.status) {
            sums.entry(owner).or_default().add(before, summary.counts);
            self.emit(Event::PartSummarised { tenant, deployment, cluster, summary });
        }
    }

    fn conclude_deployment(&mut self, at: Pair, change: rollup::Change) {
        if self.is_done(&Key::Deployment(at.0.clone(), at.1.clone())) {
            let (tenant, deployment) = at;
            self.emit(Event::DeploymentRemoved { tenant, deployment });
            return;
        }
        let Some(row) = self.state.deployments.get(&at) else { return };
        let counts = change.applied_to(row.counts);
        let summary = rollup::deployment(&self.state, &at, row, counts);
        let arrived = row.in_progress && summary.state == DeploymentState::Running;
        if arrived || !summary.is_of(row.state, &row.counts, &row.status) {
            let (tenant, deployment) = at;
            self.emit(Event::DeploymentSummarised { tenant, deployment, summary });
        }
    }

    /// A host that cannot be told leaves a tombstone: whatever it got up to now is void.
    fn tombstone(&self, tenant: &Name, host: &Name) -> Option<Assignment> {
        match self.state.host(tenant, host)?.contact {
            Contact::Lost { .. } => Some(Assignment(self.context.revision.0)),
            Contact::Never | Contact::Connected { .. } => None,
        }
    }

    /// Takes what nothing else refers to any more, and the tenant.
    fn remove_tenant(&mut self, tenant: Name) {
        use crate::{Digest, Scope, TokenKind, Version};
        let start = (tenant.clone(), Name::first(), Version::new());
        let packages = self.state.packages.range(start..).map(|(at, _)| at.clone());
        let packages: Vec<_> = packages.take_while(|at| at.0 == tenant).collect();
        for (tenant, package, version) in packages {
            self.emit(Event::PackageRemoved { tenant, package, version });
        }
        let start = (tenant.clone(), Digest([0; 32]));
        let images = self.state.images.range(start..).map(|(at, _)| at.clone());
        let images: Vec<_> = images.take_while(|at| at.0 == tenant).collect();
        for (tenant, digest) in images {
            self.emit(Event::ImageRemoved { tenant, digest });
        }
        let scope = Scope::Tenant(tenant.clone());
        let bindings = self.state.bindings.iter().filter(|(at, _)| at.1 == scope);
        let operators: Vec<Name> = bindings.map(|(at, _)| at.0.clone()).collect();
        for operator in operators {
            self.emit(Event::RoleUnbound { operator, scope: scope.clone() });
        }
        let kind = TokenKind::Agent { tenant: tenant.clone() };
        let tokens = self.state.tokens.iter().filter(|(_, token)| token.kind == kind);
        let tokens: Vec<Name> = tokens.map(|(id, _)| id.clone()).collect();
        for id in tokens {
            self.emit(Event::TokenRevoked { id });
        }
        self.emit(Event::TenantRemoved { tenant });
    }
}
