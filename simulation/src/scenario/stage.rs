//! What a story needs: a quiet world, people who ask and are answered, and looks at what is so.

use crate::{
    Faults, Plant, Settings,
    names::{draft, name},
    network::Link,
    world::World,
};
use anyhow::{Result, bail};
use model::{
    ClusterSpec, Command, Deployment, DeploymentSpec, DeploymentState, JobKey, Name, State,
    Strategy, Targets,
};
use std::collections::{BTreeMap, BTreeSet};

/// A world in which only the story happens.
pub(super) struct Stage {
    pub(super) world: World,
}

impl Stage {
    /// A founded fleet; everything is in contact.
    pub(super) fn new() -> Result<Self> {
        Self::with(None)
    }

    /// The same, with a bug planted.
    pub(super) fn with(plant: Option<Plant>) -> Result<Self> {
        let settings = Settings { faults: Faults::NONE, plant, ..Settings::of_seed(7) };
        let mut stage = Self { world: World::new(settings) };
        stage.pass(15_000)?;
        Ok(stage)
    }

    /// Lets time pass; a broken rule ends the story.
    pub(super) fn pass(&mut self, ms: u64) -> Result<()> {
        let until = self.world.now + ms;
        self.world.run_until(until);
        match &self.world.violation {
            Some(violation) => bail!("{}: {}", violation.oracle, violation.detail),
            None => Ok(()),
        }
    }

    /// Lets time pass until something is so, at most so long. How long it took.
    pub(super) fn until(
        &mut self,
        what: &str,
        most_ms: u64,
        is_so: impl Fn(&World) -> bool,
    ) -> Result<u64> {
        let began = self.world.now;
        while !is_so(&self.world) {
            if self.world.now > began + most_ms {
                bail!("after {most_ms} ms it is not so that {what}");
            }
            self.pass(100)?;
        }
        Ok(self.world.now - began)
    }

    /// Somebody asks for something and gets it.
    pub(super) fn ask(&mut self, command: Command) -> Result<()> {
        let request = self.world.ask(command, true);
        self.until("it is answered", 10_000, |world| {
            world.users.requests[request].answer.is_some()
        })?;
        match self.world.users.requests[request].answer.as_ref().map(|answer| &answer.result) {
            Some(Err(rejection)) => bail!("refused: {}", rejection.message),
            _ => Ok(()),
        }
    }

    /// A version of a package on clusters.
    pub(super) fn deploy(&mut self, shop: &str, package: &str, targets: Targets) -> Result<()> {
        self.deploy_version(shop, (package, "1.0.0"), targets)
    }

    /// A version of a package on clusters.
    pub(super) fn deploy_version(
        &mut self,
        shop: &str,
        (package, version): (&str, &str),
        targets: Targets,
    ) -> Result<()> {
        self.ask(Command::ApplyDeployment {
            tenant: name("acme"),
            draft: draft(shop),
            spec: Box::new(DeploymentSpec {
                package: name(package),
                version: version.to_owned(),
                profile: None,
                overrides: BTreeMap::new(),
                targets,
                strategy: Strategy { max_unavailable: 1 },
            }),
        })
    }

    /// A cluster's members, environment `blue` or none.
    pub(super) fn cluster(&mut self, cluster: &str, blue: bool, members: &[&str]) -> Result<()> {
        let environment = blue.then(|| name("blue"));
        let members = members.iter().map(|host| name(host)).collect();
        self.ask(Command::ApplyCluster {
            tenant: name("acme"),
            draft: draft(cluster),
            spec: ClusterSpec { environment, members },
        })
    }

    /// No message passes between a host and any node.
    pub(super) fn cut(&mut self, host: usize) {
        for node in 0..self.world.nodes.len() {
            self.world.network.block(Link::Up(host, node));
            self.world.network.block(Link::Down(node, host));
        }
    }

    /// No other node can call this one; it calls them as before.
    pub(super) fn cut_calls_to(&mut self, node: usize) {
        for other in (0..self.world.nodes.len()).filter(|other| *other != node) {
            self.world.network.block(Link::Nodes(other, node));
        }
    }

    /// Messages pass again.
    pub(super) fn mend(&mut self) {
        self.world.network.mend_all();
    }
}

/// The state of the first node.
pub(super) fn state(world: &World) -> &State {
    &world.nodes[0].state
}

pub(super) fn deployment<'a>(world: &'a World, shop: &str) -> Option<&'a Deployment> {
    state(world).deployment(&name("acme"), &name(shop))
}

pub(super) fn is(world: &World, shop: &str, asked: DeploymentState) -> bool {
    deployment(world, shop).is_some_and(|row| row.state == asked)
}

/// Jobs of a deployment that really run, each with its host.
pub(super) fn running(world: &mut World, shop: &str) -> BTreeSet<(JobKey, Name)> {
    let now = world.now;
    let mut running = BTreeSet::new();
    for host in &mut world.hosts {
        host.machine.settle(now);
        for (key, guard) in &host.machine.guards {
            if guard.is_up() && key.deployment.as_str() == shop {
                running.insert((key.clone(), host.at.1.clone()));
            }
        }
    }
    running
}

/// These clusters.
pub(super) fn on(clusters: &[&str]) -> Targets {
    Targets::Clusters(clusters.iter().map(|cluster| name(cluster)).collect())
}
