//! What users do.

use crate::{
    edge::capacity_of,
    event::Event,
    ledger::Origin,
    names::{draft, name},
    steps::{NO_IMAGE, NO_START},
    world::World,
};
use model::{
    Application, Caller, ClusterSpec, Command, DeploymentSpec, Digest, Draft, DriverKind, JobKey,
    Name, OnDisconnect, Override, ReportNumber, Resources, Revision, Slot, Strategy, Targets,
    Value,
};
use std::collections::{BTreeMap, BTreeSet};

/// Packages of the first tenant; each has versions 1 to 3.
const PACKAGES: u64 = 4;
/// Deployments of the first tenant.
const DEPLOYMENTS: u64 = 4;

impl World {
    /// The fleet as it is founded: tenants, hosts, clusters, packages, control nodes.
    pub(crate) fn found(&mut self) {
        for number in 0..self.nodes.len() {
            let id = self.nodes[number].id;
            let command = Command::ApplyNode {
                id,
                peer_addr: format!("node-{id}:7001"),
                client_addr: format!("node-{id}:7000"),
                rules_max: 1,
            };
            self.found_one(Caller::Node(id), command);
        }
        for tenant in ["acme", "beta"] {
            let display_name = tenant.to_uppercase();
            let command = Command::ApplyTenant { draft: draft(tenant), display_name };
            self.found_one(crate::names::operator(), command);
        }
        for host in 0..self.hosts.len() {
            let command = self.registration(host);
            self.found_one(crate::names::operator(), command);
        }
        for cluster in ["north", "south", "east"] {
            let members = self.home_members(cluster);
            let command = cluster_of(cluster, members);
            self.found_one(crate::names::operator(), command);
        }
        for tenant in ["acme", "beta"] {
            for package in 0..PACKAGES {
                for version in 1..4 {
                    for command in package_of(tenant, package, version) {
                        self.found_one(Caller::System, command);
                    }
                }
            }
        }
    }

    /// Something of the founding, which is in the log before anything else happens.
    fn found_one(&mut self, caller: Caller, command: Command) {
        use crate::ledger::Entry;
        let stamp = model::Stamp {
            time: model::Timestamp(crate::ledger::EPOCH_MS),
            rules: 1,
            caller,
            request_id: None,
        };
        let ticket = self.log.next_ticket;
        self.log.next_ticket += 1;
        self.log.committed.push(Entry { stamp, command: command.into(), ticket });
    }

    fn registration(&self, host: usize) -> Command {
        let it = &self.hosts[host];
        Command::ApplyHost {
            tenant: it.at.0.clone(),
            draft: draft(it.at.1.as_str()),
            site: Some(name("site")),
            zone: Some(it.zone.clone()),
        }
    }

    /// A host that somebody deleted, if there is one; else any.
    fn missing_host(&mut self) -> usize {
        let any = self.dice.index(self.hosts.len());
        let Some(state) = self.nodes.first().map(|node| &node.state) else { return any };
        let there = |host: usize| {
            let (tenant, name) = &self.hosts[host].at;
            state.host(tenant, name).is_some()
        };
        (0..self.hosts.len()).find(|host| !there(*host)).unwrap_or(any)
    }

    /// Hosts that belong into a cluster when nobody moved them.
    fn home_members(&self, cluster: &str) -> BTreeSet<Name> {
        let of = |number: usize| match self.hosts[number].at.0.as_str() {
            "beta" => "east",
            _ if number.is_multiple_of(2) => "north",
            _ => "south",
        };
        let all = 0..self.hosts.len();
        all.filter(|host| of(*host) == cluster).map(|host| self.hosts[host].at.1.clone()).collect()
    }

    /// A user does something, and will again.
    pub(crate) fn user_acts(&mut self) {
        if self.healing {
            return;
        }
        let at = self.now + self.dice.range(200, 4_500);
        self.at(at, Event::User);
        let command = match self.dice.below(64) {
            0..=22 => self.deployment(),
            23..=25 => self.retry(),
            26..=29 => self.deletion(),
            30..=33 => self.cordon(),
            34..=37 => self.declaration(),
            38 | 39 => self.host_deletion(),
            40..=45 => {
                let host = self.missing_host();
                self.registration(host)
            }
            46..=55 => self.members(),
            56 => self.cluster_deletion(),
            57 => self.distrust(),
            58 | 59 => self.small_tenant(),
            _ => return self.bad_request(),
        };
        self.ask(command, false);
    }

