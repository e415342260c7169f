//! Control's side of a host's session: it begins with a `ConnectHost` that went through the log,
//! tells orders as of the node's own state, grants leases while a quorum stands behind the node, and
//! puts reports into the log.

use crate::{
    event::Event,
    ledger::Origin,
    link::{Down, Up},
    network::Link,
    settings::{Plant, Settings},
    world::World,
};
use agent::memory::Orders;
use model::{
    Assignment, Caller, Command, Digest, JobKey, Outcome, Reply, Report, ReportNumber, Revision,
    Standing, standing,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How often a session that may lose messages is told everything again, in ms.
const SWEEP_MS: u64 = 4_000;

/// A session as its node knows it.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) connection: u64,
    /// Its number; 0 for one that was refused and only gets the host's last orders.
    pub(crate) number: u64,
    /// The state has to be at least so new before orders are told.
    pub(crate) from: Revision,
    /// When the last renewal arrived.
    pub(crate) renewed_at: u64,
    /// The newest message of reports that was taken.
    reported: u64,
    /// Number of the next report.
    next: ReportNumber,
    /// What was told; `None` before the first full set.
    told: Option<BTreeMap<JobKey, (Assignment, Revision)>>,
    told_at: u64,
}

impl World {
    /// A message of a host arrives.
    pub(crate) fn hear_host(&mut self, connection: u64, message: Up) {
        let Some(link) = self.network.connections.get(&connection) else { return };
        let (host, node) = (link.host, link.node);
        let server = link.server;
        if !self.nodes[node].up || self.nodes[node].incarnation != server {
            return;
        }
        match message {
            Up::Hello => {
                let (tenant, name) = self.hosts[host].at.clone();
                let command = Command::ConnectHost {
                    tenant,
                    host: name,
                    node: self.nodes[node].id,
                    agent_key: Digest([host as u8; 32]),
                    profile: Box::new(self.hosts[host].profile()),
                };
                let caller = Caller::Node(self.nodes[node].id);
                self.propose(node, (caller, command), Origin::Connect { connection });
            }
            Up::Renew { sequence } => self.renew(node, host, connection, sequence),
            Up::Reports { sequence, items } => {
                let session = self.nodes[node].sessions.get_mut(&host);
                let session = session.filter(|it| it.connection == connection && it.number != 0);
                if let Some(session) = session.filter(|it| it.reported < sequence) {
                    session.reported = sequence;
                    let mut first = session.next;
                    session.next.item += items.len() as u32;
                    if self.settings.plant == Some(Plant::LateReports) {
                        // All of the same number: the latest to come counts as the newest.
                        first.item = u32::MAX;
                    }
                    let origin = Origin::Reports { connection, sequence };
                    self.report((node, host), first, items, origin);
                }
            }
        }
    }

    fn session_of(&self, node: usize, host: usize, connection: u64) -> Option<&Session> {
        self.nodes[node].sessions.get(&host).filter(|session| session.connection == connection)
    }

    fn report(
        &mut self,
        (node, host): (usize, usize),
        first: ReportNumber,
        items: Vec<Report>,
        origin: Origin,
    ) {
        let (tenant, name) = self.hosts[host].at.clone();
        let caller = Caller::Agent { tenant: tenant.clone(), host: name.clone() };
        let command = Command::ReportJobs { tenant, host: name, first, items };
        self.propose(node, (caller, command), origin);
    }

    /// Grants at most what this node's last quorum confirmation allows.
    fn renew(&mut self, node: usize, host: usize, connection: u64, sequence: u64) {
        let now = self.now;
        let (tenant, name) = self.hosts[host].at.clone();
        let it = &mut self.nodes[node];
        let session = it.sessions.get_mut(&host).filter(|it| it.connection == connection);
        let Some(session) = session.filter(|session| session.number != 0) else { return };
        session.renewed_at = now;
        let may = it.state.may_renew(it.id, (&tenant, &name), session.number);
        let blind =
            matches!(self.settings.plant, Some(Plant::LeaseWithoutQuorum | Plant::ConfirmLostNode));
        let ago = it.quorum_at.map(|at| Duration::from_millis(now.saturating_sub(at)));
        if let Some(granted) = Settings::TIMES.grant(ago).filter(|_| may || blind) {
            let ttl_ms = granted.as_millis() as u64;
            self.tell(connection, Down::Granted { sequence, ttl_ms });
        }
    }

    /// The log answered a host's wish for a session.
    pub(crate) fn connect_answered(&mut self, node: usize, connection: u64, outcome: &Outcome) {
        let Some(link) = self.network.connections.get(&connection) else { return };
        let host = link.host;
        let number = match &outcome.result {
            Ok(Reply::Session(number)) => *number,
            Ok(_) => return,
            // Not known, not trusted or deleted: the host is told that it has no orders.
            Err(_) => 0,
        };
        let newer = self.nodes[node].sessions.get(&host);
        if newer.is_some_and(|session| session.number > number && number > 0) {
            return;
        }
        let session = Session {
            connection,
            number,
            from: outcome.revision,
            renewed_at: self.now,
            reported: 0,
            next: ReportNumber { session: number as u32, item: 1 },
            told: None,
            told_at: 0,
        };
        self.nodes[node].sessions.insert(host, session);
        self.tell(connection, Down::Welcome);
        self.tell_orders(node, host);
    }

