//! Clusters.

use super::{Decided, Decision, check, done};
use crate::{
    ClusterSpec, Draft, Event, HostState, Key, Name, Rejection, limits::MEMBERS_MAX,
    rejection::Code,
};

impl Decision<'_> {
    pub(super) fn apply_cluster(
        &mut self,
        tenant: &Name,
        draft: &Draft,
        spec: &ClusterSpec,
    ) -> Decided {
        self.need_live_tenant(tenant)?;
        let before = self.state.cluster(tenant, &draft.name).cloned();
        let meta = before.as_ref().map(|row| &row.meta);
        check::envelope(meta, draft, "cluster")?;
        if spec.members.len() > MEMBERS_MAX {
            return Err(check::too_many("spec.members", spec.members.len(), MEMBERS_MAX));
        }
        for (position, host) in spec.members.iter().enumerate() {
            self.check_member(tenant, &draft.name, host)
                .map_err(|it| it.at(format!("spec.members[{position}]")))?;
        }
        let respecified = before.as_ref().is_some_and(|row| row.spec != *spec);
        let resource = resource(tenant, &draft.name);
        let Some(written) = self.written(meta, draft, respecified) else {
            return done(resource, false);
        };
        self.emit(Event::ClusterApplied { tenant: tenant.clone(), written, spec: spec.clone() });
        self.retarget_cluster(tenant, &draft.name);
        done(resource, true)
    }

    fn check_member(&self, tenant: &Name, cluster: &Name, host: &Name) -> Result<(), Rejection> {
        let Some(row) = self.state.host(tenant, host) else {
            return Err(check::unknown(Code::UnknownHost, "host", host, ""));
        };
        match self.state.cluster_of(tenant, host) {
            Some(other) if other == cluster => return Ok(()),
            Some(other) => {
                return Err(Code::HostTaken
                    .reject(format!("host {host} is in cluster {other} already"))
                    .with("by", format!("clusters/{other}")));
            }
            None => {}
        }
        check::need_live(Some(&row.meta), &format!("host {host}"))?;
        match row.state {
            HostState::Registered | HostState::Onboarded => Ok(()),
            HostState::Untrusted => {
                Err(Code::UntrustedHost.reject(format!("host {host} is not trusted any more")))
            }
        }
    }

    pub(super) fn delete_cluster(&mut self, tenant: &Name, cluster: &Name, force: bool) -> Decided {
        self.need_tenant(tenant)?;
        if self.state.cluster(tenant, cluster).is_none() {
            return Err(check::unknown(Code::UnknownCluster, "cluster", cluster, "cluster"));
        }
        let changed = self.request_deletion(Key::Cluster(tenant.clone(), cluster.clone()), force);
        self.retarget_cluster(tenant, cluster);
        done(resource(tenant, cluster), changed)
    }
}

fn resource(tenant: &Name, cluster: &Name) -> String {
    format!("tenants/{tenant}/clusters/{cluster}")
}
