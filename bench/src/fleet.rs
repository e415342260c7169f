//! A fleet of any size, made as a real one is: by commands of users, agents and planners.
//!
//! Every command is encoded and decoded before it is applied, as on its way through the log, so
//! that rows share no memory with whoever proposed them. Time is counted, not read.

use model::{
    Application, Caller, ClusterSpec, Command, DeploymentSpec, Digest, Draft, DriverKind, Facts,
    HostProfile, Job, JobKey, Name, NodeId, OnDisconnect, Outcome, Phase, Placement, Report,
    Resources, Stamp, State, Strategy, Targets, Timestamp, Value,
    limits::{ANTI_FLAP_MS, ITEMS_MAX},
};
use std::collections::BTreeMap;
use storage::codec;

/// How large a fleet is.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Clusters, at most 50.
    pub clusters: usize,
    /// Hosts of each cluster.
    pub hosts: usize,
    /// Deployments, each of one application on every cluster.
    pub deployments: usize,
    /// Jobs of each deployment on each cluster.
    pub partitions: u32,
}

impl Shape {
    /// Jobs in all.
    pub fn jobs(&self) -> usize {
        self.clusters * self.deployments * self.partitions as usize
    }
}

/// Takes a command at a time and answers the state after it.
pub type Taker = Box<dyn FnMut(Timestamp, Command) -> (State, Outcome)>;

/// A fleet of one tenant.
pub struct Fleet {
    /// What the log made of it so far.
    pub state: State,
    /// The tenant.
    pub tenant: Name,
    shape: Shape,
    time: u64,
    taker: Option<Taker>,
}

impl Fleet {
    /// Hosts in contact, in clusters; nothing deployed yet.
    pub fn new(shape: Shape) -> Self {
        Self::begin(shape, None)
    }

    /// The same, by commands that somebody else takes: a ledger, say.
    pub fn through(shape: Shape, taker: Taker) -> Self {
        Self::begin(shape, Some(taker))
    }

    fn begin(shape: Shape, taker: Option<Taker>) -> Self {
        let tenant = must_name("acme");
        let mut fleet = Self { state: State::default(), tenant, shape, time: 1_000_000, taker };
        let draft = draft(fleet.tenant.clone());
        fleet.apply(&Command::ApplyTenant { draft, display_name: "Acme".to_owned() });
        for cluster in 0..shape.clusters {
            let hosts = (0..shape.hosts).map(|host| host_name(cluster * shape.hosts + host));
            for host in hosts.clone() {
                fleet.add_host(host);
            }
            fleet.apply(&Command::ApplyCluster {
                tenant: fleet.tenant.clone(),
                draft: self::draft(cluster_name(cluster)),
                spec: ClusterSpec { environment: None, members: hosts.collect() },
            });
        }
        fleet
    }

    /// A fleet in which every job runs, has run long enough, and nothing is left to do.
    pub fn at_rest(shape: Shape) -> Self {
        let mut fleet = Self::new(shape);
        for number in 0..shape.deployments {
            fleet.deploy_and_rest(number);
        }
        fleet
    }

    /// Brings deployment `number` to rest.
    pub fn deploy_and_rest(&mut self, number: usize) {
        self.deploy(number, self.shape.partitions);
        self.place_all();
        self.obey_all();
        self.settle_all();
    }

    /// Deploys one application on every cluster, `partitions` jobs on each; they have no hosts yet.
    pub fn deploy(&mut self, number: usize, partitions: u32) {
        let application = application(number, partitions);
        let digest = application.artifacts[&must_name("main")];
        let (tenant, name) = (self.tenant.clone(), deployment_name(number));
        self.apply(&Command::RegisterImage {
            tenant: tenant.clone(),
            digest,
            size_bytes: 4 << 20,
            application: Box::new(application.clone()),
        });
        self.apply(&Command::ApplyPackage {
            tenant: tenant.clone(),
            draft: draft(name.clone()),
            version: application.version.clone(),
            applications: vec![application],
        });
        self.apply(&self.deployment(number, "info"));
        for command in planner::actualize(&self.state, &tenant, Some(&name)).commands {
            self.apply(&command);
        }
    }

