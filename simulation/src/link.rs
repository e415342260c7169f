//! The agent's side of its link: it dials one node after the other, renews its lease, hears orders
//! and sends reports, one message in flight.

use crate::{
    event::Event,
    network::{Connection, Link},
    settings::Settings,
    world::World,
};
use agent::memory::{Orders, Record};
use model::Report;

/// How long an agent waits for a welcome, in ms.
const WELCOME_MS: u64 = 8_000;
/// How long without a grant until it tries another node, in ms.
const PATIENCE_MS: u64 = Settings::TTL_MS / 2;
/// How long reports may be unanswered on a connection that loses messages, in ms.
const TAKEN_MS: u64 = 3_000;
/// Reports of a message at most.
const REPORTS_MAX: usize = 64;

/// What a host says.
#[derive(Clone, Debug)]
pub(crate) enum Up {
    Hello,
    Renew { sequence: u64 },
    Reports { sequence: u64, items: Vec<Report> },
}

/// What a node says.
#[derive(Clone, Debug)]
pub(crate) enum Down {
    Welcome,
    Orders(Orders),
    Granted { sequence: u64, ttl_ms: u64 },
    Taken { sequence: u64 },
    Goodbye,
}

/// The agent's link.
#[derive(Debug, Default)]
pub(crate) struct AgentLink {
    /// The connection it has, and since when.
    pub(crate) connection: Option<(u64, u64)>,
    pub(crate) welcomed: bool,
    /// Last grant, or the welcome.
    granted_at: u64,
    renew_at: u64,
    sequence: u64,
    /// When it dials again.
    dial_at: u64,
    /// Sequence in flight, number of its last report, and since when.
    in_flight: Option<(u64, u64, u64)>,
    reports: u64,
}

impl World {
    /// Dials, renews, gives up.
    pub(crate) fn tend_link(&mut self, host: usize) {
        let now = self.now;
        let Some(agent) = &self.hosts[host].agent else { return };
        match agent.link.connection {
            None if agent.link.dial_at <= now => self.dial(host),
            None => {}
            Some((_, since)) if !agent.link.welcomed && now >= since + WELCOME_MS => {
                self.hang_up(host, 200);
            }
            Some(_) if !agent.link.welcomed => {}
            Some(_) if now >= agent.link.granted_at + PATIENCE_MS => self.hang_up(host, 200),
            Some((connection, _)) if now >= agent.link.renew_at => {
                self.send_renewal(host, connection)
            }
            Some(_) => {}
        }
        let Some(agent) = &mut self.hosts[host].agent else { return };
        if agent.link.in_flight.is_some_and(|(_, _, since)| now >= since + TAKEN_MS) {
            agent.link.in_flight = None;
        }
        self.send_reports(host);
    }

