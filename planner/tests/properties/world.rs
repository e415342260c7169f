//! Random states: users, hosts and time, as commands applied to a state.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::allow_attributes,
    reason = "shared by test binaries"
)]

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Application, Applied, Caller, ClusterSpec, Command, Contact, DeploymentSpec, Digest, Draft,
    DriverKind, Facts, HostProfile, Name, NodeId, OnDisconnect, Phase, Report, Resources, Stamp,
    State, Strategy, Targets, Timestamp,
};
use proptest::prelude::{Just, Strategy as Generate, any, prop_oneof};

pub const HOSTS: u8 = 6;
pub const DEPLOYMENTS: u8 = 3;

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn tenant() -> Name {
    name("acme")
}

/// Something that happens outside of planning.
#[derive(Clone, Debug)]
pub enum Happening {
    /// A user deploys a version.
    Deploy {
        deployment: u8,
        version: u8,
    },
    /// A user changes where a deployment goes.
    Targets {
        deployment: u8,
        north: bool,
        south: bool,
    },
    /// A user deletes a deployment.
    Delete {
        deployment: u8,
        force: bool,
    },
    Connect {
        host: u8,
    },
    Lose {
        host: u8,
    },
    Cordon {
        host: u8,
        cordoned: bool,
    },
    DeclareLost {
        host: u8,
        lost: bool,
    },
    /// A host moves to the other cluster.
    Move {
        host: u8,
    },
    /// A host's agent does what it was told and says so; or its programs fail.
    Obey {
        host: u8,
        failing: bool,
    },
    /// All do, ten seconds pass.
    AllObey,
    Tick {
        ms: u64,
    },
    /// The planners are asked (by the test).
    Plan,
}

pub fn happening() -> impl Generate<Value = Happening> {
    let host = 0..HOSTS;
    let deployment = 0..DEPLOYMENTS;
    prop_oneof![
        4 => (deployment.clone(), 1..4_u8)
            .prop_map(|(deployment, version)| Happening::Deploy { deployment, version }),
        1 => (deployment.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(deployment, north, south)| Happening::Targets { deployment, north, south }),
        1 => (deployment, any::<bool>())
            .prop_map(|(deployment, force)| Happening::Delete { deployment, force }),
        3 => host.clone().prop_map(|host| Happening::Connect { host }),
        2 => host.clone().prop_map(|host| Happening::Lose { host }),
        1 => (host.clone(), any::<bool>())
            .prop_map(|(host, cordoned)| Happening::Cordon { host, cordoned }),
        1 => (host.clone(), any::<bool>())
            .prop_map(|(host, lost)| Happening::DeclareLost { host, lost }),
        1 => host.clone().prop_map(|host| Happening::Move { host }),
        3 => (host, any::<bool>()).prop_map(|(host, failing)| Happening::Obey { host, failing }),
        4 => Just(Happening::AllObey),
        2 => (1..70_000_u64).prop_map(|ms| Happening::Tick { ms }),
        8 => Just(Happening::Plan),
    ]
}

pub struct World {
    pub state: State,
    time: u64,
}

impl World {
    /// Two clusters of three unlike hosts each, three packages of three versions each.
    pub fn new() -> Self {
        let mut world = Self { state: State::default(), time: 1_000_000 };
        world.must(Command::ApplyTenant { draft: draft("acme"), display_name: "Acme".to_owned() });
        for host in 0..HOSTS {
            let (cluster, zone) = if host < 3 { ("north", "z1") } else { ("south", "z2") };
            let zone = if host % 3 == 2 { "z3" } else { zone };
            let cpu = if host % 3 == 1 { 500 } else { 1_500 };
            world.add_host(&format!("edge-{host}"), cluster, zone, cpu);
        }
        for package in 0..DEPLOYMENTS {
            for version in 1..4 {
                world.add_package(package, version);
            }
        }
        world
    }

    pub fn now(&self) -> Timestamp {
        Timestamp(self.time)
    }

