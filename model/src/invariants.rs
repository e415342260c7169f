//! What must hold of every state between commands. Written once: the tests of this room, the
//! simulation and a control node's self-check all ask here.

use crate::{
    Counts, DeploymentState, Job, JobKey, Key, Name, OnDisconnect, Phase, Scope, Slot, State,
    Targets, TokenKind, decide, due,
    index::Pair,
    limits, rollup,
    tally::{Standing, standing},
};
use std::{collections::BTreeMap, fmt::Display};

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Which one, in a word.
    pub invariant: &'static str,
    /// What breaks it.
    pub detail: String,
}

/// Everything wrong with a state; empty if nothing is. Costs a pass over all rows.
pub fn check(state: &State) -> Vec<Violation> {
    let mut found = Found(Vec::new());
    found.derived(state);
    found.owners(state);
    found.members(state);
    found.targets(state);
    found.deletions(state);
    found.capacity(state);
    for (key, job) in state.jobs.iter() {
        found.job(state, key, job);
    }
    found.statuses(state);
    found.0
}

struct Found(Vec<Violation>);

impl Found {
    fn expect(&mut self, holds: bool, invariant: &'static str, detail: impl Display) {
        if !holds {
            self.0.push(Violation { invariant, detail: detail.to_string() });
        }
    }

    /// Indexes and hashes are those that the rows alone give.
    fn derived(&mut self, state: &State) {
        let rebuilt = State::load(state.globals.clone(), state.rows());
        self.expect(rebuilt.index == state.index, "index", "differs from what its rows give");
        self.expect(rebuilt.hash() == state.hash(), "hash", "differs from what its rows give");
        self.expect(state.dirty.is_empty(), "conclusion", "something was not looked at");
        let requests = &state.requests;
        let oldest = requests.iter().next().map(|(id, _)| id.at);
        let known = oldest.is_none_or(|at| at >= state.globals.requests_from);
        let bounded = requests.len() <= limits::REQUESTS_MAX;
        self.expect(known && bounded, "requests", "remembered outside the window");
    }

    /// Every derived row has a live owner (specification 6.7, number 4).
    fn owners(&mut self, state: &State) {
        let tenant = |name: &Name| state.tenants.contains(name);
        for ((of, name), _) in state.hosts.iter() {
            self.expect(tenant(of), "orphan", format!("host {of}/{name}"));
        }
        for ((of, name), _) in state.clusters.iter() {
            self.expect(tenant(of), "orphan", format!("cluster {of}/{name}"));
        }
        for ((of, digest), _) in state.images.iter() {
            self.expect(tenant(of), "orphan", format!("image {of}/{digest}"));
        }
        for ((of, name, version), row) in state.packages.iter() {
            let image = |digest| state.images.contains(&(of.clone(), digest));
            let artifacts = row.applications.iter().flat_map(|it| it.artifacts.values());
            let whole = artifacts.copied().all(image);
            self.expect(tenant(of) && whole, "orphan", format!("package {of}/{name} {version}"));
        }
        for ((of, name), row) in state.deployments.iter() {
            let at = (of.clone(), row.spec.package.clone(), row.spec.version.clone());
            let held = tenant(of) && state.packages.contains(&at);
            self.expect(held, "orphan", format!("deployment {of}/{name}"));
        }
        for ((of, deployment, cluster), _) in state.deployment_clusters.iter() {
            let held =
                state.deployment(of, deployment).is_some() && state.cluster(of, cluster).is_some();
            self.expect(held, "orphan", format!("part {of}/{deployment}/{cluster}"));
        }
        for ((operator, scope), _) in state.bindings.iter() {
            let held = match scope {
                Scope::Cluster => true,
                Scope::Tenant(name) => tenant(name),
            };
            self.expect(held, "orphan", format!("binding of {operator}"));
        }
        for (id, row) in state.tokens.iter() {
            let held = match &row.kind {
                TokenKind::Agent { tenant: name } => tenant(name),
                TokenKind::Node | TokenKind::Operator { .. } => true,
            };
            self.expect(held, "orphan", format!("token {id}"));
        }
        for ((of, host), _) in state.tombstones.iter() {
            let held = tenant(of) && state.host(of, host).is_none();
            self.expect(held, "orphan", format!("tombstone {of}/{host}"));
        }
    }