    fn tenant(&mut self) -> &'static str {
        if self.dice.permille(150) { "beta" } else { "acme" }
    }

    fn deployment(&mut self) -> Command {
        let tenant = self.tenant();
        let number = self.dice.below(DEPLOYMENTS);
        // A deployment stays with its package, mostly.
        let package = if self.dice.permille(950) { number } else { self.dice.below(PACKAGES) };
        let version = self.dice.range(1, 3);
        let mut overrides = BTreeMap::new();
        if self.dice.permille(300) {
            let cpu_millis = 50 * self.dice.range(1, 9);
            let limits = Resources { cpu_millis, memory_bytes: 64 << 20 };
            let round = self.dice.below(3).to_string();
            overrides.insert(
                name("web"),
                Override {
                    env: BTreeMap::from([("ROUND".to_owned(), Value::Literal(round))]),
                    num_partitions: None,
                    limits: self.dice.permille(500).then_some(limits),
                },
            );
        }
        let targets = match (tenant, self.dice.below(6)) {
            ("beta", _) => Targets::Clusters(BTreeSet::from([name("east")])),
            (_, 0) => Targets::Clusters(BTreeSet::from([name("north")])),
            (_, 1) => Targets::Clusters(BTreeSet::from([name("south")])),
            (_, 2) => Targets::Selector(
                [("environment".to_owned(), "production".to_owned())].into_iter().collect(),
            ),
            _ => Targets::Clusters(BTreeSet::from([name("north"), name("south")])),
        };
        let max_unavailable = self.dice.range(1, 3) as u32;
        Command::ApplyDeployment {
            tenant: name(tenant),
            draft: draft(&format!("shop-{number}")),
            spec: Box::new(DeploymentSpec {
                package: name(&format!("package-{package}")),
                version: format!("{version}.0.0"),
                profile: None,
                overrides,
                targets,
                strategy: Strategy { max_unavailable },
            }),
        }
    }

    fn deletion(&mut self) -> Command {
        Command::DeleteDeployment {
            tenant: name(self.tenant()),
            deployment: name(&format!("shop-{}", self.dice.below(DEPLOYMENTS))),
            force: self.dice.permille(400),
        }
    }

    /// Jobs that failed are to be tried again: those of a deployment, or any one.
    fn retry(&mut self) -> Command {
        let tenant = name(self.tenant());
        let deployment = name(&format!("shop-{}", self.dice.below(DEPLOYMENTS)));
        let cluster = name(["north", "south", "east"][self.dice.index(3)]);
        match self.dice.below(3) {
            0 => Command::RetryDeployment { tenant, deployment, cluster: None },
            1 => Command::RetryDeployment { tenant, deployment, cluster: Some(cluster) },
            _ => {
                let slot = Slot::Partition(self.dice.below(2) as u32);
                let application = name("web");
                Command::RetryJob { key: JobKey { tenant, deployment, cluster, application, slot } }
            }
        }
    }

    fn some_host(&mut self) -> (Name, Name) {
        let host = self.dice.index(self.hosts.len());
        self.hosts[host].at.clone()
    }

    fn cordon(&mut self) -> Command {
        let (tenant, host) = self.some_host();
        Command::CordonHost { tenant, host, cordoned: self.dice.permille(350) }
    }

    fn declaration(&mut self) -> Command {
        let (tenant, host) = self.some_host();
        Command::DeclareHostLost { tenant, host, lost: self.dice.permille(700) }
    }

    fn host_deletion(&mut self) -> Command {
        let (tenant, host) = self.some_host();
        Command::DeleteHost { tenant, host, force: self.dice.permille(500) }
    }

    fn distrust(&mut self) -> Command {
        let (tenant, host) = self.some_host();
        Command::DistrustHost { tenant, host, reason: "a test".to_owned() }
    }

    /// Members as they should be, with one host elsewhere or left out at times.
    fn members(&mut self) -> Command {
        let cluster = ["north", "south", "east"][self.dice.index(3)];
        let mut members = self.home_members(cluster);
        let any = self.dice.index(self.hosts.len());
        match self.dice.below(4) {
            0 => {
                members.insert(self.hosts[any].at.1.clone());
            }
            1 => {
                members.remove(&self.hosts[any].at.1);
            }
            _ => {}
        }
        // Hosts that are not there just now are left out, mostly.
        if self.dice.permille(900)
            && let Some(state) = self.nodes.first().map(|node| &node.state)
        {
            let tenant = name(if cluster == "east" { "beta" } else { "acme" });
            members.retain(|host| state.host(&tenant, host).is_some());
        }
        cluster_of(cluster, members)
    }

    fn cluster_deletion(&mut self) -> Command {
        let cluster = ["north", "south", "east"][self.dice.index(3)];
        Command::DeleteCluster {
            tenant: name(if cluster == "east" { "beta" } else { "acme" }),
            cluster: name(cluster),
            force: self.dice.permille(500),
        }
    }

    /// A tenant that comes and goes.
    fn small_tenant(&mut self) -> Command {
        if self.dice.permille(500) {
            return Command::DeleteTenant { tenant: name("gamma") };
        }
        Command::ApplyTenant { draft: draft("gamma"), display_name: "Gamma".to_owned() }
    }

    /// Something that has to be refused, or comes from somebody who may not ask it.
    fn bad_request(&mut self) {
        let (tenant, host) = self.some_host();
        let deployment = self.deployment();
        let command = match (self.dice.below(6), deployment) {
            (0, Command::ApplyDeployment { tenant, draft, mut spec }) => {
                spec.version = "9.9.9".to_owned();
                Command::ApplyDeployment { tenant, draft, spec }
            }
            (1, Command::ApplyDeployment { tenant, draft, mut spec }) => {
                let num_partitions = Some(7);
                spec.overrides
                    .insert(name("web"), Override { num_partitions, ..Override::default() });
                Command::ApplyDeployment { tenant, draft, spec }
            }
            (2, Command::ApplyDeployment { tenant, draft, spec }) => {
                let draft = Draft { if_revision: Some(Revision(1)), ..draft };
                Command::ApplyDeployment { tenant, draft, spec }
            }
            (3, _) => {
                // An agent speaks for another host.
                let (tenant, first) = (tenant.clone(), ReportNumber::default());
                let items = Vec::new();
                let command = Command::ReportJobs { tenant: tenant.clone(), host, first, items };
                let caller = Caller::Agent { tenant, host: name("nobody") };
                let node = self.dice.index(self.nodes.len());
                self.propose(node, (caller, command), Origin::Duty);
                return;
            }
            (4, _) => Command::LoseHost { tenant, host, session: 0 },
            _ => Command::SyncJobs { keys: Vec::new() },
        };
        self.ask(command, false);
    }
}

