//! Oracles: what must hold, one file per invariant. The numbers are those of specification 6.7.
//!
//! | file | holds | looked at |
//! |---|---|---|
//! | `exclusive` | (1) one running copy of a `stop` job, by guards that really run; `keep_running` too, unless somebody gave the first up | each start |
//! | `acknowledged` | (2) what was acknowledged is in the log, once, with that answer | each answer, the end |
//! | `replicas` | (3) equal states at equal revisions, replayed or loaded | each entry of each node |
//! | `orphans` | (4) derived rows have owners | each entry |
//! | `quiescence` | (5) nothing is written when all is as asked | the end |
//! | `changes` | (6) changes replay to the state, each once and in order | each entry |
//! | `deletion` | (11) forced deletions end | the end |
//! | `single` | (12) one reconcile of a thing at a time | each plan, each step |
//! | `fence` | agents act on the newest order they took; reports count under the assignment in force | each step, each entry |
//! | `durable` | an agent acts on what is on its disk | each step |
//! | `capacity` | no host is given more than it has | each entry |
//! | `placement` | no placement breaks a hard constraint when it is made | each entry |
//! | `convergence` | without faults everything becomes as asked, or says why not | the end |
//! | `invariants` | `model::invariants` | now and then, the end |

mod acknowledged;
mod capacity;
mod changes;
mod convergence;
mod deletion;
mod durable;
mod exclusive;
mod fence;
mod invariants;
mod orphans;
mod placement;
mod quiescence;
mod replicas;
mod single;

pub(crate) use convergence::one_job;

use crate::{planning::Resource, world::World};
use agent::{
    memory::{Fence, Record},
    reconcile::Step,
};
use model::{Applied, Assignment, JobKey, Key, Outcome, RequestId, Row};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which oracle found it.
    pub oracle: &'static str,
    /// What it found.
    pub detail: String,
    /// When, in the world's milliseconds.
    pub at_ms: u64,
}

/// What a rule finds: nothing, or what is wrong.
type Found = Result<(), String>;

/// What oracles remember.
#[derive(Debug, Default)]
pub(crate) struct Oracles {
    /// Hash and answer after each entry, as the first node to apply it has them.
    seen: Vec<(u128, Outcome)>,
    /// First answers by request id.
    answers: BTreeMap<RequestId, Outcome>,
    /// Rows as changes alone make them.
    shadow: BTreeMap<Key, Row>,
    /// Copies that control gave up while they may still run.
    given_up: BTreeSet<(JobKey, Assignment)>,
    /// Newest order taken, by host and job.
    fences: BTreeMap<(usize, JobKey), Fence>,
    /// Revisions looked at in full.
    checked_at: usize,
}

impl World {
    /// A node has applied an entry.
    pub(crate) fn check_applied(
        &mut self,
        node: usize,
        index: usize,
        hash: u128,
        applied: &Applied,
    ) {
        if index < self.oracles.seen.len() {
            let found = replicas::agrees(&self.oracles, index, hash, &applied.outcome);
            self.judge("replicas", found.map_err(|it| format!("node {node}: {it}")));
            return;
        }
        self.oracles.seen.push((hash, applied.outcome.clone()));
        self.count(applied);
        let command = self.log.committed[index].command.clone();
        let request = self.log.committed[index].stamp.request_id.clone();
        let state = &self.nodes[node].state;
        let oracles = &mut self.oracles;
        let found = [
            ("acknowledged", acknowledged::answered_alike(oracles, request, &applied.outcome)),
            ("changes", changes::follow(oracles, &applied.changes)),
            ("orphans", orphans::none(state, &applied.changes)),
            ("capacity", capacity::kept(state, &applied.changes)),
            ("placement", placement::suits(state, &applied.events)),
            ("fence", fence::reports_in_force(&command, applied)),
        ];
        exclusive::note_given_up(oracles, applied);
        for (oracle, found) in found {
            self.judge(oracle, found);
        }
    }