    pub fn apply(&mut self, command: Command) -> Applied {
        self.time += 1;
        let stamp = Stamp { time: self.now(), rules: 1, caller: Caller::System, request_id: None };
        self.state.apply(&stamp, &command)
    }

    pub fn must(&mut self, command: Command) {
        let applied = self.apply(command.clone());
        assert!(applied.outcome.result.is_ok(), "{:?} of {command:?}", applied.outcome.result);
    }

    /// A host of a cluster (made if it is not there), in contact.
    pub fn add_host(&mut self, host: &str, cluster: &str, zone: &str, cpu_millis: u64) {
        self.must(Command::ApplyHost {
            tenant: tenant(),
            draft: draft(host),
            site: None,
            zone: Some(name(zone)),
        });
        let members = self.state.cluster(&tenant(), &name(cluster));
        let mut members = members.map(|row| row.spec.members.clone()).unwrap_or_default();
        members.insert(name(host));
        self.set_members(cluster, members);
        self.connect(&name(host), cpu_millis);
    }

    pub fn set_members(&mut self, cluster: &str, members: BTreeSet<Name>) {
        self.must(Command::ApplyCluster {
            tenant: tenant(),
            draft: draft(cluster),
            spec: ClusterSpec { environment: None, members },
        });
    }

    pub fn connect(&mut self, host: &Name, cpu_millis: u64) {
        let exec_only = host.as_str().ends_with('1');
        let drivers = match exec_only {
            true => BTreeSet::from([DriverKind::Exec]),
            false => BTreeSet::from([DriverKind::Exec, DriverKind::Wasm]),
        };
        let profile = HostProfile {
            facts: Facts::default(),
            capacity: Resources { cpu_millis, memory_bytes: 8 << 30 },
            drivers,
            fenced: !exec_only,
        };
        self.must(Command::ConnectHost {
            tenant: tenant(),
            host: host.clone(),
            node: NodeId(1),
            agent_key: Digest([1; 32]),
            profile: Box::new(profile),
        });
    }

    pub fn lose(&mut self, host: &Name) {
        let Some(row) = self.state.host(&tenant(), host) else { return };
        if let Contact::Connected { session, .. } = row.contact {
            self.must(Command::LoseHost { tenant: tenant(), host: host.clone(), session });
        }
    }

    /// An application of one package; version changes its program, its size and its policy not.
    pub fn add_package(&mut self, package: u8, version: u8) {
        let policies = [OnDisconnect::KeepRunning, OnDisconnect::Stop, OnDisconnect::Replace];
        let policy = policies[usize::from(package) % 3];
        let image = Digest([16 * (package + 1) + version; 32]);
        let application = Application {
            name: name("web"),
            version: format!("{version}.0.0"),
            driver: if package == 1 { DriverKind::Wasm } else { DriverKind::Exec },
            num_partitions: 4,
            artifacts: BTreeMap::from([(name("main"), image)]),
            limits: Resources {
                cpu_millis: 100 * u64::from(version) + 50 * u64::from(package),
                memory_bytes: 64 << 20,
            },
            on_disconnect: policy,
            stop_grace_ms: 1_000,
            env: BTreeMap::new(),
            zones: if package == 2 { vec![name("z1"), name("z2")] } else { Vec::new() },
        };
        self.must(Command::RegisterImage {
            tenant: tenant(),
            digest: image,
            size_bytes: 1_000,
            application: Box::new(application.clone()),
        });
        self.must(Command::ApplyPackage {
            tenant: tenant(),
            draft: draft(&format!("package-{package}")),
            version: format!("{version}.0.0"),
            applications: vec![application],
        });
    }

    pub fn deploy(&mut self, deployment: u8, version: u8, targets: Targets) {
        let max_unavailable = 1 + u32::from(version % 2);
        // Refused while it is being deleted: that is a state too.
        self.apply(Command::ApplyDeployment {
            tenant: tenant(),
            draft: draft(&format!("app-{deployment}")),
            spec: Box::new(DeploymentSpec {
                package: name(&format!("package-{deployment}")),
                version: format!("{version}.0.0"),
                profile: None,
                overrides: BTreeMap::new(),
                targets,
                strategy: Strategy { max_unavailable },
            }),
        });
    }