    /// The command that deploys (again) deployment `number`, with one variable of its environment.
    pub fn deployment(&self, number: usize, log_level: &str) -> Command {
        let name = deployment_name(number);
        let level = Value::Literal(log_level.to_owned());
        let env = BTreeMap::from([("LOG_LEVEL".to_owned(), level)]);
        let changes = model::Override { env, ..model::Override::default() };
        let clusters = (0..self.shape.clusters).map(cluster_name).collect();
        Command::ApplyDeployment {
            tenant: self.tenant.clone(),
            draft: draft(name.clone()),
            spec: Box::new(DeploymentSpec {
                package: name,
                version: "1.0.0".to_owned(),
                profile: None,
                overrides: BTreeMap::from([(must_name("web"), changes)]),
                targets: Targets::Clusters(clusters),
                strategy: Strategy { max_unavailable: 1 },
            }),
        }
    }

    /// Gives every job that has none a host.
    pub fn place_all(&mut self) {
        for cluster in self.clusters() {
            for command in planner::place(&self.state, &self.tenant, &cluster).commands {
                self.apply(&command);
            }
        }
    }

    /// The agents run what they were told and have not said yet.
    pub fn obey_all(&mut self) {
        for host in (0..self.shape.clusters * self.shape.hosts).map(host_name) {
            let items: Vec<Report> = self
                .state
                .jobs_on(&self.tenant, &host)
                .filter(|(_, job)| job.placements.iter().any(|copy| copy.current.is_none()))
                .filter_map(|(key, job)| report(key, job, Phase::Running))
                .collect();
            for items in items.chunks(ITEMS_MAX) {
                let (tenant, items) = (self.tenant.clone(), items.to_vec());
                let (first, host) = (self.state.next_report(&tenant, &host), host.clone());
                self.apply(&Command::ReportJobs { tenant, host, first, items });
            }
        }
    }

    /// Lets the time pass after which a running job counts as such.
    pub fn settle_all(&mut self) {
        self.time += ANTI_FLAP_MS + 1;
        while let Some(command) = planner::settle(&self.state, &self.tenant, Timestamp(self.time)) {
            self.apply(&command);
        }
    }

    /// Applies one command; panics when it, or one of its items, is refused.
    pub fn apply(&mut self, command: &Command) {
        let bytes = codec::encode(command);
        let Ok(command) = bytes.and_then(|bytes| codec::decode::<Command>(&bytes)) else {
            panic!("{command:?} does not survive the codec");
        };
        let outcome = match &mut self.taker {
            None => self.state.apply(&self.stamp(), &command).outcome,
            Some(take) => {
                let (state, outcome) = take(Timestamp(self.time), command.clone());
                self.state = state;
                outcome
            }
        };
        let refused = match &outcome.result {
            Ok(model::Reply::Items(items)) => items.iter().find_map(|item| item.as_ref().err()),
            Ok(_) => None,
            Err(rejection) => Some(rejection),
        };
        assert!(refused.is_none(), "{refused:?} of {command:?}");
    }

    /// What the log would say of a command proposed now.
    pub fn stamp(&self) -> Stamp {
        let time = Timestamp(self.time);
        Stamp { time, rules: 1, caller: Caller::System, request_id: None }
    }

    /// The clusters.
    pub fn clusters(&self) -> Vec<Name> {
        (0..self.shape.clusters).map(cluster_name).collect()
    }

    /// Up to `max` jobs spread over the whole fleet, each as its host would report it in `phase`.
    pub fn reports(&self, max: usize, phase: Phase) -> Vec<Command> {
        let step = (self.state.jobs.len() / max).max(1);
        let jobs = self.state.jobs.iter().step_by(step).take(max);
        jobs.filter_map(|(key, job)| {
            let host = job.placements.first()?.host.clone();
            let items = vec![report(key, job, phase)?];
            let first = self.state.next_report(&self.tenant, &host);
            Some(Command::ReportJobs { tenant: self.tenant.clone(), host, first, items })
        })
        .collect()
    }

