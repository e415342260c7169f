//! What events do to tenants, hosts and clusters.

use super::Write;
use crate::{
    Assignment, Cluster, ClusterSpec, Contact, Digest, Host, HostProfile, HostState, Indicator,
    JobKey, Meta, Name, NodeId, Resources, Status, Tenant, Timestamp, Tombstone, event::Written,
};

impl Write<'_> {
    /// Changes a tenant.
    pub(super) fn change_tenant(&mut self, tenant: &Name, change: impl FnOnce(&mut Tenant)) {
        let Some(mut row) = self.state.tenants.get(tenant).cloned() else { return };
        change(&mut row);
        row.meta.touch(self.context);
        say_tenant(&mut row, self.context.time);
        self.state.dirty.tenants.insert(tenant.clone());
        self.state.tenants.put(tenant.clone(), row);
    }

    /// Changes a host; its status follows.
    pub(super) fn change_host(
        &mut self,
        tenant: &Name,
        host: &Name,
        change: impl FnOnce(&mut Host),
    ) {
        self.change_host_profile(tenant, host, change, None);
    }

    pub(super) fn change_host_profile(
        &mut self,
        tenant: &Name,
        host: &Name,
        change: impl FnOnce(&mut Host),
        profile: Option<&HostProfile>,
    ) {
        let at = (tenant.clone(), host.clone());
        let Some(mut row) = self.state.hosts.get(&at).cloned() else { return };
        change(&mut row);
        if let Some(profile) = profile {
            let shrank = profile.capacity.cpu_millis < row.capacity.cpu_millis
                || profile.capacity.memory_bytes < row.capacity.memory_bytes;
            if shrank {
                row.capacity_revision = self.context.revision;
            }
            row.capacity = profile.capacity;
            row.drivers.clone_from(&profile.drivers);
            row.fenced = profile.fenced;
            *row.facts = profile.facts.clone();
        }
        row.meta.touch(self.context);
        say_host(&mut row, self.context.time);
        self.state.put_host(at, Some(row));
    }

    /// Changes a cluster; its status follows.
    pub(super) fn change_cluster(
        &mut self,
        tenant: &Name,
        cluster: &Name,
        change: impl FnOnce(&mut Cluster),
    ) {
        let at = (tenant.clone(), cluster.clone());
        let Some(mut row) = self.state.clusters.get(&at).cloned() else { return };
        change(&mut row);
        row.meta.touch(self.context);
        say_cluster(&mut row, self.context.time);
        self.state.put_cluster(at, Some(row));
    }

    pub(super) fn tenant_applied(&mut self, written: &Written, display_name: &str) {
        let before = self.state.tenants.get(&written.name);
        let mut row = Tenant {
            meta: Meta::written(before.map(|row| &row.meta), written, self.context),
            display_name: display_name.into(),
            status: before.map(|row| row.status.clone()).unwrap_or_default(),
        };
        say_tenant(&mut row, self.context.time);
        self.state.tenants.put(written.name.clone(), row);
    }

    pub(super) fn tenant_removed(&mut self, tenant: &Name) {
        let buried: Vec<(Name, Name)> = self
            .state
            .tombstones
            .range((tenant.clone(), Name::first())..)
            .map(|(at, _)| at.clone())
            .take_while(|(of, _)| of == tenant)
            .collect();
        for at in buried {
            self.state.tombstones.remove(&at);
        }
        self.state.tenants.remove(tenant);
    }

    pub(super) fn host_applied(
        &mut self,
        tenant: &Name,
        written: &Written,
        site: Option<&Name>,
        zone: Option<&Name>,
    ) {
        let at = (tenant.clone(), written.name.clone());
        let before = self.state.hosts.get(&at);
        let meta = Meta::written(before.map(|row| &row.meta), written, self.context);
        let mut row = before.cloned().unwrap_or_else(|| new_host(meta.clone()));
        row.meta = meta;
        row.site = site.cloned();
        row.zone = zone.cloned();
        say_host(&mut row, self.context.time);
        self.state.tombstones.remove(&at);
        self.state.put_host(at, Some(row));
    }

    pub(super) fn host_connected(
        &mut self,
        tenant: &Name,
        host: &Name,
        (node, session): (NodeId, u64),
        profile: Option<&HostProfile>,
    ) {
        let since = self.context.time;
        let connect = |row: &mut Host| {
            row.contact = Contact::Connected { node, session, since };
            row.state = HostState::Onboarded;
            row.declared_lost = false;
            row.replaceable = false;
        };
        self.change_host_profile(tenant, host, connect, profile);
    }

    /// What a machine said of its copies says nothing of another one's.
    pub(super) fn host_enrolled(&mut self, tenant: &Name, host: &Name, agent_key: Digest) {
        let before = self.state.host(tenant, host).and_then(|row| row.agent_key);
        self.change_host(tenant, host, |row| row.agent_key = Some(agent_key));
        if before.is_none_or(|before| before == agent_key) {
            return;
        }
        let copies = self.state.jobs_on(tenant, host).flat_map(|(key, job)| {
            let here = job.placements.iter().filter(|placement| placement.host == *host);
            here.map(|placement| (key.clone(), placement.assignment))
        });
        let copies: Vec<(JobKey, Assignment)> = copies.collect();
        for (key, assignment) in copies {
            self.change_placement(&key, assignment, |placement| placement.current = None);
        }
    }

    pub(super) fn host_distrusted(&mut self, tenant: &Name, host: &Name, reason: &str) {
        self.leave_cluster(tenant, host);
        let now = self.context.time;
        self.change_host(tenant, host, |row| {
            row.state = HostState::Untrusted;
            row.status.say(Indicator::Error, &format!("not trusted: {reason}"), now);
        });
    }

    pub(super) fn host_removed(
        &mut self,
        tenant: &Name,
        host: &Name,
        tombstone: Option<Assignment>,
    ) {
        let at = (tenant.clone(), host.clone());
        self.leave_cluster(tenant, host);
        self.state.put_host(at.clone(), None);
        if let Some(assignment) = tombstone {
            self.state.tombstones.put(at, Tombstone { at: self.context.time, assignment });
        }
    }

    /// Takes a host out of the cluster it is in.
    fn leave_cluster(&mut self, tenant: &Name, host: &Name) {
        let Some(cluster) = self.state.cluster_of(tenant, host).cloned() else { return };
        self.change_cluster(tenant, &cluster, |row| {
            row.spec.members.remove(host);
        });
    }

    pub(super) fn cluster_applied(&mut self, tenant: &Name, written: &Written, spec: &ClusterSpec) {
        let at = (tenant.clone(), written.name.clone());
        let before = self.state.clusters.get(&at);
        let mut row = Cluster {
            meta: Meta::written(before.map(|row| &row.meta), written, self.context),
            spec: spec.clone(),
            status: before.map(|row| row.status.clone()).unwrap_or_default(),
        };
        say_cluster(&mut row, self.context.time);
        self.state.put_cluster(at, Some(row));
    }
}