    /// Reports are in the log.
    pub(crate) fn reports_answered(&mut self, node: usize, connection: u64, sequence: u64) {
        let Some(link) = self.network.connections.get(&connection) else { return };
        let host = link.host;
        if self.session_of(node, host, connection).is_some() {
            self.tell(connection, Down::Taken { sequence });
        }
    }

    /// The state moved on: sessions that it concerns are told, or ended.
    pub(crate) fn after_applying(&mut self, node: usize, touched: &BTreeSet<usize>) {
        let held: Vec<usize> = self.nodes[node].sessions.keys().copied().collect();
        for host in held {
            let waits = self.nodes[node].sessions.get(&host).is_some_and(|it| it.told.is_none());
            if waits || touched.contains(&host) {
                self.tell_orders(node, host);
            }
        }
    }

    /// Sessions that may have lost something are told everything again.
    pub(crate) fn sweep_sessions(&mut self) {
        for node in 0..self.nodes.len() {
            let lossy = |connection: &u64| {
                self.network.connections.get(connection).is_some_and(|link| link.lossy)
            };
            let due: Vec<usize> = self.nodes[node]
                .sessions
                .iter()
                .filter(|(_, it)| lossy(&it.connection) && it.told_at + SWEEP_MS <= self.now)
                .map(|(host, _)| *host)
                .collect();
            for host in due {
                if let Some(session) = self.nodes[node].sessions.get_mut(&host) {
                    session.told = None;
                }
                self.tell_orders(node, host);
            }
        }
    }

    /// Tells a host what changed for it, or everything, if its session is the one in force.
    fn tell_orders(&mut self, node: usize, host: usize) {
        let (tenant, name) = self.hosts[host].at.clone();
        let it = &self.nodes[node];
        let Some(session) = it.sessions.get(&host) else { return };
        let fresh = it.state.globals.revision >= session.from;
        if !fresh && self.settings.plant != Some(Plant::StaleFirstOrders) {
            return;
        }
        let row = it.state.host(&tenant, &name);
        // One that was refused only gets its last orders.
        let standing = match session.number {
            0 => Standing::Distrusted,
            number => standing(row, it.id, number),
        };
        let superseded =
            standing == Standing::Superseded || (standing == Standing::Lost && row.is_some());
        if fresh && superseded {
            let connection = session.connection;
            self.nodes[node].sessions.remove(&host);
            self.tell(connection, Down::Goodbye);
            return;
        }
        let lossy = self.network.connections.get(&session.connection).is_none_or(|it| it.lossy);
        let revision = it.state.globals.revision;
        let orders = it.state.orders(&tenant, &name);
        let now_told: BTreeMap<JobKey, (Assignment, Revision)> = orders
            .iter()
            .map(|order| (order.key.clone(), (order.assignment, order.scheduled.revision)))
            .collect();
        let connection = session.connection;
        let message = match &session.told {
            Some(told) if *told == now_told => None,
            Some(told) if !lossy => {
                let news = |key: &JobKey| told.get(key) != now_told.get(key);
                let gone = told.keys().filter(|key| !now_told.contains_key(*key)).cloned();
                Some(Orders {
                    revision,
                    full: false,
                    gone: gone.collect(),
                    orders: orders.into_iter().filter(|order| news(&order.key)).collect(),
                })
            }
            _ => Some(Orders { revision, full: true, orders, gone: Vec::new() }),
        };
        let ended = fresh && (standing == Standing::Distrusted || row.is_none());
        let at = self.now;
        if let Some(session) = self.nodes[node].sessions.get_mut(&host) {
            session.told = Some(now_told);
            session.told_at = at;
        }
        if let Some(orders) = message {
            self.tell(connection, Down::Orders(orders));
        }
        if ended {
            self.nodes[node].sessions.remove(&host);
            self.tell(connection, Down::Goodbye);
        }
    }

    /// Sends a message to a host.
    pub(crate) fn tell(&mut self, connection: u64, message: Down) {
        let healing = self.healing;
        let now = self.now;
        let Some(link) = self.network.connections.get_mut(&connection) else { return };
        let lossy = link.lossy && !healing;
        let delay = self.dice.range(2, if lossy { 400 } else { 60 });
        let at = if lossy { now + delay } else { link.last_down.max(now + delay) };
        let (host, node) = (link.host, link.node);
        link.last_down = link.last_down.max(at);
        if link.broken || (lossy && self.dice.permille(40)) {
            return;
        }
        if !self.network.passes(Link::Down(node, host)) {
            if let Some(link) = self.network.connections.get_mut(&connection) {
                link.broken = true;
            }
            return;
        }
        if lossy && self.dice.permille(60) {
            let again = now + self.dice.range(2, 6_000);
            let message = Box::new(message.clone());
            self.at(again, Event::Down { connection, message });
        }
        self.at(at, Event::Down { connection, message: Box::new(message) });
    }
}
