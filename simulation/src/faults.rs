//! What goes wrong: now and then, something of the kinds that are switched on.

use crate::{event::Event, network::Link, world::World};
use model::JobKey;

impl World {
    /// Something goes wrong, and something else will.
    pub(crate) fn fault(&mut self) {
        if self.healing {
            return;
        }
        let next = self.now + self.dice.range(300, 7_000);
        self.at(next, Event::Fault);
        let faults = self.settings.faults;
        self.stats.faults += 1;
        match self.dice.below(22) {
            0 | 1 if faults.nodes => {
                let node = self.dice.index(self.nodes.len());
                self.crash_node(node);
            }
            2 if faults.nodes => {
                if let Some(leader) = self.log.leader {
                    self.crash_node(leader);
                }
            }
            3 if faults.nodes => self.transfer_leadership(),
            4 if faults.nodes => {
                let node = self.dice.index(self.nodes.len());
                let lag_ms = if self.dice.permille(500) { 0 } else { self.dice.range(50, 2_000) };
                self.nodes[node].lag_ms = lag_ms;
            }
            5 if faults.nodes && self.dice.permille(200) => {
                (0..self.nodes.len()).for_each(|node| self.crash_node(node));
            }
            6 | 7 if faults.links => self.cut_nodes(),
            8..=11 if faults.links => self.cut_host(),
            12..=14 if faults.hosts => {
                let host = self.dice.index(self.hosts.len());
                let away = self.dice.range(100, 60_000);
                match self.dice.below(4) {
                    0 => self.reboot(host),
                    1 => self.crash_agent(host, away),
                    _ => {
                        if let Some(agent) = &mut self.hosts[host].agent {
                            agent.doomed = true;
                        }
                    }
                }
            }
            15 if faults.hosts && self.dice.permille(100) => self.bury_host(),
            16..=18 if faults.jobs => self.kill_some_guard(),
            _ => {}
        }
    }

    fn transfer_leadership(&mut self) {
        let able: Vec<usize> = (0..self.nodes.len())
            .filter(|node| {
                self.nodes[*node].up && self.log.leader != Some(*node) && self.has_majority(*node)
            })
            .collect();
        if let Some(node) = self.dice.pick(&able).copied() {
            self.elect(node);
        }
    }

    /// For how long a link does not work.
    fn outage(&mut self) -> u64 {
        let most = if self.dice.permille(300) { 90_000 } else { 15_000 };
        self.now + self.dice.range(300, most)
    }

    fn cut(&mut self, link: Link, until: u64) {
        self.trace.line(self.now, || format!("cut {link:?} until {until}"));
        self.network.block(link);
        self.at(until, Event::Mend { link });
    }

    /// A node is cut off, from one other or from all, one way or both.
    fn cut_nodes(&mut self) {
        let node = self.dice.index(self.nodes.len());
        let until = self.outage();
        let one_way = self.dice.permille(300);
        let all = self.dice.permille(600);
        let only = self.dice.index(self.nodes.len());
        for other in (0..self.nodes.len()).filter(|other| *other != node && (all || *other == only))
        {
            self.cut(Link::Nodes(node, other), until);
            if !one_way {
                self.cut(Link::Nodes(other, node), until);
            }
        }
    }

    /// A host is cut off, from one node or from all, one way or both.
    fn cut_host(&mut self) {
        let host = self.dice.index(self.hosts.len());
        let until = self.outage();
        let (up, down) = match self.dice.below(5) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        let all = self.dice.permille(700);
        let only = self.dice.index(self.nodes.len());
        for node in (0..self.nodes.len()).filter(|node| all || *node == only) {
            if up {
                self.cut(Link::Up(host, node), until);
            }
            if down {
                self.cut(Link::Down(node, host), until);
            }
        }
    }

    /// A machine is gone for good. At most one of a world.
    fn bury_host(&mut self) {
        let host = self.dice.index(self.hosts.len());
        if self.hosts.iter().any(|it| it.dead) {
            return;
        }
        self.reboot(host);
        self.trace.line(self.now, || format!("host {host} is gone for good"));
        self.hosts[host].dead = true;
    }

    fn kill_some_guard(&mut self) {
        let host = self.dice.index(self.hosts.len());
        let keys: Vec<JobKey> = self.hosts[host].machine.guards.keys().cloned().collect();
        if let Some(key) = self.dice.pick(&keys) {
            let at = self.now + self.dice.range(0, 500);
            self.at(at, Event::KillGuard { host, key: Box::new(key.clone()) });
        }
    }
}