    /// A host is in one cluster at most, and every member is a host.
    fn members(&mut self, state: &State) {
        for ((of, name), row) in state.clusters.iter() {
            for host in &row.spec.members {
                let here =
                    state.host(of, host).is_some() && state.cluster_of(of, host) == Some(name);
                self.expect(here, "membership", format!("host {host} of cluster {of}/{name}"));
            }
        }
    }

    /// Listed clusters that stay are targets, and nothing else is.
    fn targets(&mut self, state: &State) {
        for ((of, name), row) in state.deployments.iter() {
            let any = state.parts_of(of, name).any(|(_, part)| part.targeted);
            let going = row.meta.deletion.is_some();
            let known = going || row.targetless_since.is_none() == any;
            self.expect(known, "targets", format!("deployment {of}/{name} has targets: {any}"));
            let Targets::Clusters(clusters) = &row.spec.targets else { continue };
            for cluster in clusters {
                let stays = state.cluster(of, cluster).is_some_and(|it| it.meta.deletion.is_none());
                let at = (of.clone(), name.clone(), cluster.clone());
                let part = state.deployment_clusters.get(&at).is_some_and(|part| part.targeted);
                let right = going || part == stays;
                self.expect(right, "targets", format!("deployment {of}/{name} on {cluster}"));
            }
        }
    }

    /// A deletion that waits for nothing is done, and says what it waits for otherwise.
    fn deletions(&mut self, state: &State) {
        let tenants = state.tenants.iter().map(|(at, row)| (Key::Tenant(at.clone()), &row.meta));
        let pair = |(a, b): &Pair| (a.clone(), b.clone());
        let hosts = state.hosts.iter().map(|(at, row)| {
            let (a, b) = pair(at);
            (Key::Host(a, b), &row.meta)
        });
        let clusters = state.clusters.iter().map(|(at, row)| {
            let (a, b) = pair(at);
            (Key::Cluster(a, b), &row.meta)
        });
        let deployments = state.deployments.iter().map(|(at, row)| {
            let (a, b) = pair(at);
            (Key::Deployment(a, b), &row.meta)
        });
        for (key, meta) in tenants.chain(hosts).chain(clusters).chain(deployments) {
            let Some(deletion) = &meta.deletion else { continue };
            let waiting_on = decide::waiting_on(state, &key);
            let right = !waiting_on.is_empty() && deletion.waiting_on == waiting_on;
            self.expect(right, "deletion", format!("{key} waits for {waiting_on:?}"));
        }
    }

    /// Capacity is never over-committed. It may shrink below what is placed; then nothing was placed
    /// since.
    fn capacity(&mut self, state: &State) {
        for ((of, host), usage) in &state.index.usage {
            let Some(row) = state.host(of, host) else { continue };
            let fits = usage.cpu_millis <= row.capacity.cpu_millis
                && usage.memory_bytes <= row.capacity.memory_bytes;
            let newest = state.jobs_on(of, host).flat_map(|(_, job)| &job.placements);
            let newest = newest.filter(|it| it.host == *host).map(|it| it.assignment.0).max();
            let shrank = newest.is_none_or(|newest| newest < row.capacity_revision.0);
            self.expect(fits || shrank, "capacity", format!("host {of}/{host} holds {usage:?}"));
        }
    }

