//! What is derived from rows so that reads need no scan, and the functions that write rows.
//!
//! Every row that has anything derived from it is written through a `put_*` of this file, which
//! keeps the index in step by the difference between the row before and after. `State::load` uses
//! the same functions, so an index rebuilt from scratch is the same as one kept for years.

use crate::{
    Cluster, Contact, Deployment, DeploymentCluster, Due, Host, Job, JobKey, Name, Placement,
    Resources, Revision, State, Timestamp, Workload, due,
    tally::{Standing, Tally, standing},
    workload,
};
use imbl::{OrdMap, OrdSet};
use std::{collections::BTreeSet, sync::Arc};

/// (tenant, name).
pub(crate) type Pair = (Name, Name);
/// (tenant, deployment, cluster), or with another kind in its place.
pub(crate) type Triple = (Name, Name, Name);

/// (tenant, deployment, cluster or none, spec revision, attempts, job): each job stands once for its
/// cluster and once for all, so that the last of each is the one tried most often.
pub(crate) type Retrying = (Name, Name, Option<Name>, Revision, u32, JobKey);

/// Everything derived from rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Index {
    /// Jobs with a placement on a host, by (tenant, host).
    pub(crate) jobs_by_host: OrdMap<Pair, OrdSet<JobKey>>,
    /// What placements reserve, by (tenant, host).
    pub(crate) usage: OrdMap<Pair, Resources>,
    /// What time alone will change, by (tenant, moment).
    pub(crate) due: OrdSet<(Name, Timestamp, Due)>,
    /// The cluster a host is in, by (tenant, host).
    pub(crate) cluster_of: OrdMap<Pair, Name>,
    /// What each application is to run, by (tenant, deployment, application).
    pub(crate) workloads: OrdMap<Triple, Arc<Workload>>,
    /// Jobs by how they are, by (tenant, deployment, cluster) and application.
    pub(crate) tallies: OrdMap<(Name, Name, Name, Name), Tally>,
    /// Jobs that failed or made no progress, by (tenant, deployment, spec revision).
    pub(crate) troubled: OrdSet<(Name, Name, Revision, JobKey)>,
    /// Jobs that failed and are tried again.
    pub(crate) retrying: OrdSet<Retrying>,
    /// Parts of deployments by (tenant, cluster, deployment).
    pub(crate) parts_by_cluster: OrdSet<Triple>,
}

/// Rows whose derived rows and deletions have to be looked at before the command ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dirty {
    pub(crate) tenants: BTreeSet<Name>,
    pub(crate) hosts: BTreeSet<Pair>,
    pub(crate) clusters: BTreeSet<Pair>,
    pub(crate) deployments: BTreeSet<Pair>,
    pub(crate) parts: BTreeSet<Triple>,
}

impl Dirty {
    /// Whether nothing has to be looked at.
    pub(crate) fn is_empty(&self) -> bool {
        self.tenants.is_empty()
            && self.hosts.is_empty()
            && self.clusters.is_empty()
            && self.deployments.is_empty()
            && self.parts.is_empty()
    }
}

/// Whether a host is in contact.
pub(crate) fn in_contact(host: &Host) -> bool {
    matches!(host.contact, Contact::Connected { .. })
}

impl State {
    /// Writes or removes a job.
    pub(crate) fn put_job(&mut self, key: &JobKey, job: Option<Job>) {
        let before = self.jobs.get_arc(key).cloned();
        let key = match &before {
            Some(_) => self.jobs.own_key(key).unwrap_or(key).clone(),
            None => self.shared_key(key),
        };
        let job = job.map(|mut job| {
            job.due_at = due::of_job(&job);
            job
        });
        self.move_placements(&key, before.as_deref(), job.as_ref());
        let due_before = before.as_ref().and_then(|job| job.due_at);
        let due_after = job.as_ref().and_then(|job| job.due_at);
        self.move_due(&key.tenant, Due::Job(key.clone()), due_before, due_after);
        let was = before.as_ref().map(|job| standing(self, &key.tenant, job));
        let is = job.as_ref().map(|job| standing(self, &key.tenant, job));
        self.move_tally(&key, was, is);
        match job {
            Some(job) => self.jobs.put(key, job),
            None => {
                self.jobs.remove(&key);
            }
        }
    }

    /// The key with names that share the memory of those in other rows.
    fn shared_key(&self, key: &JobKey) -> JobKey {
        let mut shared = key.clone();
        let part = (key.tenant.clone(), key.deployment.clone(), key.cluster.clone());
        if let Some((tenant, deployment, cluster)) = self.deployment_clusters.own_key(&part) {
            shared.tenant = tenant.clone();
            shared.deployment = deployment.clone();
            shared.cluster = cluster.clone();
        }
        let application = (part.0, part.1, key.application.clone());
        if let Some(((_, _, application), _)) = self.index.workloads.get_key_value(&application) {
            shared.application = application.clone();
        }
        shared
    }

