//! The world: everything there is, the queue of what will happen, and the loop.

use crate::{
    dice::Dice,
    edge::{EdgeHost, capacity_of},
    event::{Event, Timed},
    ledger::{Log, Node},
    machine::Machine,
    names::name,
    network::Network,
    oracle::{Oracles, Violation},
    settings::{Plant, Settings},
    trace::Trace,
    workload::Users,
};
use model::{DriverKind, Name};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// What happened in a run, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Events.
    pub events: u64,
    /// Entries of the log.
    pub entries: u64,
    /// Of them, refused ones.
    pub refused: u64,
    /// Starts of jobs.
    pub starts: u64,
    /// Faults.
    pub faults: u64,
    /// Hosts held for lost.
    pub losses: u64,
    /// Copies taken from lost hosts.
    pub evictions: u64,
    /// Leaders elected.
    pub terms: u64,
    /// Acknowledged requests of users.
    pub acknowledged: u64,
    /// How long it took to come right when the faults were over, in the world's ms.
    pub healed_ms: u64,
}

/// The simulated world.
pub(crate) struct World {
    pub(crate) settings: Settings,
    /// Milliseconds since it began.
    pub(crate) now: u64,
    pub(crate) dice: Dice,
    queue: BinaryHeap<Timed>,
    sequence: u64,
    pub(crate) network: Network,
    pub(crate) log: Log,
    pub(crate) nodes: Vec<Node>,
    pub(crate) hosts: Vec<EdgeHost>,
    pub(crate) host_numbers: BTreeMap<(Name, Name), usize>,
    pub(crate) users: Users,
    pub(crate) oracles: Oracles,
    pub(crate) trace: Trace,
    pub(crate) stats: Stats,
    /// Duties proposed lately, by node.
    pub(crate) proposed: BTreeMap<(usize, String), u64>,
    /// Faults are over.
    pub(crate) healing: bool,
    /// The first broken rule.
    pub(crate) violation: Option<Violation>,
}