    fn add_host(&mut self, host: Name) {
        let zone = must_name(&format!("zone-{}", host.as_str().as_bytes()[9] % 4));
        self.apply(&Command::ApplyHost {
            tenant: self.tenant.clone(),
            draft: draft(host.clone()),
            site: None,
            zone: Some(zone),
        });
        let profile = HostProfile {
            facts: Facts { arch: "x86_64".to_owned(), os: "linux".to_owned(), ..Facts::default() },
            capacity: Resources { cpu_millis: 64_000, memory_bytes: 64 << 30 },
            drivers: [DriverKind::Exec].into(),
            fenced: true,
        };
        let (tenant, profile) = (self.tenant.clone(), Box::new(profile));
        let (node, agent_key) = (NodeId(1), Digest([1; 32]));
        self.apply(&Command::ConnectHost { tenant, host, node, agent_key, profile });
    }
}

/// What the host of a job's newest copy says of it; `None` without a copy.
pub fn report(key: &JobKey, job: &Job, phase: Phase) -> Option<Report> {
    let Placement { assignment, scheduled, .. } = job.placements.last()?;
    Some(Report {
        key: key.clone(),
        assignment: *assignment,
        order: scheduled.revision,
        phase,
        spec_revision: scheduled.workload.spec_revision,
        image: scheduled.workload.image,
        restarts: 0,
        data_left_behind: false,
        error: None,
    })
}

fn application(number: usize, partitions: u32) -> Application {
    let mut digest = [7; 32];
    digest[..8].copy_from_slice(&(number as u64).to_le_bytes());
    Application {
        name: must_name("web"),
        version: "1.0.0".to_owned(),
        driver: DriverKind::Exec,
        num_partitions: partitions,
        artifacts: BTreeMap::from([(must_name("main"), Digest(digest))]),
        limits: Resources { cpu_millis: 100, memory_bytes: 64 << 20 },
        on_disconnect: OnDisconnect::KeepRunning,
        stop_grace_ms: 10_000,
        env: BTreeMap::from([("PORT".to_owned(), Value::Literal("8080".to_owned()))]),
        zones: Vec::new(),
    }
}

fn draft(name: Name) -> Draft {
    let (labels, annotations) = Default::default();
    Draft { name, labels, annotations, if_revision: None }
}

fn cluster_name(number: usize) -> Name {
    must_name(&format!("store-{number:03}"))
}

fn deployment_name(number: usize) -> Name {
    must_name(&format!("checkout-{number:03}"))
}

/// The name of host `number`.
pub fn host_name(number: usize) -> Name {
    must_name(&format!("edge-{number:05}"))
}

/// A name from text that is one; panics otherwise.
pub fn must_name(text: &str) -> Name {
    match Name::new(text) {
        Ok(name) => name,
        Err(error) => panic!("{text}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_at_rest_runs_all_its_jobs_and_leaves_nothing_to_plan() {
        let shape = Shape { clusters: 2, hosts: 3, deployments: 2, partitions: 5 };
        let fleet = Fleet::at_rest(shape);
        assert_eq!(fleet.state.jobs.len(), shape.jobs());
        let settled = |job: &Job| {
            let current = job.placements.iter().filter_map(|copy| copy.current.as_ref());
            current.filter(|current| current.phase == Phase::Running && current.settled).count()
        };
        assert!(fleet.state.jobs.iter().all(|(_, job)| settled(job) == 1));
        let now = Timestamp(fleet.time);
        assert!(planner::plan_tenant(&fleet.state, &fleet.tenant, now).is_empty());
        for cluster in fleet.clusters() {
            assert!(planner::plan_cluster(&fleet.state, &fleet.tenant, &cluster, now).is_empty());
        }
        assert_eq!(model::invariants::check(&fleet.state), Vec::new());
    }
}