pub(crate) fn cluster_of(cluster: &str, members: BTreeSet<Name>) -> Command {
    let environment = (cluster != "south").then(|| name("production"));
    Command::ApplyCluster {
        tenant: name(if cluster == "east" { "beta" } else { "acme" }),
        draft: draft(cluster),
        spec: ClusterSpec { environment, members },
    }
}

/// One version of a package, with its image. Package 3 changes its policy with its version.
pub(crate) fn package_of(tenant: &str, package: u64, version: u64) -> [Command; 2] {
    use OnDisconnect::{KeepRunning, Replace, Stop};
    let policy = match (package, version) {
        (0 | 2, _) => Stop,
        (1, _) | (3, 1) => KeepRunning,
        (3, 2) => Stop,
        _ => Replace,
    };
    let mut bytes = [(16 * (package + 1) + version) as u8; 32];
    bytes[31] = match (package, version) {
        (2, 3) => NO_IMAGE,
        (1, 3) => NO_START,
        _ => 0,
    };
    let image = Digest(bytes);
    let application = Application {
        name: name("web"),
        version: format!("{version}.0.0"),
        driver: if package == 0 { DriverKind::Wasm } else { DriverKind::Exec },
        num_partitions: 2 + (package % 2) as u32,
        artifacts: BTreeMap::from([(name("main"), image)]),
        limits: Resources {
            cpu_millis: capacity_of(0).cpu_millis / 8 + 50 * version,
            memory_bytes: 64 << 20,
        },
        on_disconnect: policy,
        stop_grace_ms: 500 + 2_000 * package,
        env: BTreeMap::new(),
        zones: if package == 2 { vec![name("zone-0"), name("zone-1")] } else { Vec::new() },
    };
    [
        Command::RegisterImage {
            tenant: name(tenant),
            digest: image,
            size_bytes: 1_000,
            application: Box::new(application.clone()),
        },
        Command::ApplyPackage {
            tenant: name(tenant),
            draft: draft(&format!("package-{package}")),
            version: format!("{version}.0.0"),
            applications: vec![application],
        },
    ]
}