    fn count(&mut self, applied: &Applied) {
        self.stats.refused += u64::from(applied.outcome.result.is_err());
        for event in &applied.events {
            match event {
                model::Event::HostLost { .. } => self.stats.losses += 1,
                model::Event::PlacementRemoved { why: model::Removal::Evicted, .. } => {
                    self.stats.evictions += 1;
                }
                _ => {}
            }
        }
    }

    /// Notes what a rule found.
    pub(crate) fn judge(&mut self, oracle: &'static str, found: Found) {
        if let Err(detail) = found {
            self.fail(oracle, detail);
        }
    }

    /// A node begins with a state it loaded.
    pub(crate) fn check_loaded(&mut self, node: usize) {
        let it = &self.nodes[node];
        let found = replicas::loaded(&self.oracles, it.applied, it.state.hash());
        self.judge("replicas", found.map_err(|it| format!("node {node}: {it}")));
    }

    /// A user is answered.
    pub(crate) fn check_acknowledged(&mut self, request: usize, outcome: &Outcome) {
        let id = &self.users.requests[request].id;
        let found = acknowledged::is_logged(&self.oracles, id, outcome);
        self.judge("acknowledged", found);
    }

    /// A job is started.
    pub(crate) fn check_start(&mut self, host: usize, key: &JobKey) {
        let found = exclusive::alone(&mut self.hosts, &self.oracles, (host, key), self.now);
        self.judge("exclusive", found);
    }

    /// An agent took records in.
    pub(crate) fn check_remembered(&mut self, host: usize, records: &[Record]) {
        fence::note(&mut self.oracles, host, records);
    }

    /// An agent begins a step.
    pub(crate) fn check_step(&mut self, host: usize, step: &Step) {
        let Some(agent) = &self.hosts[host].agent else { return };
        let found = [
            ("fence", fence::is_newest(&self.oracles, host, step)),
            ("single", single::step_alone(agent, step)),
            ("durable", durable::is_on_disk(agent)),
        ];
        for (oracle, found) in found {
            self.judge(oracle, found.map_err(|it| format!("host {host}: {it}")));
        }
    }

    /// A planner proposes.
    pub(crate) fn check_flight(&mut self, node: usize, resource: &Resource) {
        let found = single::plan_alone(&self.nodes[node], resource, self.now);
        self.judge("single", found.map_err(|it| format!("node {node}: {it}")));
    }

    /// The end of a step: what is too dear for every event.
    pub(crate) fn check_step_end(&mut self) {
        let behind = self.oracles.seen.len() >= self.oracles.checked_at + invariants::EVERY;
        if behind {
            self.check_in_full();
        }
    }

    /// Looks at everything there is in the newest state.
    pub(crate) fn check_in_full(&mut self) {
        let newest = self.nodes.iter().filter(|node| node.up).max_by_key(|node| node.applied);
        let Some(node) = newest else { return };
        if node.applied != self.oracles.seen.len() {
            return;
        }
        self.oracles.checked_at = self.oracles.seen.len();
        let found = [
            ("invariants", invariants::hold(&node.state)),
            ("changes", changes::make_the_state(&self.oracles, &node.state)),
        ];
        for (oracle, found) in found {
            self.judge(oracle, found);
        }
    }

    /// Everything that can be said only when the faults are over and all came right, or did not.
    pub(crate) fn check_end(&mut self) {
        let found = [
            ("acknowledged", acknowledged::all_kept(&self.oracles, &self.users, &self.nodes)),
            ("deletion", deletion::ended(&self.nodes)),
            ("replicas", replicas::replayed(&self.oracles, &self.log, self.settings.seed)),
        ];
        for (oracle, found) in found {
            self.judge(oracle, found);
        }
        self.check_in_full();
    }

    /// Whether all is as asked, or says why not.
    pub(crate) fn converged(&mut self) -> Found {
        convergence::reached(self)
    }

    /// Whether anything was written since all was as asked.
    pub(crate) fn check_quiet(&mut self, since: usize) {
        let found = quiescence::kept(&self.log, &self.oracles, since);
        self.judge("quiescence", found);
    }
}
