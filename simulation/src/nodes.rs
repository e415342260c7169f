//! The life of control nodes: who leads, who crashes, what a node begins with when it is back.

use crate::{event::Event, settings::Plant, world::World};
use model::State;

impl World {
    /// The leader's snapshot instead of the log. Whether there was one.
    pub(crate) fn install_snapshot(&mut self, node: usize) -> bool {
        let Some(leader) = self.log.leader.filter(|leader| *leader != node) else { return false };
        let from = &self.nodes[leader];
        if from.applied <= self.nodes[node].applied
            || !self.network.calls(leader, node)
            || !self.dice.permille(700)
        {
            return false;
        }
        let state = State::load(from.state.globals.clone(), from.state.rows());
        let applied = from.applied;
        self.trace.line(self.now, || format!("node {node} gets the snapshot at {applied}"));
        self.nodes[node].state = state;
        self.nodes[node].applied = applied;
        self.check_loaded(node);
        let all = (0..self.hosts.len()).collect();
        self.after_applying(node, &all);
        true
    }

    /// Whether a node can call a majority, itself included: heartbeats, votes, the log.
    pub(crate) fn has_majority(&self, node: usize) -> bool {
        let all = 0..self.nodes.len();
        let others = all.filter(|it| self.nodes[*it].up && self.network.calls(node, *it));
        others.count() * 2 > self.nodes.len()
    }

    /// Another node leads. What the old leader appended and had not committed is kept up to some
    /// point, as the new leader may or may not have it.
    pub(crate) fn elect(&mut self, node: usize) {
        self.log.term += 1;
        self.log.leader = Some(node);
        self.log.elected_at = self.now;
        self.log.headless_since = None;
        self.log.commit_scheduled = false;
        let kept = self.dice.index(self.log.pending.len() + 1);
        let term = self.log.term;
        let lost = self.log.pending.len() - kept;
        self.trace.line(self.now, || format!("node {node} leads term {term}, {lost} entries lost"));
        self.log.pending.truncate(kept);
        self.schedule_commit();
    }

    /// A node loses what it had in memory.
    pub(crate) fn crash_node(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        self.trace.line(self.now, || format!("node {node} crashes"));
        let it = &mut self.nodes[node];
        it.up = false;
        it.incarnation += 1;
        it.sessions.clear();
        it.orphans.clear();
        it.plans.clear();
        it.quorum_at = None;
        it.confirming = None;
        let incarnation = it.incarnation;
        let at = self.now + self.dice.range(200, 40_000);
        self.at(at, Event::NodeBack { node, incarnation });
    }

    /// A node starts from its last snapshot; the log since then is applied again.
    pub(crate) fn restart_node(&mut self, node: usize, incarnation: u64) {
        if self.nodes[node].up || self.nodes[node].incarnation != incarnation {
            return;
        }
        let snapshot = self.nodes[node].snapshot.clone();
        let mut rows = snapshot.rows;
        if self.settings.plant == Some(Plant::LoseRow) && !rows.is_empty() {
            rows.remove(self.dice.index(rows.len()));
        }
        let applied = snapshot.applied;
        self.trace.line(self.now, || format!("node {node} starts at {applied}"));
        let it = &mut self.nodes[node];
        it.state = State::load(snapshot.globals, rows.into_iter());
        it.applied = applied;
        it.up = true;
        it.apply_scheduled = false;
        it.planned = usize::MAX;
        self.check_loaded(node);
        let at = self.now + self.dice.range(10, 500);
        self.at(at, Event::Plan { node, incarnation });
    }
}
