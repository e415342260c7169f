//! A host with its agent: the loop of `agent::run`, without its tasks. The memory, what it admits and
//! what a round does are the agent's own; writing, syncing and crashing in between are simulated.

use crate::{
    event::{Event, Stage},
    lease::LeaseCount,
    link::AgentLink,
    machine::Machine,
    settings::Plant,
    world::World,
};
use agent::{
    memory::{Accepted, Bounds, Memory, Orders, Record, Refused},
    reconcile::{Busy, Found, Lease, Tuning, World as Seen, failed, reconcile},
};
use model::{Digest, DriverKind, Facts, HostProfile, JobKey, Name, Resources};
use std::collections::{BTreeMap, BTreeSet};

/// Rounds in a row before others get their turn.
const ROUNDS_MAX: u32 = 8;
/// How often an agent looks at its guards, in ms.
const LOOK_MS: u64 = 1_000;
/// Records on disk after which they are rewritten.
const RECORDS_MAX: usize = 400;

/// An edge machine and what runs on it.
#[derive(Debug)]
pub(crate) struct EdgeHost {
    /// Tenant and name.
    pub(crate) at: (Name, Name),
    pub(crate) zone: Name,
    pub(crate) drivers: BTreeSet<DriverKind>,
    pub(crate) fenced: bool,
    pub(crate) machine: Machine,
    /// Counts starts of the agent; what an earlier one began does not reach a later one.
    pub(crate) incarnation: u64,
    pub(crate) agent: Option<Agent>,
    /// It will not come back.
    pub(crate) dead: bool,
}

impl EdgeHost {
    /// What its agent says of it.
    pub(crate) fn profile(&self) -> HostProfile {
        HostProfile {
            facts: Facts::default(),
            capacity: self.machine.capacity,
            drivers: self.drivers.clone(),
            fenced: self.fenced,
        }
    }
}

/// A running agent.
#[derive(Debug, Default)]
pub(crate) struct Agent {
    pub(crate) memory: Memory,
    pub(crate) heard: bool,
    pub(crate) found: BTreeMap<JobKey, Found>,
    pub(crate) busy: BTreeMap<JobKey, Busy>,
    pub(crate) images: BTreeSet<Digest>,
    pub(crate) data: BTreeSet<JobKey>,
    pub(crate) lease: LeaseCount,
    pub(crate) link: AgentLink,
    /// When it asked to be woken, on the world's clock.
    pub(crate) wake_at: Option<u64>,
    /// Records that are written and not synced: a planted bug.
    pub(crate) unsynced: usize,
    /// It will crash while it writes next.
    pub(crate) doomed: bool,
    /// Something changed since the last round.
    pub(crate) stirred: bool,
}

/// Capacity of a host by its number: some are small.
pub(crate) fn capacity_of(number: usize) -> Resources {
    let cpu_millis = if number % 4 == 3 { 700 } else { 1_600 };
    Resources { cpu_millis, memory_bytes: 4 << 30 }
}

impl World {
    /// An agent starts: it reads its memory and finds what runs.
    pub(crate) fn start_agent(&mut self, host: usize) {
        let now = self.now;
        let it = &mut self.hosts[host];
        if it.agent.is_some() || it.dead {
            return;
        }
        it.incarnation += 1;
        let incarnation = it.incarnation;
        let mut memory = Memory::new(Bounds::default());
        for record in &it.machine.records {
            memory.apply(record);
        }
        memory.wake();
        it.machine.settle(now);
        let found = it.machine.guards.iter().map(|(key, guard)| (key.clone(), guard.found()));
        let mut agent = Agent {
            memory,
            found: found.collect(),
            images: it.machine.images.clone(),
            stirred: true,
            ..Agent::default()
        };
        agent.data = it.machine.data.clone();
        it.agent = Some(agent);
        self.trace.line(now, || format!("host {host} agent starts"));
        let at = now + self.dice.range(1, 300);
        self.at(at, Event::Tick { host, incarnation });
    }

