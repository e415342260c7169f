//! What leader and nodes do by themselves, a few times a second: confirm the quorum, elect, mark
//! nodes, and hold hosts for lost whose lease is over.

use crate::{
    event::Event,
    ledger::Origin,
    settings::{Plant, Settings},
    world::World,
};
use model::{Caller, Command, Contact};

/// Time between two beats, in ms.
const BEAT_MS: u64 = 250;
/// How long a leader may be without a majority before another is elected, in ms.
const ELECTION_MS: u64 = 1_500;
/// How long a node may be silent before the leader marks it, in ms.
const NODE_LOST_MS: u64 = 3_000;

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

    /// Each node that can talk to a leader with a majority confirms its quorum.
    fn confirm(&mut self, leader: usize) {
        let led = self.nodes[leader].up && self.has_majority(leader);
        let unsound = self.settings.plant == Some(Plant::LeaseWithoutQuorum);
        for node in 0..self.nodes.len() {
            let talks =
                self.nodes[node].up && self.nodes[leader].up && self.network.talk(leader, node);
            if talks {
                self.nodes[node].exchange_at = self.now;
            }
            if (talks && led) || (unsound && self.nodes[node].up) {
                // The question was asked a moment ago.
                self.nodes[node].quorum_at = Some(self.now.saturating_sub(40));
            }
        }
    }

    /// How long the leader has not heard of a node: never longer than it leads.
    fn silence(&self, node: usize) -> u64 {
        self.now - self.nodes[node].exchange_at.max(self.log.elected_at)
    }

    fn mark_nodes(&mut self, leader: usize) {
        let mut marks = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let alive = number == leader || self.silence(number) < NODE_LOST_MS;
            let Some(row) = self.nodes[leader].state.nodes.get(&node.id) else { continue };
            if row.alive != alive {
                marks.push(Command::MarkNode { id: node.id, alive });
            }
        }
        for command in marks {
            if self.may_repeat(leader, &format!("{command:?}")) {
                self.propose(leader, (Caller::System, command), Origin::Duty);
            }
        }
    }

    fn lost_ms(&self) -> u64 {
        match self.settings.plant {
            Some(Plant::LostTooEarly) => Settings::TTL_MS / 2,
            _ => Settings::LOST_MS,
        }
    }

    /// The leader speaks for nodes it has lost.
    fn lose_hosts_of_lost_nodes(&mut self, leader: usize) {
        let state = &self.nodes[leader].state;
        let mut losses = Vec::new();
        for ((tenant, host), row) in state.hosts.iter() {
            let Contact::Connected { node, session, .. } = row.contact else { continue };
            let known = state.nodes.get(&node).is_some_and(|row| row.alive);
            let Some(number) = self.nodes.iter().position(|it| it.id == node) else { continue };
            if !known && self.silence(number) > self.lost_ms() {
                losses.push((tenant.clone(), host.clone(), session));
            }
        }
        self.propose_losses(leader, losses);
    }

    /// Hosts whose session this node holds, or should, and whose lease is over.
    fn lose_hosts(&mut self, node: usize) {
        let lost_ms = self.lost_ms();
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
            if self.now - since > lost_ms {
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
