//! An edge machine: hardware that outlives its agent, and the agent that runs on it.
//!
//! The agent is the product's, from its memory on disk to its sessions; what runs jobs is its fake
//! driver, under the contract that the real one keeps too.

use super::{
    clock::WallClock,
    control::Common,
    lines::Lines,
    net::Place,
    settings::{self, Plant, Settings, Wire},
    stream::{Way, client_addr},
};
use agent::{
    Parts, Servers,
    driver::{
        Driver as _, JobId, JobSpec,
        fake::{FakeHost, Script},
    },
    images::FakeImages,
};
use identity::{Peer, Principal};
use model::{Clock, DriverKind, HostProfile, Name, NodeId, Resources};
use std::{collections::BTreeSet, path::PathBuf, sync::Arc};
use storage::{
    Disk as _,
    disk::simulated::{Loss, SimulatedDisk},
};
use tokio::task::JoinHandle;

/// Where an agent keeps its files.
const FOLDER: &str = "/agent";

/// An edge machine.
pub(super) struct Edge {
    pub(super) number: usize,
    /// Tenant and name.
    pub(super) at: (Name, Name),
    host: FakeHost,
    disk: SimulatedDisk,
    images: FakeImages,
    clock: Arc<WallClock>,
    peer: Peer,
    nodes: Vec<NodeId>,
    deaf: bool,
    agent: Option<JoinHandle<()>>,
}

fn profile() -> HostProfile {
    HostProfile {
        capacity: Resources { cpu_millis: 1_600, memory_bytes: 4 << 30 },
        drivers: BTreeSet::from([DriverKind::Exec, DriverKind::Wasm]),
        fenced: true,
        ..HostProfile::default()
    }
}

impl Edge {
    /// A machine of a tenant, without an agent yet.
    pub(super) fn new(
        number: usize,
        at: (Name, Name),
        settings: &Settings,
        common: &Common,
    ) -> Self {
        let seed = settings.seed.wrapping_mul(131).wrapping_add(number as u64);
        let identity = |name: &Name| identity::Name::new(name.as_str());
        let principal = match (identity(&at.0), identity(&at.1)) {
            (Ok(tenant), Ok(host)) => Principal::Agent { tenant, host },
            // Both rooms have the same rule for names.
            _ => Principal::Node { id: 0 },
        };
        let mut key_sha256 = [0; 32];
        key_sha256[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
        let serial = number as u128 + 1;
        let host = FakeHost::new();
        host.script("web", Script { stop_ms: 200, start_ms: 50, ..Script::default() });
        Self {
            number,
            at,
            host,
            disk: SimulatedDisk::new(settings::disk(seed)),
            images: FakeImages::default(),
            clock: WallClock::new(common.book.began, 0),
            peer: Peer { principal, serial, not_after_ms: u64::MAX, key_sha256 },
            nodes: (1..=settings.nodes as u64).map(NodeId).collect(),
            deaf: settings.plant == Some(Plant::DeafGuards),
            agent: None,
        }
    }

    pub(super) fn place(&self) -> Place {
        Place::Edge(self.number)
    }

    pub(super) fn is_up(&self) -> bool {
        self.agent.as_ref().is_some_and(|agent| !agent.is_finished())
    }

    /// Starts the agent, if none runs.
    pub(super) async fn start(&mut self, common: &Common) {
        if self.is_up() {
            return;
        }
        let (net, life) = (common.net.clone(), common.net.fence(self.place()));
        let known: Vec<String> = self.nodes.iter().map(|id| client_addr(*id)).collect();
        let servers = match common.wire {
            Wire::Messages => {
                let way = Way { net, edge: self.number, life, peer: self.peer.clone() };
                Servers::over(move |addr| way.calls(addr), (known, 16))
            }
            Wire::Bytes => {
                let (here, peer) = (self.place(), Some(self.peer.clone()));
                let (lines, wire) = (Lines { net, here, life, peer }, common.config.client_wire);
                let dial = move |addr: &str| {
                    api::fabric::channel(&lines, addr, api::fabric::plain, wire)
                        .map(api::fabric::calls)
                };
                Servers::over(dial, (known, 16))
            }
        };
        let data = PathBuf::from(FOLDER);
        // A disk that refuses ends the agent too, and it is started again.
        drop(self.disk.create_dir(&data).await);
        if self.deaf {
            drop(self.host.driver().renew(u64::MAX / 2).await);
        }
        let clock: Arc<dyn Clock> = self.clock.clone();
        let parts = Parts {
            disk: self.disk.clone(),
            driver: Arc::new(self.host.driver()),
            images: Arc::new(self.images.clone()),
            servers: Arc::new(servers),
            profile: Arc::new(profile),
            clock,
            tenant: self.at.0.clone(),
            host: self.at.1.clone(),
            life,
        };
        let (book, here) = (common.book.clone(), self.place());
        book.line(format_args!("{here} is up, life {life}"));
        self.agent = Some(tokio::spawn(async move {
            let config = agent::Config::new(data);
            let ended = agent::run(config, parts, std::future::pending()).await;
            if let Err(error) = ended {
                book.line(format_args!("{here} ended: {error}"));
            }
        }));
    }

    /// The agent's process dies. Its jobs go on.
    pub(super) fn crash(&mut self, common: &Common) {
        self.end(common, Loss::Nothing);
    }

    /// The machine loses its power: its jobs are gone, and what was not synced.
    pub(super) fn reboot(&mut self, common: &Common, loss: Loss) {
        self.end(common, loss);
        self.host.restart();
    }

    fn end(&mut self, common: &Common, loss: Loss) {
        let here = self.place();
        common.book.line(format_args!("{here} goes down, loses {loss:?}"));
        common.net.fence(here);
        self.disk = self.disk.crash(loss);
        if let Some(agent) = self.agent.take() {
            agent.abort();
        }
    }

    /// A guard dies without a word.
    pub(super) fn kill_guard(&self, job: &JobId) -> bool {
        self.host.kill_guard(job)
    }

    /// What runs now.
    pub(super) fn running(&self) -> Vec<(JobId, JobSpec)> {
        self.host.running()
    }
}
