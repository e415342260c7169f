//! Users: they found the fleet, change their minds, read, and remember what they were told.
//!
//! What they were told is judged at once. Every answer has a revision, and revisions are the order in
//! which everything happened; so the history of all users is linearizable if and only if whoever begins
//! after an answer gets no older revision, and a write a newer one.

use super::{
    book::Book,
    clock::EPOCH_MS,
    net::Net,
    settings::{Plant, Settings},
    stream::client_addr,
};
use crate::{
    dice::Dice,
    names::{draft, name, operator},
    workload::{cluster_of, package_of},
};
use consensus::{Ledger as _, Proposal, RaftLedger};
use model::{
    Caller, Command, DeploymentSpec, Name, NodeId, Outcome, RequestId, Revision, Strategy, Targets,
    Timestamp,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

/// Packages; each has versions 1 to 3.
const PACKAGES: u64 = 4;
/// Deployments.
const DEPLOYMENTS: u64 = 8;
/// Tries of a request.
const TRIES_MAX: u32 = 8;
/// Users that write, and users that read.
const WRITERS: u64 = 4;
const READERS: u64 = 3;

/// A request with its answer.
#[derive(Clone, Debug)]
pub(super) struct Answered {
    pub(super) id: RequestId,
    pub(super) outcome: Outcome,
}

#[derive(Default)]
struct History {
    /// The newest revision anybody was told of.
    floor: Revision,
    answered: Vec<Answered>,
}

/// All users. Clones remember the same.
#[derive(Clone)]
pub(super) struct Users {
    net: Net,
    book: Book,
    history: Arc<Mutex<History>>,
    over: Arc<AtomicBool>,
    hosts: usize,
    nodes: u64,
    stale: bool,
    lossy: bool,
}

/// The name of an edge host.
pub(super) fn host_name(number: usize) -> Name {
    name(&format!("edge-{number}"))
}

/// Hosts that belong into a cluster when nobody moved them.
fn home_members(hosts: usize, cluster: &str) -> BTreeSet<Name> {
    let parity = usize::from(cluster == "south");
    (0..hosts).filter(|number| number % 2 == parity).map(host_name).collect()
}

impl Users {
    pub(super) fn new(settings: &Settings, net: Net, book: Book) -> Self {
        Self {
            net,
            book,
            history: Arc::default(),
            over: Arc::default(),
            hosts: settings.hosts,
            nodes: settings.nodes as u64,
            stale: settings.plant == Some(Plant::StaleReads),
            lossy: settings.faults.messages,
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that users were told so far.
    pub(super) fn answered(&self) -> Vec<Answered> {
        self.history().answered.clone()
    }

    /// They go home, when they have the answers they wait for.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Some begin to write and some to read.
    pub(super) fn begin(&self, seed: u64) -> Vec<JoinHandle<()>> {
        let dice = |number: u64| Dice::new(seed.wrapping_mul(977).wrapping_add(number));
        let writers = (0..WRITERS).map(|it| tokio::spawn(self.clone().writes(it, dice(it))));
        let readers = (0..READERS).map(|it| tokio::spawn(self.clone().reads(dice(100 + it))));
        writers.chain(readers).collect()
    }

    async fn writes(self, number: u64, mut dice: Dice) {
        let mut count = 0;
        while !self.over.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(dice.range(20, 600))).await;
            count += 1;
            let command = match number {
                // Two of them only ever write one row each.
                0 | 1 => tenant(&format!("shelf-{number}"), &format!("book {count}")),
                _ => self.some_command(&mut dice),
            };
            self.ask(&mut dice, operator(), command).await;
        }
    }

    /// Asks until there is an answer, under one name and through any node; not for ever.
    async fn ask(&self, dice: &mut Dice, caller: Caller, command: Command) -> Option<Outcome> {
        let floor = self.history().floor;
        let unique = u128::from(dice.next());
        let at = Timestamp(EPOCH_MS + self.book.age().as_millis() as u64);
        let id = RequestId { at, unique };
        for _ in 0..TRIES_MAX {
            let Some(ledger) = self.pick(dice) else {
                sleep(Duration::from_millis(200)).await;
                continue;
            };
            let proposal = Proposal {
                command: command.clone(),
                caller: caller.clone(),
                request_id: Some(id.clone()),
                deadline: Instant::now() + Duration::from_millis(dice.range(300, 4_000)),
            };
            match ledger.propose(proposal).await {
                // Nobody hears of it, and asks again.
                Ok(_) if self.lossy && dice.permille(40) => {}
                Ok(outcome) => {
                    self.told(floor, id, &outcome);
                    return Some(outcome);
                }
                Err(error) => {
                    let node = ledger.node_id();
                    self.book.line(format_args!("a user hears of node {node}: {error}"));
                    sleep(Duration::from_millis(dice.range(10, 300))).await;
                }
            }
        }
        None
    }

    fn told(&self, floor: Revision, id: RequestId, outcome: &Outcome) {
        let revision = outcome.revision;
        if outcome.result.is_ok() {
            self.book.count(|figures| figures.acknowledged += 1);
            if revision <= floor {
                let detail = format!("a write after {floor} has revision {revision}");
                self.book.fail("linearizability", detail);
            }
        }
        let mut history = self.history();
        history.floor = history.floor.max(revision);
        history.answered.push(Answered { id, outcome: outcome.clone() });
    }

    fn pick(&self, dice: &mut Dice) -> Option<RaftLedger> {
        let ledgers = self.net.ledgers();
        dice.pick(&ledgers).map(|(_, ledger)| ledger.clone())
    }

    async fn reads(self, mut dice: Dice) {
        while !self.over.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(dice.range(5, 250))).await;
            let Some(ledger) = self.pick(&mut dice) else { continue };
            let floor = self.history().floor;
            let deadline = Instant::now() + Duration::from_millis(dice.range(100, 2_000));
            if !self.stale && ledger.linearize(deadline).await.is_err() {
                continue;
            }
            let revision = ledger.read(|state| state.globals.revision);
            self.book.count(|figures| figures.reads += 1);
            if revision < floor {
                let node = ledger.node_id();
                let detail = format!("a read of node {node} after {floor} shows {revision}");
                self.book.fail("linearizability", detail);
            }
            let mut history = self.history();
            history.floor = history.floor.max(revision);
        }
    }

    /// What has to be taken: the founding of the fleet.
    async fn found_one(&self, dice: &mut Dice, caller: Caller, command: Command) {
        let what = format!("{command:?}");
        match self.ask(dice, caller, command).await {
            Some(Outcome { result: Ok(_), .. }) => {}
            other => self.book.fail("founding", format!("{what} is answered {other:?}")),
        }
    }

    /// The fleet as it is founded: control nodes, tenants, hosts, clusters, packages.
    pub(super) async fn found(&self, seed: u64) {
        let mut dice = Dice::new(seed ^ 0x666f_756e);
        for id in (1..=self.nodes).map(NodeId) {
            let (peer_addr, client_addr) = (peer_addr(id), client_addr(id));
            let rules_max = model::RULES_MAX;
            let command = Command::ApplyNode { id, peer_addr, client_addr, rules_max };
            self.found_one(&mut dice, Caller::Node(id), command).await;
        }
        self.found_one(&mut dice, operator(), tenant("acme", "Acme")).await;
        for number in 0..self.hosts {
            let command = Command::ApplyHost {
                tenant: name("acme"),
                draft: draft(host_name(number).as_str()),
                site: Some(name("site")),
                zone: Some(name(&format!("zone-{}", number % 3))),
            };
            self.found_one(&mut dice, operator(), command).await;
        }
        for cluster in ["north", "south"] {
            let command = cluster_of(cluster, home_members(self.hosts, cluster));
            self.found_one(&mut dice, operator(), command).await;
        }
        for package in 0..PACKAGES {
            for command in (1..4).flat_map(|version| package_of("acme", package, version)) {
                self.found_one(&mut dice, Caller::System, command).await;
            }
        }
        for number in 0..DEPLOYMENTS {
            let command = deployment(number, 1, Targets::Clusters([name("north")].into()));
            self.found_one(&mut dice, operator(), command).await;
        }
    }

    fn some_command(&self, dice: &mut Dice) -> Command {
        let some_host = |dice: &mut Dice| (name("acme"), host_name(dice.index(self.hosts)));
        match dice.below(20) {
            0..=9 => {
                let targets = match dice.below(4) {
                    0 => Targets::Clusters([name("north")].into()),
                    1 => Targets::Clusters([name("south")].into()),
                    _ => Targets::Clusters([name("north"), name("south")].into()),
                };
                deployment(dice.below(DEPLOYMENTS), dice.range(1, 3), targets)
            }
            10 => Command::DeleteDeployment {
                tenant: name("acme"),
                deployment: name(&format!("shop-{}", dice.below(DEPLOYMENTS))),
                force: dice.permille(300),
            },
            11 | 12 => {
                let (tenant, host) = some_host(dice);
                Command::CordonHost { tenant, host, cordoned: dice.permille(300) }
            }
            13 => {
                let (tenant, host) = some_host(dice);
                Command::DeclareHostLost { tenant, host, lost: dice.permille(600) }
            }
            14 | 15 => {
                let cluster = if dice.permille(500) { "north" } else { "south" };
                let mut members = home_members(self.hosts, cluster);
                if dice.permille(300) {
                    members.remove(&host_name(dice.index(self.hosts)));
                }
                cluster_of(cluster, members)
            }
            16 => Command::SyncJobs { keys: Vec::new() },
            _ => tenant(&format!("small-{}", dice.below(3)), &format!("{}", dice.below(9))),
        }
    }
}

/// The address of a node's peer port.
pub(super) fn peer_addr(id: NodeId) -> String {
    format!("node-{id}:7401")
}

fn tenant(named: &str, display_name: &str) -> Command {
    Command::ApplyTenant { draft: draft(named), display_name: display_name.to_owned() }
}

fn deployment(number: u64, version: u64, targets: Targets) -> Command {
    Command::ApplyDeployment {
        tenant: name("acme"),
        draft: draft(&format!("shop-{number}")),
        spec: Box::new(DeploymentSpec {
            package: name(&format!("package-{}", number % PACKAGES)),
            version: format!("{version}.0.0"),
            profile: None,
            overrides: BTreeMap::new(),
            targets,
            strategy: Strategy { max_unavailable: 2 },
        }),
    }
}