    pub fn happen(&mut self, happening: &Happening) {
        let host_name = |host: u8| name(&format!("edge-{host}"));
        match *happening {
            Happening::Deploy { deployment, version } => {
                let row = self.state.deployment(&tenant(), &name(&format!("app-{deployment}")));
                let targets = row.map_or_else(both, |row| row.spec.targets.clone());
                self.deploy(deployment, version, targets);
            }
            Happening::Targets { deployment, north, south } => {
                let row = self.state.deployment(&tenant(), &name(&format!("app-{deployment}")));
                let version = row.map_or(1, |row| row.spec.version.as_bytes()[0] - b'0');
                let targets = match (north, south) {
                    (true, false) => Targets::Clusters(BTreeSet::from([name("north")])),
                    (false, true) => Targets::Clusters(BTreeSet::from([name("south")])),
                    _ => both(),
                };
                self.deploy(deployment, version, targets);
            }
            Happening::Delete { deployment, force } => {
                let deployment = name(&format!("app-{deployment}"));
                self.apply(Command::DeleteDeployment { tenant: tenant(), deployment, force });
            }
            Happening::Connect { host } => {
                let cpu = if host % 3 == 1 { 500 } else { 1_500 };
                self.connect(&host_name(host), cpu);
            }
            Happening::Lose { host } => self.lose(&host_name(host)),
            Happening::Cordon { host, cordoned } => {
                let host = host_name(host);
                self.must(Command::CordonHost { tenant: tenant(), host, cordoned });
            }
            Happening::DeclareLost { host, lost } => {
                // Refused while the host is in contact.
                let host = host_name(host);
                self.apply(Command::DeclareHostLost { tenant: tenant(), host, lost });
            }
            Happening::Move { host } => self.move_host(&host_name(host)),
            Happening::Obey { host, failing } => self.obey(&host_name(host), failing),
            Happening::AllObey => {
                for host in 0..HOSTS {
                    self.obey(&host_name(host), false);
                }
                self.happen(&Happening::Tick { ms: 10_001 });
            }
            Happening::Tick { ms } => {
                self.time += ms;
                self.must(Command::Settle { tenant: tenant() });
            }
            Happening::Plan => {}
        }
    }

    fn move_host(&mut self, host: &Name) {
        let Some(from) = self.state.cluster_of(&tenant(), host).cloned() else { return };
        let to = if from == name("north") { "south" } else { "north" };
        for (cluster, there) in [(from.as_str(), false), (to, true)] {
            let row = self.state.cluster(&tenant(), &name(cluster)).unwrap();
            let mut members = row.spec.members.clone();
            match there {
                true => members.insert(host.clone()),
                false => members.remove(host),
            };
            self.set_members(cluster, members);
        }
    }

    /// The agent of a host, if it is in contact, does all it was told and reports.
    pub fn obey(&mut self, host: &Name, failing: bool) {
        let Some(row) = self.state.host(&tenant(), host) else { return };
        if !matches!(row.contact, Contact::Connected { .. }) {
            return;
        }
        let report = |order: model::Order| Report {
            key: order.key,
            assignment: order.assignment,
            order: order.scheduled.revision,
            phase: match (order.scheduled.active, failing) {
                (false, _) => Phase::Stopped,
                (true, false) => Phase::Running,
                (true, true) => Phase::Failed,
            },
            spec_revision: order.scheduled.workload.spec_revision,
            image: order.scheduled.workload.image,
            restarts: 0,
            data_left_behind: false,
            error: None,
        };
        let items: Vec<Report> =
            self.state.orders(&tenant(), host).into_iter().map(report).collect();
        let first = self.state.next_report(&tenant(), host);
        self.must(Command::ReportJobs { tenant: tenant(), host: host.clone(), first, items });
    }
}

pub fn both() -> Targets {
    Targets::Clusters(BTreeSet::from([name("north"), name("south")]))
}

pub fn draft(text: &str) -> Draft {
    Draft {
        name: name(text),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        if_revision: None,
    }
}
