//! The replicated log as control nodes see it: a leader appends, a majority commits, every node
//! applies a prefix in its own time, a node that restarts begins at its last snapshot.
//!
//! The log itself is one list: what Raft does to keep it one is consensus's business. What is left
//! of Raft is what others can notice: answers that do not come, proposals that are lost or carried
//! out although nobody was told, leaders that are none any more, and nodes that lag.

use crate::{event::Event, planning::Resource, settings::Plant, world::World};
use model::{
    Caller, Command, Globals, Key, NodeId, Outcome, RequestId, Row, Stamp, State, Timestamp,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// When the world begins, in ms since 1970.
pub(crate) const EPOCH_MS: u64 = 1_800_000_000_000;
/// Applied entries between two snapshots of a node.
const SNAPSHOT_EVERY: usize = 64;
/// Entries a node may be behind before it may get a snapshot instead.
const BEHIND_MAX: usize = 48;

/// Who proposed, and so gets the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A user's request.
    User { request: usize },
    /// A planner.
    Plan { resource: Resource },
    /// The session that a host asks for.
    Connect { connection: u64 },
    /// Reports of a session.
    Reports { connection: u64, sequence: u64 },
    /// A duty of leader or node: nobody waits.
    Duty,
}

/// A proposal on its way.
#[derive(Clone, Debug)]
pub(crate) struct Proposal {
    pub(crate) via: usize,
    pub(crate) incarnation: u64,
    pub(crate) caller: Caller,
    pub(crate) request_id: Option<RequestId>,
    pub(crate) command: Command,
    pub(crate) origin: Origin,
}

/// One entry of the log.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) stamp: Stamp,
    pub(crate) command: Arc<Command>,
    pub(crate) ticket: u64,
}

/// Somebody waiting for an answer, at the leader that took the proposal.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) via: usize,
    pub(crate) incarnation: u64,
    pub(crate) leader: usize,
    pub(crate) leader_incarnation: u64,
    pub(crate) origin: Origin,
}

/// The log and who leads.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) committed: Vec<Entry>,
    pub(crate) pending: VecDeque<Entry>,
    pub(crate) leader: Option<usize>,
    pub(crate) term: u64,
    pub(crate) elected_at: u64,
    /// Since when the leader has no majority.
    pub(crate) headless_since: Option<u64>,
    pub(crate) commit_scheduled: bool,
    pub(crate) waiting: BTreeMap<u64, Waiting>,
    pub(crate) next_ticket: u64,
}

/// What a node has on its disk beside the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) applied: usize,
    pub(crate) globals: Globals,
    pub(crate) rows: Vec<(Key, Row)>,
}

/// A control node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) up: bool,
    pub(crate) incarnation: u64,
    pub(crate) skew_ms: u64,
    /// Extra delay of its applies, in ms.
    pub(crate) lag_ms: u64,
    pub(crate) state: State,
    pub(crate) applied: usize,
    pub(crate) apply_scheduled: bool,
    pub(crate) snapshot: Snapshot,
    /// A moment since which a majority has followed the leader this node follows, and whose log this node
    /// has applied.
    pub(crate) quorum_at: Option<u64>,
    /// The same, with what it has to have applied first.
    pub(crate) confirming: Option<(u64, usize)>,
    /// When it answered a heartbeat of the leader last.
    pub(crate) heard_at: u64,
    /// When the leader exchanged messages with it last.
    pub(crate) exchange_at: u64,
    /// Sessions it holds, by host.
    pub(crate) sessions: BTreeMap<usize, crate::session::Session>,
    /// Hosts that the state says it holds and it does not, each since when and which session.
    pub(crate) orphans: BTreeMap<usize, (u64, u64)>,
    /// Plans not answered yet.
    pub(crate) plans: BTreeMap<Resource, crate::planning::Flight>,
    pub(crate) planned_at: u64,
    /// Revision the planners saw last.
    pub(crate) planned: usize,
}

impl Node {
    pub(crate) fn new(number: usize, skew_ms: u64) -> Self {
        Self {
            id: NodeId(number as u64 + 1),
            up: true,
            incarnation: 1,
            skew_ms,
            lag_ms: 0,
            state: State::default(),
            applied: 0,
            apply_scheduled: false,
            snapshot: Snapshot::default(),
            quorum_at: None,
            confirming: None,
            heard_at: 0,
            exchange_at: 0,
            sessions: BTreeMap::new(),
            orphans: BTreeMap::new(),
            plans: BTreeMap::new(),
            planned_at: 0,
            planned: usize::MAX,
        }
    }