    fn move_placements(&mut self, key: &JobKey, before: Option<&Job>, after: Option<&Job>) {
        let old = before.map_or(&[][..], |job| &job.placements);
        let new = after.map_or(&[][..], |job| &job.placements);
        let has = |list: &[Placement], host: &Name| list.iter().any(|p| p.host == *host);
        for placement in old {
            let on = (key.tenant.clone(), placement.host.clone());
            let limits = placement.scheduled.workload.limits;
            let usage = self.index.usage.entry(on.clone()).or_default();
            usage.cpu_millis = usage.cpu_millis.saturating_sub(limits.cpu_millis);
            usage.memory_bytes = usage.memory_bytes.saturating_sub(limits.memory_bytes);
            if !has(new, &placement.host) {
                let jobs = self.index.jobs_by_host.entry(on.clone()).or_default();
                jobs.remove(key);
                if jobs.is_empty() {
                    self.index.jobs_by_host.remove(&on);
                    self.index.usage.remove(&on);
                }
                self.dirty.hosts.insert(on);
            }
        }
        for placement in new {
            let on = (key.tenant.clone(), placement.host.clone());
            let limits = placement.scheduled.workload.limits;
            let usage = self.index.usage.entry(on.clone()).or_default();
            usage.cpu_millis = usage.cpu_millis.saturating_add(limits.cpu_millis);
            usage.memory_bytes = usage.memory_bytes.saturating_add(limits.memory_bytes);
            if !has(old, &placement.host) {
                self.index.jobs_by_host.entry(on).or_default().insert(key.clone());
            }
        }
    }

    fn move_due(
        &mut self,
        tenant: &Name,
        due: Due,
        before: Option<Timestamp>,
        after: Option<Timestamp>,
    ) {
        if before == after {
            return;
        }
        if let Some(at) = before {
            self.index.due.remove(&(tenant.clone(), at, due.clone()));
        }
        if let Some(at) = after {
            self.index.due.insert((tenant.clone(), at, due));
        }
    }

    fn move_tally(&mut self, key: &JobKey, was: Option<Standing>, is: Option<Standing>) {
        if was == is && trouble_of(is).is_none() {
            return;
        }
        let JobKey { tenant, deployment, cluster, application, .. } = key;
        let part = (tenant.clone(), deployment.clone(), cluster.clone());
        let at = (tenant.clone(), deployment.clone(), cluster.clone(), application.clone());
        let tally = self.index.tallies.entry(at.clone()).or_default();
        if let Some(standing) = was {
            tally.take(standing);
        }
        if let Some(standing) = is {
            tally.add(standing);
        }
        if tally.rows == 0 {
            self.index.tallies.remove(&at);
        }
        if was != is {
            self.mark(key, was, false);
            self.mark(key, is, true);
        }
        let marked = |standing| trouble_of(standing).is_some() || retry_of(standing).is_some();
        if marked(was) || marked(is) {
            self.dirty.deployments.insert((tenant.clone(), deployment.clone()));
        }
        self.dirty.parts.insert(part);
    }

    /// Notes that a job failed or is tried again, or that it does not any more.
    fn mark(&mut self, key: &JobKey, standing: Option<Standing>, holds: bool) {
        let (tenant, deployment) = (key.tenant.clone(), key.deployment.clone());
        if let Some(at) = trouble_of(standing) {
            let mark = (tenant.clone(), deployment.clone(), at, key.clone());
            match holds {
                true => self.index.troubled.insert(mark),
                false => self.index.troubled.remove(&mark),
            };
        }
        let Some((at, attempt)) = retry_of(standing) else { return };
        for cluster in [None, Some(key.cluster.clone())] {
            let mark = (tenant.clone(), deployment.clone(), cluster, at, attempt, key.clone());
            match holds {
                true => self.index.retrying.insert(mark),
                false => self.index.retrying.remove(&mark),
            };
        }
    }

    /// Writes or removes a host. Jobs on it are counted anew if contact with it changed.
    pub(crate) fn put_host(&mut self, key: Pair, host: Option<Host>) {
        let before = self.hosts.get_arc(&key).cloned();
        let contact_before = before.as_deref().is_some_and(in_contact);
        let contact_after = host.as_ref().is_some_and(in_contact);
        let due_before = before.as_deref().and_then(due::of_host);
        let due_after = host.as_ref().and_then(due::of_host);
        self.move_due(&key.0, Due::Host(key.1.clone()), due_before, due_after);
        let jobs: Vec<JobKey> = if contact_before == contact_after {
            Vec::new()
        } else {
            let jobs = self.index.jobs_by_host.get(&key);
            jobs.into_iter().flatten().cloned().collect()
        };
        let standings = |state: &Self| -> Vec<Option<Standing>> {
            let of = |job| state.jobs.get(job).map(|row| standing(state, &key.0, row));
            jobs.iter().map(of).collect()
        };
        let was = standings(self);
        self.dirty.hosts.insert(key.clone());
        match host {
            Some(host) => self.hosts.put(key.clone(), host),
            None => {
                self.hosts.remove(&key);
                self.dirty.tenants.insert(key.0.clone());
            }
        }
        let is = standings(self);
        for (job, (was, is)) in jobs.iter().zip(was.into_iter().zip(is)) {
            self.move_tally(job, was, is);
        }
    }

