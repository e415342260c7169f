//! `evolve`: the only writer of state. It never refuses: an event about a row that is not there does
//! nothing.
//!
//! One match, a few lines per variant; longer bodies are in `evolve/<nouns>.rs`.

mod access;
mod deployment;
mod fleet;
mod job;

use crate::{
    Contact, Context, Current, Deletion, Event, Image, Key, Meta, NodeId, RemovedNode, State,
    Token, limits::REMOVED_NODES_MAX, rules::RULES_REMOVED_NODES,
};

pub(crate) use fleet::deleting_text;

/// Makes an event so.
#[expect(clippy::too_many_lines, reason = "one match over all events, a few lines per variant")]
pub fn evolve(state: &mut State, context: &Context, event: &Event) {
    let mut write = Write { state, context };
    match event {
        Event::TenantApplied { written, display_name } => {
            write.tenant_applied(written, display_name);
        }
        Event::TenantRemoved { tenant } => write.tenant_removed(tenant),
        Event::HostApplied { tenant, written, site, zone } => {
            write.host_applied(tenant, written, site.as_ref(), zone.as_ref());
        }
        Event::HostCordoned { tenant, host, cordoned } => {
            write.change_host(tenant, host, |row| row.cordoned = *cordoned);
        }
        Event::HostDeclaredLost { tenant, host, lost } => {
            write.change_host(tenant, host, |row| row.declared_lost = *lost);
        }
        Event::HostDistrusted { tenant, host, reason } => {
            write.host_distrusted(tenant, host, reason);
        }
        Event::HostConnected { tenant, host, node, session, profile } => {
            write.host_connected(tenant, host, (*node, *session), profile.as_deref());
        }
        Event::HostEnrolled { tenant, host, agent_key } => {
            write.host_enrolled(tenant, host, *agent_key);
        }
        Event::HostLost { tenant, host } => {
            let since = write.context.time;
            write.change_host(tenant, host, |row| {
                row.contact = Contact::Lost { since, session: row.contact.session() };
                row.replaceable = false;
            });
        }
        Event::HostReported { tenant, host, profile } => {
            write.change_host_profile(tenant, host, |_| {}, Some(profile));
        }
        Event::HostGraceEnded { tenant, host } => {
            write.change_host(tenant, host, |row| row.replaceable = true);
        }
        Event::HostRemoved { tenant, host, tombstone } => {
            write.host_removed(tenant, host, *tombstone);
        }
        Event::ClusterApplied { tenant, written, spec } => {
            write.cluster_applied(tenant, written, spec);
        }
        Event::ClusterRemoved { tenant, cluster } => {
            write.state.put_cluster((tenant.clone(), cluster.clone()), None);
        }
        Event::ImageRegistered { tenant, uid, digest, size_bytes, application } => {
            let row = Image {
                meta: Meta::new(application.name.clone(), *uid, write.context),
                digest: *digest,
                size_bytes: *size_bytes,
                application: application.as_ref().clone(),
            };
            write.state.images.put((tenant.clone(), *digest), row);
        }
        Event::ImageRemoved { tenant, digest } => {
            write.state.images.remove(&(tenant.clone(), *digest));
        }
        Event::PackageStored { tenant, written, version, applications } => {
            write.package_stored(tenant, written, version, applications);
        }
        Event::PackageRemoved { tenant, package, version } => {
            let at = (tenant.clone(), package.clone(), version.clone());
            write.state.packages.remove(&at);
        }
        Event::DeploymentApplied { tenant, written, spec } => {
            write.deployment_applied(tenant, written, spec);
        }
        Event::DeploymentGraceEnded { tenant, deployment } => {
            write.change_deployment(tenant, deployment, |row| row.in_progress = false);
            write.doubt_parts(tenant, deployment);
        }
        Event::DeploymentSummarised { tenant, deployment, summary } => {
            write.deployment_summarised(tenant, deployment, summary);
        }
        Event::DeploymentTargetless { tenant, deployment, targetless } => {
            let since = targetless.then_some(write.context.time);
            write.change_deployment(tenant, deployment, |row| row.targetless_since = since);
        }
        Event::DeploymentRemoved { tenant, deployment } => {
            write.state.put_deployment((tenant.clone(), deployment.clone()), None);
        }
        Event::PartTargeted { tenant, deployment, cluster, targeted, num_partitions } => {
            let at = (tenant.clone(), deployment.clone(), cluster.clone());
            write.part_targeted(at, *targeted, num_partitions);
        }
        Event::PartSummarised { tenant, deployment, cluster, summary } => {
            let at = (tenant.clone(), deployment.clone(), cluster.clone());
            let Some(mut row) = write.state.deployment_clusters.get(&at).cloned() else {
                return;
            };
            row.state = summary.state;
            row.counts = summary.counts;
            row.status.sum_up(summary, write.context.time);
            write.state.put_part(at, Some(row));
        }
        Event::PartRemoved { tenant, deployment, cluster } => {
            let at = (tenant.clone(), deployment.clone(), cluster.clone());
            write.state.put_part(at, None);
        }
        Event::JobCreated { key, uid } => write.job_created(key, *uid),
        Event::JobUpdated { key, revived } => write.job_updated(key, *revived),
        Event::JobRetired { key } => write.job_retired(key),
        Event::PlacementRetired { key, assignment, why: _ } => {
            let revision = write.context.revision;
            write.change_placement(key, *assignment, |placement| {
                placement.scheduled.active = false;
                placement.scheduled.revision = revision;
            });
        }
        Event::PlacementRemoved { key, assignment, why: _ } => {
            write.placement_removed(key, *assignment);
        }
        Event::JobRemoved { key } => write.state.put_job(key, None),
        Event::JobAssigned { key, host } => write.job_assigned(key, host),
        Event::JobExplained { key, text } => write.job_explained(key, text),
        Event::JobReported { key, assignment, current } => {
            write.change_placement(key, *assignment, |placement| {
                placement.current = Some(Current::clone(current));
            });
        }
        Event::JobSettled { key, assignment } => {
            write.change_placement(key, *assignment, |placement| {
                if let Some(current) = &mut placement.current {
                    current.settled = true;
                }
            });
        }
        Event::JobStalled { key } => write.job_stalled(key),
        Event::JobRetried { key } => write.job_retried(key),
        Event::RoleBound { operator, scope, role, created } => {
            write.role_bound(operator, scope, *role, *created);
        }
        Event::RoleUnbound { operator, scope } => {
            write.state.bindings.remove(&(operator.clone(), scope.clone()));
        }
        Event::TokenCreated { id, uid, kind, secret_hash, expires_at, uses } => {
            let token = Token {
                meta: Meta::new(id.clone(), *uid, write.context),
                kind: kind.clone(),
                secret_hash: secret_hash.clone(),
                expires_at: *expires_at,
                uses_left: *uses,
            };
            write.state.tokens.put(id.clone(), token);
        }
        Event::TokenUsed { id } => {
            let Some(mut token) = write.state.tokens.get(id).cloned() else { return };
            token.uses_left = token.uses_left.saturating_sub(1);
            token.meta.touch(write.context);
            write.state.tokens.put(id.clone(), token);
        }
        Event::TokenRevoked { id } => {
            write.state.tokens.remove(id);
        }
        Event::NodeApplied { id, created, peer_addr, client_addr, rules_max } => {
            write.change_node(*id, *created, |node| {
                node.peer_addr.clone_from(peer_addr);
                node.client_addr.clone_from(client_addr);
                node.rules_max = *rules_max;
                node.alive = true;
            });
        }
        Event::NodeMarked { id, alive } => {
            write.change_node(*id, None, |node| node.alive = *alive);
        }
        Event::NodeRemoved { id } => {
            write.state.nodes.remove(id);
            if write.context.rules >= RULES_REMOVED_NODES {
                write.remember_removed(*id);
            }
        }
        Event::RulesRaised { level } => write.state.globals.rules = *level,
        Event::DeletionRequested { key, force } => write.deletion_requested(key, *force),
        Event::DeletionWaits { key, waiting_on } => write.deletion_waits(key, waiting_on),
    }
}