fn new_host(meta: Meta) -> Host {
    Host {
        meta,
        site: None,
        zone: None,
        state: HostState::Registered,
        cordoned: false,
        declared_lost: false,
        replaceable: false,
        agent_key: None,
        contact: Contact::Never,
        capacity: Resources::default(),
        capacity_revision: crate::Revision::default(),
        drivers: Default::default(),
        fenced: false,
        facts: Box::default(),
        status: Status::default(),
    }
}

/// What a deletion under way waits for, in one line.
pub(crate) fn deleting_text(meta: &Meta) -> Option<String> {
    let deletion = meta.deletion.as_ref()?;
    Some(match deletion.waiting_on.as_slice() {
        [] => "deleting".into(),
        [one] => format!("deleting: waits for {one}"),
        [first, ..] => format!("deleting: waits for {first} and others"),
    })
}

fn say_tenant(row: &mut Tenant, now: Timestamp) {
    match deleting_text(&row.meta) {
        Some(text) => row.status.say(Indicator::InProgress, &text, now),
        None => row.status.say(Indicator::Idle, "active", now),
    }
}

fn say_cluster(row: &mut Cluster, now: Timestamp) {
    match deleting_text(&row.meta) {
        Some(text) => row.status.say(Indicator::InProgress, &text, now),
        None if row.spec.members.is_empty() => {
            row.status.say(Indicator::InProgress, "has no hosts", now);
        }
        None => row.status.say(Indicator::Idle, "active", now),
    }
}

fn say_host(row: &mut Host, now: Timestamp) {
    if row.state == HostState::Untrusted && row.meta.deletion.is_none() {
        return;
    }
    let (indicator, text) = match (deleting_text(&row.meta), row.contact) {
        (Some(text), _) => (Indicator::InProgress, text),
        (None, Contact::Never) => (Indicator::InProgress, "registered, never seen".into()),
        (None, Contact::Connected { .. }) if row.cordoned => {
            (Indicator::Idle, "in contact, cordoned".into())
        }
        (None, Contact::Connected { .. }) => (Indicator::Idle, "in contact".into()),
        (None, Contact::Lost { .. }) if row.declared_lost => {
            (Indicator::Error, "declared lost by an operator".into())
        }
        (None, Contact::Lost { .. }) => (Indicator::Error, "out of contact".into()),
    };
    row.status.say(indicator, &text, now);
    row.status.retryable = matches!(row.contact, Contact::Lost { .. });
}