    /// Writes or removes a cluster.
    pub(crate) fn put_cluster(&mut self, key: Pair, cluster: Option<Cluster>) {
        let before = self.clusters.get_arc(&key).cloned();
        for host in before.iter().flat_map(|cluster| &cluster.spec.members) {
            if !cluster.as_ref().is_some_and(|after| after.spec.members.contains(host)) {
                self.index.cluster_of.remove(&(key.0.clone(), host.clone()));
            }
        }
        for host in cluster.iter().flat_map(|cluster| &cluster.spec.members) {
            self.index.cluster_of.insert((key.0.clone(), host.clone()), key.1.clone());
        }
        self.dirty.clusters.insert(key.clone());
        match cluster {
            Some(cluster) => self.clusters.put(key, cluster),
            None => {
                self.clusters.remove(&key);
                self.dirty.tenants.insert(key.0);
            }
        }
    }

    /// Writes or removes a deployment.
    pub(crate) fn put_deployment(&mut self, key: Pair, deployment: Option<Deployment>) {
        let before = self.deployments.get_arc(&key).cloned();
        let due_before = before.as_deref().and_then(due::of_deployment);
        let due_after = deployment.as_ref().and_then(due::of_deployment);
        self.move_due(&key.0, Due::Deployment(key.1.clone()), due_before, due_after);
        let revision = |row: Option<&Deployment>| row.map(|row| row.workload_revision);
        if revision(before.as_deref()) != revision(deployment.as_ref()) {
            let gone: Vec<Triple> =
                self.workloads_of(&key.0, &key.1).map(|(at, _)| at.clone()).collect();
            for at in gone {
                self.index.workloads.remove(&at);
            }
            if let Some(after) = &deployment {
                let applications = workload::applications(self, &key.0, &after.spec);
                for (application, mut workload) in applications {
                    workload.spec_revision = after.workload_revision;
                    let at = (key.0.clone(), key.1.clone(), application);
                    self.index.workloads.insert(at, Arc::new(workload));
                }
            }
        }
        self.dirty.deployments.insert(key.clone());
        match deployment {
            Some(deployment) => self.deployments.put(key, deployment),
            None => {
                self.deployments.remove(&key);
                self.dirty.tenants.insert(key.0);
            }
        }
    }

    /// Writes or removes a part of a deployment.
    pub(crate) fn put_part(&mut self, key: Triple, part: Option<DeploymentCluster>) {
        let by_cluster = (key.0.clone(), key.2.clone(), key.1.clone());
        self.dirty.parts.insert(key.clone());
        self.dirty.deployments.insert((key.0.clone(), key.1.clone()));
        self.dirty.clusters.insert((key.0.clone(), key.2.clone()));
        match part {
            Some(part) => {
                self.index.parts_by_cluster.insert(by_cluster);
                self.deployment_clusters.put(key, part);
            }
            None => {
                self.index.parts_by_cluster.remove(&by_cluster);
                self.deployment_clusters.remove(&key);
            }
        }
    }

    /// Lets equal workloads of a loaded job share the memory of the one in the index.
    pub(crate) fn intern(&self, key: &JobKey, job: &mut Job) {
        let at = (key.tenant.clone(), key.deployment.clone(), key.application.clone());
        if let Some(shared) = self.index.workloads.get(&at) {
            if *job.workload == **shared {
                job.workload = shared.clone();
            }
            for placement in &mut job.placements {
                if *placement.scheduled.workload == **shared {
                    placement.scheduled.workload = shared.clone();
                }
            }
        }
        for placement in &mut job.placements {
            if placement.scheduled.workload == job.workload {
                placement.scheduled.workload = job.workload.clone();
            }
            placement.host = self.shared_host(&key.tenant, &placement.host);
        }
    }

    /// The name of a host, sharing the memory of its row's key.
    pub(crate) fn shared_host(&self, tenant: &Name, host: &Name) -> Name {
        let own = self.hosts.own_key(&(tenant.clone(), host.clone()));
        own.map_or_else(|| host.clone(), |(_, host)| host.clone())
    }
}

/// The spec revision at which a job failed or made no progress.
fn trouble_of(standing: Option<Standing>) -> Option<Revision> {
    match standing? {
        Standing::Failed(at) | Standing::Stalled(at) => Some(at),
        Standing::Retired
        | Standing::Running(_)
        | Standing::Pending
        | Standing::Unknown
        | Standing::Retrying(..) => None,
    }
}

/// The spec revision at which a job is tried again, and how often it was.
fn retry_of(standing: Option<Standing>) -> Option<(Revision, u32)> {
    match standing? {
        Standing::Retrying(at, attempt) => Some((at, attempt)),
        Standing::Retired
        | Standing::Running(_)
        | Standing::Pending
        | Standing::Unknown
        | Standing::Failed(_)
        | Standing::Stalled(_) => None,
    }
}

/// Whether another copy of a `replace` job may start beside the one on this host.
pub(crate) fn is_replaceable(host: Option<&Host>) -> bool {
    host.is_none_or(|host| !in_contact(host) && (host.replaceable || host.declared_lost))
}
