//! What a reader may ask of the state, beside the tables themselves.

use crate::{
    Assignment, Cluster, Deployment, DeploymentCluster, Due, Host, HostState, Job, JobKey, Key,
    Name, ReportNumber, Resources, Role, Row, Scheduled, Scope, Slot, State, Table, Timestamp, Uid,
    Workload,
    hash::row_hash,
    index::{Pair, Triple},
};
use std::{
    hash::Hash,
    ops::Bound::{Included, Unbounded},
    sync::Arc,
};

/// What the agent of a host is told of one copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The job.
    pub key: JobKey,
    /// The fence: refused by the agent when it has seen a newer one for the job.
    pub assignment: Assignment,
    /// Run it or stop it, what, and since which revision it is so.
    pub scheduled: Scheduled,
    /// Whether the job ran on another host before, where its data stayed.
    pub data_elsewhere: bool,
    /// The deployment whose data the copy gets, across deletion and re-creation under one name; `None`
    /// from a control node that does not say.
    pub deployment: Option<Uid>,
}

/// The first name in order.
fn first_name() -> Name {
    Name::first()
}

impl State {
    /// A host.
    pub fn host(&self, tenant: &Name, host: &Name) -> Option<&Host> {
        self.hosts.get(&(tenant.clone(), host.clone()))
    }

    /// A cluster.
    pub fn cluster(&self, tenant: &Name, cluster: &Name) -> Option<&Cluster> {
        self.clusters.get(&(tenant.clone(), cluster.clone()))
    }

    /// A deployment.
    pub fn deployment(&self, tenant: &Name, deployment: &Name) -> Option<&Deployment> {
        self.deployments.get(&(tenant.clone(), deployment.clone()))
    }

    /// The cluster a host is in.
    pub fn cluster_of(&self, tenant: &Name, host: &Name) -> Option<&Name> {
        self.index.cluster_of.get(&(tenant.clone(), host.clone()))
    }

    /// What placements reserve on a host.
    pub fn usage(&self, tenant: &Name, host: &Name) -> Resources {
        let at = (tenant.clone(), host.clone());
        self.index.usage.get(&at).copied().unwrap_or_default()
    }