    /// Its wall clock.
    pub(crate) fn wall(&self, now: u64) -> Timestamp {
        Timestamp(EPOCH_MS + now + self.skew_ms)
    }
}

impl World {
    /// Sends a command to the leader.
    pub(crate) fn propose(&mut self, via: usize, proposal: (Caller, Command), origin: Origin) {
        self.propose_named(via, proposal, None, origin);
    }

    /// Sends a command with a request id to the leader.
    pub(crate) fn propose_named(
        &mut self,
        via: usize,
        (caller, command): (Caller, Command),
        request_id: Option<RequestId>,
        origin: Origin,
    ) {
        let incarnation = self.nodes[via].incarnation;
        let proposal = Proposal { via, incarnation, caller, request_id, command, origin };
        let messages = self.settings.faults.messages && !self.healing;
        // A session proposes reports until it is answered.
        let lossy = !matches!(proposal.command, Command::ReportJobs { .. });
        if messages && lossy && self.dice.permille(10) {
            return;
        }
        if messages && self.dice.permille(10) {
            let at = self.now + self.dice.range(1, 3_000);
            let again = Proposal { origin: Origin::Duty, ..proposal.clone() };
            self.at(at, Event::Propose(Box::new(again)));
        }
        let slow = if messages && self.dice.permille(20) { 2_000 } else { 20 };
        let at = self.now + self.dice.range(1, slow);
        self.at(at, Event::Propose(Box::new(proposal)));
    }

    /// The leader takes a proposal, if it is there.
    pub(crate) fn take_proposal(&mut self, proposal: Proposal) {
        let Some(leader) = self.log.leader.filter(|leader| self.nodes[*leader].up) else { return };
        if !self.network.calls(proposal.via, leader) {
            return;
        }
        let ticket = self.log.next_ticket;
        self.log.next_ticket += 1;
        let node = &self.nodes[leader];
        let mut request_id = proposal.request_id;
        if self.settings.plant == Some(Plant::DoubleApply)
            && let Some(id) = &mut request_id
        {
            id.unique ^= u128::from(ticket) << 64;
        }
        let stamp = Stamp {
            time: node.wall(self.now),
            rules: node.state.globals.rules,
            caller: proposal.caller,
            request_id,
        };
        self.log.waiting.insert(
            ticket,
            Waiting {
                via: proposal.via,
                incarnation: proposal.incarnation,
                leader,
                leader_incarnation: node.incarnation,
                origin: proposal.origin,
            },
        );
        if self.settings.plant == Some(Plant::AnswerBeforeCommit) {
            let outcome = node.state.clone().apply(&stamp, &proposal.command).outcome;
            self.at(self.now + 1, Event::Answer { ticket, outcome: Box::new(outcome) });
        }
        let command = Arc::new(proposal.command);
        self.log.pending.push_back(Entry { stamp, command, ticket });
        self.schedule_commit();
    }

    pub(crate) fn schedule_commit(&mut self) {
        if !self.log.commit_scheduled && !self.log.pending.is_empty() {
            self.log.commit_scheduled = true;
            let at = self.now + self.dice.range(2, 25);
            self.at(at, Event::Commit { term: self.log.term });
        }
    }

    /// A majority may hold what the leader appended.
    pub(crate) fn commit(&mut self, term: u64) {
        if term != self.log.term {
            return;
        }
        self.log.commit_scheduled = false;
        let Some(leader) = self.log.leader else { return };
        if !self.nodes[leader].up || !self.has_majority(leader) {
            self.log.commit_scheduled = true;
            self.at(self.now + 200, Event::Commit { term });
            return;
        }
        self.log.committed.extend(self.log.pending.drain(..));
        self.schedule_applies(leader);
    }

    /// Whoever can hear the leader applies what is new, in its own time.
    pub(crate) fn schedule_applies(&mut self, leader: usize) {
        for node in 0..self.nodes.len() {
            let behind = self.nodes[node].applied < self.log.committed.len();
            let hears = self.nodes[node].up && self.network.calls(leader, node);
            if behind && hears && !self.nodes[node].apply_scheduled {
                self.nodes[node].apply_scheduled = true;
                let usual = if node == leader { 5 } else { 60 };
                let at = self.now + self.dice.range(1, usual) + self.nodes[node].lag_ms;
                let incarnation = self.nodes[node].incarnation;
                self.at(at, Event::Apply { node, incarnation });
            }
        }
    }