    /// An agent dies; its jobs go on.
    pub(crate) fn crash_agent(&mut self, host: usize, away_ms: u64) {
        let it = &mut self.hosts[host];
        let Some(agent) = it.agent.take() else { return };
        // Written and not synced: gone, if the machine goes too; here it is always gone.
        let kept = it.machine.records.len().saturating_sub(agent.unsynced);
        it.machine.records.truncate(kept);
        it.incarnation += 1;
        let incarnation = it.incarnation;
        self.trace.line(self.now, || format!("host {host} agent crashes"));
        self.at(self.now + away_ms, Event::AgentBack { host, incarnation });
    }

    /// The machine restarts: guards die, the memory stays.
    pub(crate) fn reboot(&mut self, host: usize) {
        let away = self.dice.range(3_000, 60_000);
        self.crash_agent(host, away);
        self.trace.line(self.now, || format!("host {host} reboots"));
        let now = self.now;
        self.hosts[host].machine.reboot(now);
    }

    /// Is this agent still there?
    pub(crate) fn is_alive(&self, host: usize, incarnation: u64) -> bool {
        let it = &self.hosts[host];
        it.incarnation == incarnation && it.agent.is_some()
    }

    /// An agent looks at its guards and its link.
    pub(crate) fn tick(&mut self, host: usize, incarnation: u64) {
        if !self.is_alive(host, incarnation) {
            return;
        }
        self.tend_link(host);
        self.look_around(host);
        self.rounds(host);
        if self.is_alive(host, incarnation) {
            let next = self.now + LOOK_MS - 20 + self.dice.range(0, 40);
            self.at(next, Event::Tick { host, incarnation });
        }
    }

    fn look_around(&mut self, host: usize) {
        let now = self.now;
        let it = &mut self.hosts[host];
        it.machine.settle(now);
        let Some(agent) = &mut it.agent else { return };
        let moving = |busy: Option<&Busy>| matches!(busy, Some(Busy::Starting | Busy::Stopping));
        for (key, found) in &mut agent.found {
            if !found.is_up() || moving(agent.busy.get(key)) {
                continue;
            }
            if let Some(guard) = it.machine.guards.get(key) {
                let seen = guard.found();
                if *found != seen {
                    *found = seen;
                    agent.stirred = true;
                }
            }
        }
    }

    /// Writes, syncs and applies records. `false`: the agent crashed while it wrote.
    pub(crate) fn remember(&mut self, host: usize, records: &[Record]) -> bool {
        if records.is_empty() {
            return true;
        }
        let lazy = self.settings.plant == Some(Plant::ActBeforeSync);
        let it = &mut self.hosts[host];
        let Some(agent) = &mut it.agent else { return false };
        if agent.doomed {
            // Some of the write reached the disk.
            let kept = self.dice.index(records.len() + 1);
            it.machine.records.extend(records.iter().take(kept).cloned());
            let away = self.dice.range(100, 20_000);
            self.crash_agent(host, away);
            return false;
        }
        for record in records {
            agent.memory.apply(record);
        }
        agent.stirred = true;
        agent.unsynced = if lazy { agent.unsynced + records.len() } else { 0 };
        it.machine.records.extend(records.iter().cloned());
        if it.machine.records.len() > RECORDS_MAX {
            it.machine.records = agent.memory.records();
            agent.unsynced = 0;
        }
        let bound = it.machine.records.len();
        agent.unsynced = agent.unsynced.min(bound);
        self.check_remembered(host, records);
        true
    }