    /// Jobs with a placement on a host, in key order.
    pub fn jobs_on(
        &self,
        tenant: &Name,
        host: &Name,
    ) -> impl Iterator<Item = (&JobKey, &Job)> + use<'_> {
        let keys = self.index.jobs_by_host.get(&(tenant.clone(), host.clone()));
        keys.into_iter().flatten().filter_map(|key| self.jobs.get(key).map(|job| (key, job)))
    }

    /// Jobs of a deployment, in key order.
    pub fn jobs_of(
        &self,
        tenant: &Name,
        deployment: &Name,
    ) -> impl Iterator<Item = (&JobKey, &Job)> + use<'_> {
        let start = JobKey {
            tenant: tenant.clone(),
            deployment: deployment.clone(),
            cluster: first_name(),
            application: first_name(),
            slot: Slot::Partition(0),
        };
        let (tenant, deployment) = (tenant.clone(), deployment.clone());
        self.jobs
            .range(start..)
            .take_while(move |(key, _)| key.tenant == tenant && key.deployment == deployment)
    }

    /// Jobs of one part of a deployment, in key order.
    pub fn jobs_of_part(
        &self,
        tenant: &Name,
        deployment: &Name,
        cluster: &Name,
    ) -> impl Iterator<Item = (&JobKey, &Job)> + use<'_> {
        let start = JobKey {
            tenant: tenant.clone(),
            deployment: deployment.clone(),
            cluster: cluster.clone(),
            application: first_name(),
            slot: Slot::Partition(0),
        };
        let (tenant, deployment) = (tenant.clone(), deployment.clone());
        let cluster = cluster.clone();
        self.jobs.range(start..).take_while(move |(key, _)| {
            key.tenant == tenant && key.deployment == deployment && key.cluster == cluster
        })
    }

    /// Deployments with a part on a cluster, in order.
    pub fn deployments_on(
        &self,
        tenant: &Name,
        cluster: &Name,
    ) -> impl Iterator<Item = &Name> + use<'_> {
        let (tenant, cluster) = (tenant.clone(), cluster.clone());
        let start = (tenant.clone(), cluster.clone(), first_name());
        self.index
            .parts_by_cluster
            .range((Included(start), Unbounded))
            .take_while(move |(t, c, _)| *t == tenant && *c == cluster)
            .map(|(_, _, deployment)| deployment)
    }

    /// Jobs on a cluster, of all deployments, in key order.
    pub fn jobs_in(
        &self,
        tenant: &Name,
        cluster: &Name,
    ) -> impl Iterator<Item = (&JobKey, &Job)> + use<'_> {
        let (tenant, cluster) = (tenant.clone(), cluster.clone());
        let deployments: Vec<Name> = self.deployments_on(&tenant, &cluster).cloned().collect();
        deployments
            .into_iter()
            .flat_map(move |deployment| self.jobs_of_part(&tenant, &deployment, &cluster))
    }

    /// Parts of a deployment, in order of clusters.
    pub fn parts_of(
        &self,
        tenant: &Name,
        deployment: &Name,
    ) -> impl Iterator<Item = (&Triple, &DeploymentCluster)> + use<'_> {
        let start = (tenant.clone(), deployment.clone(), first_name());
        let (tenant, deployment) = (tenant.clone(), deployment.clone());
        self.deployment_clusters
            .range(start..)
            .take_while(move |((t, d, _), _)| *t == tenant && *d == deployment)
    }

    /// What each application of a deployment is to run now, in order of applications.
    pub fn workloads_of(
        &self,
        tenant: &Name,
        deployment: &Name,
    ) -> impl Iterator<Item = (&Triple, &Arc<Workload>)> + use<'_> {
        let start = (tenant.clone(), deployment.clone(), first_name());
        let (tenant, deployment) = (tenant.clone(), deployment.clone());
        self.index
            .workloads
            .range((Included(start), Unbounded))
            .take_while(move |((t, d, _), _)| *t == tenant && *d == deployment)
    }

    /// The earliest moment at which `Settle` has work for a tenant.
    pub fn next_due(&self, tenant: &Name) -> Option<Timestamp> {
        let start = (tenant.clone(), Timestamp::default(), Due::Job(first_key()));
        let (of, at, _) = self.index.due.range((Included(start), Unbounded)).next()?;
        (of == tenant).then_some(*at)
    }

    /// What is due for a tenant by `time`, earliest first.
    pub(crate) fn due_by(
        &self,
        tenant: &Name,
        time: Timestamp,
    ) -> impl Iterator<Item = &Due> + use<'_> {
        let start = (tenant.clone(), Timestamp::default(), Due::Job(first_key()));
        let tenant = tenant.clone();
        self.index
            .due
            .range((Included(start), Unbounded))
            .take_while(move |(of, at, _)| *of == tenant && *at <= time)
            .map(|(_, _, due)| due)
    }

    /// The number that a host's next report gets in its newest session, for whoever speaks for a
    /// host without keeping count: after all that is known of it.
    pub fn next_report(&self, tenant: &Name, host: &Name) -> ReportNumber {
        let session = self.host(tenant, host).map_or(0, |row| row.contact.session());
        let session = u32::try_from(session).unwrap_or(u32::MAX);
        let copies = self.jobs_on(tenant, host).flat_map(|(_, job)| &job.placements);
        let said =
            copies.filter(|copy| copy.host == *host).filter_map(|copy| copy.current.as_ref());
        let said = said.filter(|current| current.number.session == session);
        let last = said.map(|current| current.number.item).max().unwrap_or(0);
        ReportNumber { session, item: last.saturating_add(1) }
    }

    /// Everything the agent of a host is told now, in key order. What is not in it has no order: the
    /// agent stops it. Empty for a host that is not trusted or not there.
    pub fn orders(&self, tenant: &Name, host: &Name) -> Vec<Order> {
        let trusted = |row: &&Host| match row.state {
            HostState::Registered | HostState::Onboarded => true,
            HostState::Untrusted => false,
        };
        if self.host(tenant, host).filter(trusted).is_none() {
            return Vec::new();
        }
        let order = |(key, job): (&JobKey, &Job)| {
            let placement = job.placements.iter().find(|placement| placement.host == *host)?;
            Some(Order {
                key: key.clone(),
                assignment: placement.assignment,
                scheduled: placement.scheduled.clone(),
                data_elsewhere: job.data_on.as_ref().is_some_and(|other| other != host),
                deployment: self.deployment(tenant, &key.deployment).map(|row| row.meta.uid),
            })
        };
        self.jobs_on(tenant, host).filter_map(order).collect()
    }

    /// The strongest role of an operator in a tenant, or everywhere if none is named.
    pub fn role_of(&self, operator: &Name, tenant: Option<&Name>) -> Option<Role> {
        let at = |scope| self.bindings.get(&(operator.clone(), scope)).map(|row| row.role);
        let here = tenant.and_then(|tenant| at(Scope::Tenant(tenant.clone())));
        here.max(at(Scope::Cluster))
    }

    /// Sum over all rows and the globals: equal on replicas with equal state. The Raft index is left
    /// out: it is not part of what commands decide.
    pub fn hash(&self) -> u128 {
        let globals = &self.globals;
        let globals = (globals.revision, globals.time, globals.rules, globals.requests_from);
        row_hash(&globals, &(self.rows_hash(), self.requests.hash()))
    }

    /// Sum over the rows of all resources, without the globals and the remembered requests: a command
    /// that is refused leaves it as it was.
    pub fn rows_hash(&self) -> u128 {
        let tables = [
            self.tenants.hash(),
            self.hosts.hash(),
            self.clusters.hash(),
            self.images.hash(),
            self.packages.hash(),
            self.deployments.hash(),
            self.deployment_clusters.hash(),
            self.jobs.hash(),
            self.bindings.hash(),
            self.tokens.hash(),
            self.nodes.hash(),
            self.tombstones.hash(),
        ];
        match self.removed_nodes.is_empty() {
            // As it was before there was such a table: states stored then have this hash.
            true => row_hash(&(), &tables),
            false => row_hash(&(), &(tables, self.removed_nodes.hash())),
        }
    }

    /// How many rows [`State::rows`] gives, without looking at any.
    pub fn rows_count(&self) -> usize {
        let counts = [
            self.tenants.len(),
            self.hosts.len(),
            self.clusters.len(),
            self.images.len(),
            self.packages.len(),
            self.deployments.len(),
            self.deployment_clusters.len(),
            self.jobs.len(),
            self.bindings.len(),
            self.tokens.len(),
            self.nodes.len(),
            self.tombstones.len(),
            self.requests.len(),
            self.removed_nodes.len(),
        ];
        counts.iter().sum()
    }

    /// All rows in key order.
    pub fn rows(&self) -> impl Iterator<Item = (Key, Row)> + '_ {
        let pair = |make: fn(Name, Name) -> Key| move |(a, b): &Pair| make(a.clone(), b.clone());
        let triple = |make: fn(Name, Name, Name) -> Key| {
            move |(a, b, c): &Triple| make(a.clone(), b.clone(), c.clone())
        };
        each(&self.tenants, |name: &Name| Key::Tenant(name.clone()), Row::Tenant)
            .chain(each(&self.hosts, pair(Key::Host), Row::Host))
            .chain(each(&self.clusters, pair(Key::Cluster), Row::Cluster))
            .chain(each(&self.images, |(a, b)| Key::Image(a.clone(), *b), Row::Image))
            .chain(each(
                &self.packages,
                |(a, b, c)| Key::Package(a.clone(), b.clone(), c.clone()),
                Row::Package,
            ))
            .chain(each(&self.deployments, pair(Key::Deployment), Row::Deployment))
            .chain(each(
                &self.deployment_clusters,
                triple(Key::DeploymentCluster),
                Row::DeploymentCluster,
            ))
            .chain(each(&self.jobs, |key: &JobKey| Key::Job(key.clone()), Row::Job))
            .chain(each(&self.bindings, |(a, b)| Key::Binding(a.clone(), b.clone()), Row::Binding))
            .chain(each(&self.tokens, |id: &Name| Key::Token(id.clone()), Row::Token))
            .chain(each(&self.nodes, |id| Key::Node(*id), Row::Node))
            .chain(each(&self.tombstones, pair(Key::Tombstone), Row::Tombstone))
            .chain(each(
                &self.requests,
                |id| Key::Request(crate::RequestId::clone(id)),
                Row::Request,
            ))
            .chain(each(&self.removed_nodes, |id| Key::RemovedNode(*id), Row::RemovedNode))
    }

    /// One row.
    pub fn row(&self, key: &Key) -> Option<Row> {
        let pair = |a: &Name, b: &Name| (a.clone(), b.clone());
        match key {
            Key::Tenant(a) => self.tenants.get_arc(a).cloned().map(Row::Tenant),
            Key::Host(a, b) => self.hosts.get_arc(&pair(a, b)).cloned().map(Row::Host),
            Key::Cluster(a, b) => self.clusters.get_arc(&pair(a, b)).cloned().map(Row::Cluster),
            Key::Image(a, b) => self.images.get_arc(&(a.clone(), *b)).cloned().map(Row::Image),
            Key::Package(a, b, c) => {
                let at = (a.clone(), b.clone(), c.clone());
                self.packages.get_arc(&at).cloned().map(Row::Package)
            }
            Key::Deployment(a, b) => {
                self.deployments.get_arc(&pair(a, b)).cloned().map(Row::Deployment)
            }
            Key::DeploymentCluster(a, b, c) => {
                let at = (a.clone(), b.clone(), c.clone());
                self.deployment_clusters.get_arc(&at).cloned().map(Row::DeploymentCluster)
            }
            Key::Job(key) => self.jobs.get_arc(key).cloned().map(Row::Job),
            Key::Binding(a, b) => {
                self.bindings.get_arc(&(a.clone(), b.clone())).cloned().map(Row::Binding)
            }
            Key::Token(a) => self.tokens.get_arc(a).cloned().map(Row::Token),
            Key::Node(id) => self.nodes.get_arc(id).cloned().map(Row::Node),
            Key::Tombstone(a, b) => {
                self.tombstones.get_arc(&pair(a, b)).cloned().map(Row::Tombstone)
            }
            Key::Request(id) => self.requests.get_arc(id).cloned().map(Row::Request),
            Key::RemovedNode(id) => self.removed_nodes.get_arc(id).cloned().map(Row::RemovedNode),
        }
    }
}

/// The first job key in order.
pub(crate) fn first_key() -> JobKey {
    JobKey {
        tenant: first_name(),
        deployment: first_name(),
        cluster: first_name(),
        application: first_name(),
        slot: Slot::Partition(0),
    }
}

/// The rows of one table.
fn each<'a, K, V>(
    table: &'a Table<K, V>,
    key: impl Fn(&K) -> Key + 'a,
    row: fn(Arc<V>) -> Row,
) -> impl Iterator<Item = (Key, Row)> + 'a
where
    K: Ord + Clone + Hash,
    V: Clone + Hash,
{
    table.iter_arc().map(move |(at, value)| (key(at), row(value.clone())))
}
