//! What leader and nodes do by themselves, a few times a second: confirm the quorum, elect, mark
//! nodes, and hold hosts for lost whose lease is over.

use crate::{
    event::Event,
    ledger::Origin,
    settings::{Plant, Settings},
    world::World,
};
use model::{Caller, Command, Contact, Heartbeats, LeaseTimes};
use std::time::Duration;

/// Time between two beats, in ms.
const BEAT_MS: u64 = 250;
/// How long a leader may be without a majority before another is elected, in ms.
const ELECTION_MS: u64 = 1_500;
/// How long a node may be silent before the leader marks it.
const NODE_LOST: Duration = Duration::from_secs(3);

impl World {
    /// One beat of the control cluster.
    pub(crate) fn beat(&mut self) {
        self.lead();
        if let Some(leader) = self.log.leader {
            self.confirm(leader);
            self.schedule_applies(leader);
            if self.nodes[leader].up {
                self.mark_nodes(leader);
                self.lose_hosts_of_lost_nodes(leader);
            }
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].up {
                self.lose_hosts(node);
            }
        }
        self.at(self.now + BEAT_MS, Event::Beat);
    }

    fn lead(&mut self) {
        let good = |world: &Self, node: usize| world.nodes[node].up && world.has_majority(node);
        if self.log.leader.is_some_and(|leader| good(self, leader)) {
            self.log.headless_since = None;
            return;
        }
        let since = *self.log.headless_since.get_or_insert(self.now);
        if self.log.leader.is_some() && self.now < since + ELECTION_MS {
            return;
        }
        let able: Vec<usize> = (0..self.nodes.len()).filter(|node| good(self, *node)).collect();
        if let Some(node) = self.dice.pick(&able).copied() {
            self.elect(node);
        }
    }

    /// The leader's heartbeats, and the questions of each node whether a majority follows the leader.
    fn confirm(&mut self, leader: usize) {
        let led = self.nodes[leader].up && self.has_majority(leader);
        // The question was asked a moment ago.
        let asked_at = self.now.saturating_sub(40);
        for node in 0..self.nodes.len() {
            let both = self.nodes[node].up && self.nodes[leader].up;
            if both && self.network.calls(leader, node) {
                self.nodes[node].heard_at = self.now;
                self.nodes[node].exchange_at = self.now;
            }
            let asks = both && self.network.calls(node, leader);
            match self.settings.plant {
                Some(Plant::LeaseWithoutQuorum) if self.nodes[node].up => {
                    self.nodes[node].quorum_at = Some(asked_at);
                }
                Some(Plant::ConfirmLostNode) if asks && led => {
                    self.nodes[node].quorum_at = Some(asked_at);
                }
                Some(Plant::ConfirmLostNode) => {}
                _ if asks && led => self.confirm_to(leader, node, asked_at),
                _ => {}
            }
            let it = &mut self.nodes[node];
            if let Some((at, _)) = it.confirming.filter(|(_, index)| *index <= it.applied) {
                it.quorum_at = it.quorum_at.max(Some(at));
                it.confirming = None;
            }
        }
    }

    /// The leader counts on a node, and so lets it grant leases once it has what is committed.
    fn confirm_to(&mut self, leader: usize, node: usize, asked_at: u64) {
        let id = self.nodes[node].id;
        if self.nodes[leader].state.counts_on(id) {
            self.nodes[node].exchange_at = self.now;
            let index = self.log.committed.len();
            self.nodes[node].confirming.get_or_insert((asked_at, index));
        }
    }

    /// How long the leader has not heard of a node: never longer than it leads.
    fn silence(&self, node: usize) -> Duration {
        self.since(self.nodes[node].exchange_at.max(self.log.elected_at))
    }

    fn since(&self, at: u64) -> Duration {
        Duration::from_millis(self.now - at)
    }

    fn mark_nodes(&mut self, leader: usize) {
        let mut marks = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let heard = node.heard_at > self.log.elected_at;
            let silence = self.since(node.heard_at.max(self.log.elected_at));
            let alive = match number == leader {
                true => Some(true),
                false => Heartbeats { silence, heard }.alive(NODE_LOST),
            };
            let Some(row) = self.nodes[leader].state.nodes.get(&node.id) else { continue };
            if let Some(alive) = alive.filter(|alive| *alive != row.alive) {
                marks.push(Command::MarkNode { id: node.id, alive });
            }
        }
        for command in marks {
            if self.may_repeat(leader, &format!("{command:?}")) {
                self.propose(leader, (Caller::System, command), Origin::Duty);
            }
        }
    }

    /// When hosts are held for lost.
    fn lost(&self) -> LeaseTimes {
        match self.settings.plant {
            Some(Plant::LostTooEarly) => {
                LeaseTimes { ttl: Settings::TIMES.ttl / 2, grace: Duration::ZERO }
            }
            _ => Settings::TIMES,
        }
    }

    /// The leader speaks for nodes it has lost.
    fn lose_hosts_of_lost_nodes(&mut self, leader: usize) {
        let state = &self.nodes[leader].state;
        let mut losses = Vec::new();
        for ((tenant, host), row) in state.hosts.iter() {
            let Contact::Connected { node, session, .. } = row.contact else { continue };
            let Some(number) = self.nodes.iter().position(|it| it.id == node) else { continue };
            // With the planted bug only heartbeats count.
            let silence = match self.settings.plant {
                Some(Plant::ConfirmLostNode) => {
                    self.since(self.nodes[number].heard_at.max(self.log.elected_at))
                }
                _ => self.silence(number),
            };
            if !state.counts_on(node) && self.lost().is_over(silence) {
                losses.push((tenant.clone(), host.clone(), session));
            }
        }
        self.propose_losses(leader, losses);
    }

    /// Hosts whose session this node holds, or should, and whose lease is over.
    fn lose_hosts(&mut self, node: usize) {
        let lost = self.lost();
        let mut losses = Vec::new();
        let mut orphans = std::mem::take(&mut self.nodes[node].orphans);
        let it = &self.nodes[node];
        for ((tenant, name), row) in it.state.hosts.iter() {
            let Some(host) = self.host_numbers.get(&(tenant.clone(), name.clone())) else {
                continue;
            };
            let held = match row.contact {
                Contact::Connected { node, session, .. } if node == it.id => Some(session),
                _ => None,
            };
            let Some(session) = held else {
                orphans.remove(host);
                continue;
            };
            let own = it.sessions.get(host).filter(|own| own.number == session);
            let since = match own {
                Some(own) => own.renewed_at,
                None => {
                    let orphan = orphans.entry(*host).or_insert((session, self.now));
                    if orphan.0 != session {
                        *orphan = (session, self.now);
                    }
                    orphan.1
                }
            };
            if own.is_some() {
                orphans.remove(host);
            }
            if lost.is_over(self.since(since)) {
                losses.push((tenant.clone(), name.clone(), session));
            }
        }
        self.nodes[node].orphans = orphans;
        self.propose_losses(node, losses);
    }

    fn propose_losses(&mut self, via: usize, losses: Vec<(model::Name, model::Name, u64)>) {
        for (tenant, host, session) in losses {
            if self.may_repeat(via, &format!("{tenant}/{host} {session}")) {
                let command = Command::LoseHost { tenant, host, session };
                let caller = Caller::Node(self.nodes[via].id);
                self.propose(via, (caller, command), Origin::Duty);
            }
        }
    }

    /// Whether a duty may be proposed (again) now.
    fn may_repeat(&mut self, node: usize, what: &str) -> bool {
        let now = self.now;
        self.proposed.retain(|_, at| *at + 2_000 > now);
        let key = (node, what.to_owned());
        if self.proposed.contains_key(&key) {
            return false;
        }
        self.proposed.insert(key, now);
        true
    }
}