/// A state being written, and the moment.
struct Write<'a> {
    state: &'a mut State,
    context: &'a Context,
}

impl Write<'_> {
    fn remember_removed(&mut self, id: NodeId) {
        let removed = &mut self.state.removed_nodes;
        removed.put(id, RemovedNode { at: self.context.time });
        let full = removed.len() > REMOVED_NODES_MAX;
        let oldest = removed.iter().next().map(|(id, _)| *id);
        if let Some(oldest) = oldest.filter(|_| full) {
            removed.remove(&oldest);
        }
    }

    fn deletion_requested(&mut self, key: &Key, force: bool) {
        let requested_at = self.context.time;
        self.change_meta(key, |meta| match &mut meta.deletion {
            Some(deletion) => deletion.force |= force,
            None => {
                let deletion = Deletion { requested_at, force, waiting_on: Vec::new() };
                meta.deletion = Some(Box::new(deletion));
            }
        });
        if let Key::Deployment(tenant, deployment) = key {
            self.doubt_parts(tenant, deployment);
        }
    }

    fn deletion_waits(&mut self, key: &Key, waiting_on: &[String]) {
        self.change_meta(key, |meta| {
            if let Some(deletion) = &mut meta.deletion {
                deletion.waiting_on = waiting_on.to_vec();
            }
        });
    }

    /// Changes the envelope of a resource that is deleted in two phases.
    fn change_meta(&mut self, key: &Key, change: impl FnOnce(&mut Meta)) {
        let context = self.context;
        let change = |meta: &mut Meta| {
            change(meta);
            meta.touch(context);
        };
        match key {
            Key::Tenant(tenant) => self.change_tenant(tenant, |row| change(&mut row.meta)),
            Key::Host(tenant, host) => self.change_host(tenant, host, |row| change(&mut row.meta)),
            Key::Cluster(tenant, cluster) => {
                self.change_cluster(tenant, cluster, |row| change(&mut row.meta));
            }
            Key::Deployment(tenant, deployment) => {
                self.change_deployment(tenant, deployment, |row| change(&mut row.meta));
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
            | Key::RemovedNode(..) => {}
        }
    }
}