    fn job(&mut self, state: &State, key: &JobKey, job: &Job) {
        let part = (key.tenant.clone(), key.deployment.clone(), key.cluster.clone());
        let part = state.deployment_clusters.get(&part);
        self.expect(part.is_some(), "orphan", format!("job {key}"));
        let left = job.active || !job.placements.is_empty();
        self.expect(left, "leftover", format!("job {key} is not to run and nowhere"));
        self.expect(job.due_at == due::of_job(job), "due", format!("job {key}"));
        let frozen = part.and_then(|part| part.num_partitions.get(&key.application));
        let counted = match key.slot {
            Slot::Partition(n) => frozen.is_some_and(|number| n < *number),
            Slot::Host(_) | Slot::Run(_) => false,
        };
        self.expect(counted, "partitions", format!("job {key} of {frozen:?}"));
        self.copies(key, job);
        for (position, placement) in job.placements.iter().enumerate() {
            let what = || format!("job {key} copy {}", placement.assignment);
            let earlier = &job.placements[..position];
            let newest = earlier
                .iter()
                .all(|it| it.assignment < placement.assignment && it.host != placement.host);
            self.expect(newest, "assignment", what());
            let ordered = placement.assignment.0 <= placement.scheduled.revision.0
                && placement.scheduled.revision <= job.revision
                && job.revision <= state.globals.revision;
            self.expect(ordered, "revisions", what());
            let held = state.host(&key.tenant, &placement.host).is_some();
            self.expect(held, "orphan", what());
            let told = job.active || !placement.scheduled.active;
            self.expect(told, "retirement", what());
            let asked = !placement.scheduled.active || placement.scheduled.workload == job.workload;
            self.expect(asked, "order", what());
            if let Some(current) = &placement.current {
                let answers = current.order <= placement.scheduled.revision;
                let settled = !current.settled || current.phase == Phase::Running;
                self.expect(answers && settled, "report", what());
            }
        }
    }

    /// A `stop` copy is the only one. A `keep_running` copy may be beside `replace` copies of before
    /// that were told to stop, never beside an active one.
    fn copies(&mut self, key: &JobKey, job: &Job) {
        let (mut stop, mut kept, mut active) = (0, 0, 0);
        for placement in &job.placements {
            match placement.scheduled.workload.on_disconnect {
                OnDisconnect::Stop => stop += 1,
                OnDisconnect::KeepRunning => kept += 1,
                OnDisconnect::Replace => {}
            }
            active += usize::from(placement.scheduled.active);
        }
        let copies = job.placements.len();
        let alone = stop == 0 || copies == 1;
        let single = kept == 0 || kept == 1 && active <= 1;
        self.expect(alone && single, "exclusive", format!("job {key} has {copies} copies"));
    }

    /// Counts and states are those that a count of all jobs gives.
    fn statuses(&mut self, state: &State) {
        let mut sums: BTreeMap<Pair, Counts> = BTreeMap::new();
        for (at, part) in state.deployment_clusters.iter() {
            let counts = count(state, at);
            let sum = sums.entry((at.0.clone(), at.1.clone())).or_default();
            *sum = rollup::plus(*sum, counts);
            let what = || format!("{}/{} on {}", at.0, at.1, at.2);
            self.expect(part.counts == counts, "counts", what());
            let summary = rollup::part(state, at);
            let right = summary.is_some_and(|it| it.is_of(part.state, &part.counts, &part.status));
            self.expect(right, "status", what());
        }
        for (at, row) in state.deployments.iter() {
            let counts = sums.get(at).copied().unwrap_or_default();
            let what = || format!("deployment {}/{}", at.0, at.1);
            self.expect(row.counts == counts, "counts", what());
            let right = rollup::deployment(state, at, row, counts);
            let right = right.is_of(row.state, &row.counts, &row.status);
            self.expect(right, "status", what());
            let done = row.state != DeploymentState::Running || !row.in_progress;
            self.expect(done, "progress", what());
        }
    }
}

/// Partitions of a part, counted one by one.
fn count(state: &State, at: &(Name, Name, Name)) -> Counts {
    let (tenant, deployment, cluster) = at;
    let mut counts = Counts::default();
    let (Some(row), Some(part)) =
        (state.deployment(tenant, deployment), state.deployment_clusters.get(at))
    else {
        return counts;
    };
    if row.meta.deletion.is_some() || !part.targeted {
        return counts;
    }
    for ((_, _, application), workload) in state.workloads_of(tenant, deployment) {
        counts.total += u64::from(workload.num_partitions);
        let jobs = state.jobs_of_part(tenant, deployment, cluster);
        for (_, job) in jobs.filter(|(key, _)| key.application == *application) {
            match standing(state, tenant, job) {
                Standing::Running(at) if at == row.workload_revision => counts.running += 1,
                Standing::Unknown => counts.unknown += 1,
                Standing::Failed(at) if at == row.workload_revision => counts.failed += 1,
                Standing::Running(_) | Standing::Failed(_) | Standing::Stalled(_) => {}
                Standing::Retired | Standing::Pending | Standing::Retrying(..) => {}
            }
        }
    }
    counts.pending = counts.total - counts.running - counts.unknown - counts.failed;
    counts
}