    fn dial(&mut self, host: usize) {
        let node = self.dice.index(self.nodes.len());
        let reached = self.nodes[node].up && self.network.reach(host, node);
        if !reached {
            let pause = self.dice.range(200, 3_000);
            self.hang_up(host, pause);
            return;
        }
        let messages = self.settings.faults.messages && !self.healing;
        let connection = self.network.next_connection;
        self.network.next_connection += 1;
        let lossy = messages && self.dice.permille(300);
        self.network.connections.insert(
            connection,
            Connection {
                host,
                node,
                agent: self.hosts[host].incarnation,
                server: self.nodes[node].incarnation,
                lossy,
                broken: false,
                last_up: 0,
                last_down: 0,
            },
        );
        let now = self.now;
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.link.connection = Some((connection, now));
            agent.link.welcomed = false;
            agent.link.in_flight = None;
        }
        self.say(connection, Up::Hello);
    }

    /// Ends the session; another follows after a pause.
    pub(crate) fn hang_up(&mut self, host: usize, pause_ms: u64) {
        let now = self.now;
        let spread = self.dice.range(0, pause_ms);
        let Some(agent) = &mut self.hosts[host].agent else { return };
        agent.stirred |= agent.heard;
        agent.heard = false;
        agent.link.welcomed = false;
        agent.link.in_flight = None;
        agent.link.dial_at = now + pause_ms / 2 + spread;
        if let Some((connection, _)) = agent.link.connection.take()
            && let Some(link) = self.network.connections.get_mut(&connection)
        {
            link.broken = true;
        }
    }

    fn send_renewal(&mut self, host: usize, connection: u64) {
        let now = self.now;
        let it = &mut self.hosts[host];
        let boot = it.machine.boot_ms(now);
        let Some(agent) = &mut it.agent else { return };
        agent.link.sequence += 1;
        agent.link.renew_at = now + Settings::RENEW_MS;
        let sequence = agent.link.sequence;
        agent.lease.sent(sequence, boot);
        self.say(connection, Up::Renew { sequence });
    }

    /// Sends what is not confirmed, if nothing is in flight.
    pub(crate) fn send_reports(&mut self, host: usize) {
        let now = self.now;
        let Some(agent) = &mut self.hosts[host].agent else { return };
        let Some((connection, _)) = agent.link.connection.filter(|_| agent.link.welcomed) else {
            return;
        };
        if agent.link.in_flight.is_some() {
            return;
        }
        let mut items = Vec::new();
        let mut through = 0;
        for (number, report) in agent.memory.unsent().take(REPORTS_MAX) {
            items.push(report.clone());
            through = number;
        }
        if items.is_empty() {
            return;
        }
        agent.link.reports += 1;
        let sequence = agent.link.reports;
        agent.link.in_flight = Some((sequence, through, now));
        self.say(connection, Up::Reports { sequence, items });
    }

    /// A message of a node arrives.
    pub(crate) fn hear_node(&mut self, connection: u64, message: Down) {
        let Some(link) = self.network.connections.get(&connection) else { return };
        let (host, incarnation) = (link.host, link.agent);
        let now = self.now;
        if !self.is_alive(host, incarnation) {
            return;
        }
        let it = &mut self.hosts[host];
        let Some(agent) = &mut it.agent else { return };
        if agent.link.connection.is_none_or(|(current, _)| current != connection) {
            return;
        }
        match message {
            Down::Welcome => {
                if !agent.link.welcomed {
                    agent.link.welcomed = true;
                    agent.link.granted_at = now;
                    agent.link.sequence = 0;
                    agent.heard = false;
                    agent.stirred = true;
                    agent.lease.begin_session();
                    self.send_renewal(host, connection);
                    self.rounds(host);
                }
            }
            Down::Orders(orders) if agent.link.welcomed => self.obey(host, &orders),
            Down::Orders(_) => {}
            Down::Granted { sequence, ttl_ms } => {
                agent.link.granted_at = now;
                if let Some(until) = agent.lease.granted(sequence, ttl_ms) {
                    agent.stirred = true;
                    it.machine.renew(now, until);
                    self.rounds(host);
                }
            }
            Down::Taken { sequence } => {
                let taken = agent.link.in_flight.filter(|(sent, _, _)| *sent == sequence);
                if let Some((_, through, _)) = taken {
                    agent.link.in_flight = None;
                    if self.remember(host, &[Record::Sent { through }]) {
                        self.rounds(host);
                    }
                }
            }
            Down::Goodbye => self.hang_up(host, 1_500),
        }
    }

    /// Sends a message to the node.
    pub(crate) fn say(&mut self, connection: u64, message: Up) {
        let now = self.now;
        let healing = self.healing;
        let Some(link) = self.network.connections.get_mut(&connection) else { return };
        let lossy = link.lossy && !healing;
        let delay = self.dice.range(2, if lossy { 400 } else { 60 });
        let at = if lossy { now + delay } else { link.last_up.max(now + delay) };
        link.last_up = link.last_up.max(at);
        let (host, node) = (link.host, link.node);
        if link.broken || (lossy && self.dice.permille(40)) {
            return;
        }
        if !self.network.passes(Link::Up(host, node)) {
            if let Some(link) = self.network.connections.get_mut(&connection) {
                link.broken = true;
            }
            return;
        }
        if lossy && self.dice.permille(60) {
            let again = now + self.dice.range(2, 6_000);
            let message = Box::new(message.clone());
            self.at(again, Event::Up { connection, message });
        }
        self.at(at, Event::Up { connection, message: Box::new(message) });
    }
}