impl World {
    /// A world before anything happened.
    pub(crate) fn new(settings: Settings) -> Self {
        let mut dice = Dice::new(settings.seed);
        let clocks = settings.faults.clocks;
        let skew = |dice: &mut Dice, max| if clocks { dice.range(0, max) } else { max / 2 };
        let nodes: Vec<Node> =
            (0..settings.nodes).map(|number| Node::new(number, skew(&mut dice, 4_000))).collect();
        let hosts: Vec<EdgeHost> =
            (0..settings.hosts).map(|number| host_of(number, settings, &mut dice)).collect();
        let host_numbers = hosts.iter().enumerate().map(|(n, host)| (host.at.clone(), n)).collect();
        let mut world = Self {
            settings,
            now: 0,
            dice,
            queue: BinaryHeap::new(),
            sequence: 0,
            network: Network::default(),
            log: Log::default(),
            nodes,
            hosts,
            host_numbers,
            users: Users::default(),
            oracles: Oracles::default(),
            trace: Trace::new(settings.trace),
            stats: Stats::default(),
            proposed: BTreeMap::new(),
            healing: false,
            violation: None,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.at(0, Event::Beat);
        self.found();
        for node in 0..self.nodes.len() {
            let incarnation = self.nodes[node].incarnation;
            let at = self.dice.range(500, 1_500);
            self.at(at, Event::Plan { node, incarnation });
        }
        for host in 0..self.hosts.len() {
            self.start_agent(host);
        }
        if self.settings.faults.users {
            self.at(3_000, Event::User);
        }
        if self.settings.faults != crate::Faults::NONE {
            self.at(8_000, Event::Fault);
        }
    }

    /// Puts something into the queue.
    pub(crate) fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Timed { at: at.max(self.now), sequence: self.sequence, event });
    }

    /// Lets everything happen until a moment, or until a rule is broken.
    pub(crate) fn run_until(&mut self, until: u64) {
        while self.violation.is_none() && self.queue.peek().is_some_and(|next| next.at <= until) {
            let Some(next) = self.queue.pop() else { return };
            self.now = next.at;
            self.stats.events += 1;
            self.happen(next.event);
        }
        if self.violation.is_none() {
            self.now = until;
        }
    }

    /// Steps under faults. What is cheap to look at is looked at in every event, the rest here.
    pub(crate) fn run_steps(&mut self, steps: u64) {
        for _ in 0..steps {
            let until = self.now + Settings::STEP_MS;
            self.run_until(until);
            if self.violation.is_some() {
                return;
            }
            self.sweep_sessions();
            self.check_step_end();
        }
    }

    /// Notes the first broken rule.
    pub(crate) fn fail(&mut self, oracle: &'static str, detail: String) {
        if self.violation.is_none() {
            self.trace.line(self.now, || format!("VIOLATION {oracle}: {detail}"));
            self.violation = Some(Violation { oracle, detail, at_ms: self.now });
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Propose(proposal) => self.take_proposal(*proposal),
            Event::Commit { term } => self.commit(term),
            Event::Apply { node, incarnation } => self.apply(node, incarnation),
            Event::Answer { ticket, outcome } => self.answer(ticket, *outcome),
            Event::Beat => self.beat(),
            Event::Plan { node, incarnation } => self.plan(node, incarnation),
            Event::Up { connection, message } => self.hear_host(connection, *message),
            Event::Down { connection, message } => self.hear_node(connection, *message),
            Event::Tick { host, incarnation } => self.tick(host, incarnation),
            Event::Wake { host, incarnation } => {
                let due = |at: u64| at <= self.now;
                let agent = self.hosts[host].agent.as_ref();
                if self.is_alive(host, incarnation)
                    && agent.is_some_and(|agent| agent.wake_at.is_some_and(due))
                {
                    self.rounds(host);
                }
            }
            Event::Step { host, incarnation, step, stage } => {
                self.step_on(host, incarnation, *step, stage);
            }
            Event::AgentBack { host, incarnation } => {
                if self.hosts[host].incarnation == incarnation {
                    self.start_agent(host);
                }
            }
            Event::NodeBack { node, incarnation } => self.restart_node(node, incarnation),
            Event::KillGuard { host, key } => {
                let now = self.now;
                self.hosts[host].machine.kill_guard(now, &key);
            }
            Event::User => self.user_acts(),
            Event::Retry { request } => self.user_retries(request),
            Event::Fault => self.fault(),
            Event::Mend { link } => self.network.unblock(link),
        }
    }

    /// What is left when it ends.
    pub(crate) fn finish(mut self) -> (Stats, Option<Violation>, String) {
        self.stats.entries = self.log.committed.len() as u64;
        self.stats.terms = self.log.term;
        (self.stats, self.violation, self.trace.into_text())
    }
}

/// The hosts: most are the first tenant's, the last of ten is another's; some are small, one has
/// no wasm, one cannot contain `stop` jobs.
fn host_of(number: usize, settings: Settings, dice: &mut Dice) -> EdgeHost {
    let tenant = if number % 10 == 9 { "beta" } else { "acme" };
    let rate = match settings.faults.clocks {
        true => dice.range(990_000, 1_010_000),
        false => 1_000_000,
    };
    let mut machine = Machine::new(rate, capacity_of(number));
    machine.deaf = settings.plant == Some(Plant::GuardIgnoresDeadline);
    let mut drivers = BTreeSet::from([DriverKind::Exec, DriverKind::Wasm]);
    if number % 10 == 5 {
        drivers.remove(&DriverKind::Wasm);
    }
    EdgeHost {
        at: (name(tenant), name(&format!("edge-{number}"))),
        zone: name(&format!("zone-{}", number % 3)),
        drivers,
        fenced: number % 10 != 7,
        machine,
        incarnation: 0,
        agent: None,
        dead: false,
    }
}