    /// Reconciles until nothing is to be done now.
    pub(crate) fn rounds(&mut self, host: usize) {
        for _ in 0..ROUNDS_MAX {
            let now = self.now;
            let tuning = Tuning::default();
            let it = &mut self.hosts[host];
            let now_boot_ms = it.machine.boot_ms(now);
            let incarnation = it.incarnation;
            let Some(agent) = &mut it.agent else { return };
            let woken = agent.wake_at.is_some_and(|at| at <= now);
            if !agent.stirred && !woken {
                break;
            }
            agent.stirred = false;
            let lease = agent.lease.at(now_boot_ms);
            let round = reconcile(&Seen {
                memory: &agent.memory,
                heard: agent.heard,
                found: &agent.found,
                busy: &agent.busy,
                images: &agent.images,
                data: &agent.data,
                lease,
                now_boot_ms,
                tuning: &tuning,
            });
            let mut wake = round.wake_at_boot_ms;
            if let Lease::Alive { until_boot_ms } = lease {
                wake = Some(wake.map_or(until_boot_ms, |at| at.min(until_boot_ms)));
            }
            agent.wake_at = wake.map(|boot| it.machine.world_ms(boot).max(now + 1));
            if let Some(at) = agent.wake_at {
                self.at(at, Event::Wake { host, incarnation });
            }
            if round.is_empty() {
                break;
            }
            if !self.remember(host, &round.records) {
                return;
            }
            for step in round.steps {
                self.check_step(host, &step);
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.busy.insert(step.key().clone(), step.busy());
                    agent.stirred = true;
                }
                let at = self.now + self.dice.range(1, 60);
                let step = Box::new(step);
                self.at(at, Event::Step { host, incarnation, step, stage: Stage::Begin });
            }
        }
        self.send_reports(host);
    }

    /// Takes orders in: remembered, synced, and only then acted on.
    pub(crate) fn obey(&mut self, host: usize, orders: &Orders) {
        let skip = self.settings.plant == Some(Plant::SkipFence);
        let Some(agent) = &self.hosts[host].agent else { return };
        let mut admission = agent.memory.admit(orders);
        if skip {
            admission.refused.clear();
            admission.records = unfenced(&agent.memory, orders);
        }
        let refused = admission.refused.iter().any(|it| matches!(it, Refused::Set { .. }));
        if refused {
            self.trace.line(self.now, || format!("host {host} refuses old orders"));
        }
        if !self.remember(host, &admission.records) {
            return;
        }
        let it = &mut self.hosts[host];
        let Some(agent) = &mut it.agent else { return };
        agent.stirred |= !agent.heard;
        agent.heard |= orders.full && !refused;
        agent.data = it.machine.data.clone();
        self.rounds(host);
    }

    /// A step is over.
    pub(crate) fn over(
        &mut self,
        host: usize,
        step: &agent::reconcile::Step,
        result: Result<bool, agent::reconcile::Failure>,
    ) {
        let now = self.now;
        let key = step.key().clone();
        let busy = step.busy();
        let it = &mut self.hosts[host];
        let now_boot_ms = it.machine.boot_ms(now);
        it.machine.settle(now);
        let Some(agent) = &mut it.agent else { return };
        agent.stirred = true;
        if agent.busy.get(&key) == Some(&busy) {
            agent.busy.remove(&key);
        }
        if let (Busy::Fetching(image), Ok(_)) = (busy, &result) {
            agent.images.insert(image);
            it.machine.images.insert(image);
        }
        if !matches!(busy, Busy::Fetching(_)) {
            match it.machine.guards.get(&key) {
                Some(guard) => agent.found.insert(key.clone(), guard.found()),
                None => agent.found.remove(&key),
            };
        }
        let mut records = Vec::new();
        if let (Err(failure), false) = (&result, busy == Busy::Stopping) {
            records = failed(&agent.memory, &key, failure, now_boot_ms, &Tuning::default());
        }
        if self.remember(host, &records) {
            self.rounds(host);
        }
    }
}

/// What an agent without a fence would take from orders: all of it.
fn unfenced(memory: &Memory, orders: &Orders) -> Vec<Record> {
    let mut records: Vec<Record> =
        orders.orders.iter().map(|order| Accepted::from(order).record(order.key.clone())).collect();
    let named = |key: &JobKey| orders.orders.iter().any(|order| order.key == *key);
    for (key, job) in memory.jobs() {
        let dropped = (orders.full && !named(key)) || orders.gone.contains(key);
        if dropped && job.order.is_some() {
            records.push(Record::Dropped { key: key.clone() });
        }
    }
    records
}