    /// A node applies what is committed, or gets a snapshot when it is far behind.
    pub(crate) fn apply(&mut self, node: usize, incarnation: u64) {
        if !self.nodes[node].up || self.nodes[node].incarnation != incarnation {
            return;
        }
        self.nodes[node].apply_scheduled = false;
        let behind = self.log.committed.len() - self.nodes[node].applied;
        if behind > BEHIND_MAX && self.install_snapshot(node) {
            return;
        }
        // A backlog is worked off in pieces, with other things in between.
        let piece = if behind > 8 { 1 + self.dice.index(behind) } else { behind };
        let mut touched = BTreeSet::new();
        for _ in 0..piece {
            self.apply_one(node, &mut touched);
            if self.violation.is_some() {
                return;
            }
        }
        if self.nodes[node].applied - self.nodes[node].snapshot.applied >= SNAPSHOT_EVERY {
            let it = &mut self.nodes[node];
            let rows = it.state.rows().collect();
            let globals = it.state.globals.clone();
            it.snapshot = Snapshot { applied: it.applied, globals, rows };
        }
        self.after_applying(node, &touched);
        if piece < behind {
            self.nodes[node].apply_scheduled = true;
            let at = self.now + self.dice.range(1, 40);
            self.at(at, Event::Apply { node, incarnation });
        }
    }

    fn apply_one(&mut self, node: usize, touched: &mut BTreeSet<usize>) {
        let index = self.nodes[node].applied;
        let entry = self.log.committed[index].clone();
        let mut stamp = entry.stamp;
        if self.settings.plant == Some(Plant::ReadClock) && node == 1 {
            stamp.time = self.nodes[node].wall(self.now);
        }
        let it = &mut self.nodes[node];
        let applied = it.state.apply(&stamp, &entry.command);
        it.applied += 1;
        if self.settings.plant == Some(Plant::OverCommit) {
            crate::plants::over_commit(&mut it.state, &stamp, &entry.command);
        }
        for change in &applied.changes {
            hosts_of(&change.key, &change.before, &change.after, &self.host_numbers, touched);
        }
        tracing_line(&mut self.trace, self.now, (node, index), (&entry.command, &applied.outcome));
        let hash = self.nodes[node].state.hash();
        self.check_applied(node, index, hash, &applied);
        let waits = self.log.waiting.get(&entry.ticket);
        if waits.is_some_and(|it| {
            it.leader == node && it.leader_incarnation == self.nodes[node].incarnation
        }) {
            let at = self.now + self.dice.range(1, 10);
            let outcome = Box::new(applied.outcome);
            self.at(at, Event::Answer { ticket: entry.ticket, outcome });
        }
    }

    /// Answers whoever proposed, if both ends are still there.
    pub(crate) fn answer(&mut self, ticket: u64, outcome: Outcome) {
        let Some(waiting) = self.log.waiting.remove(&ticket) else { return };
        let via = &self.nodes[waiting.via];
        let there = via.up && via.incarnation == waiting.incarnation;
        let lost = self.settings.faults.messages && !self.healing && self.dice.permille(10);
        if !there || lost || !self.network.calls(waiting.via, waiting.leader) {
            return;
        }
        match waiting.origin {
            Origin::User { request } => self.user_answered(request, outcome),
            Origin::Plan { resource } => self.plan_answered(waiting.via, &resource),
            Origin::Connect { connection } => {
                self.connect_answered(waiting.via, connection, &outcome);
            }
            Origin::Reports { connection, sequence } => {
                self.reports_answered(waiting.via, connection, sequence);
            }
            Origin::Duty => {}
        }
    }
}

fn tracing_line(
    trace: &mut crate::trace::Trace,
    now: u64,
    (node, index): (usize, usize),
    (command, outcome): (&Command, &Outcome),
) {
    trace.line(now, || {
        let answer = match &outcome.result {
            Ok(reply) => format!("{reply:?}"),
            Err(rejection) => rejection.code.clone(),
        };
        format!("node {node} applies {index} {command:?} -> {answer}")
    });
}

/// Hosts whose orders a changed row may concern.
fn hosts_of(
    key: &Key,
    before: &Option<Row>,
    after: &Option<Row>,
    numbers: &BTreeMap<(model::Name, model::Name), usize>,
    touched: &mut BTreeSet<usize>,
) {
    match key {
        Key::Host(tenant, host) => {
            touched.extend(numbers.get(&(tenant.clone(), host.clone())));
        }
        Key::Job(key) => {
            for row in [before, after].into_iter().flatten() {
                let Row::Job(job) = row else { continue };
                let hosts = job.placements.iter().map(|it| (key.tenant.clone(), it.host.clone()));
                touched.extend(hosts.filter_map(|at| numbers.get(&at)));
            }
        }
        _ => {}
    }
}
