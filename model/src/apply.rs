//! One command of the log: the way every replica takes it.

use crate::{
    Caller, Change, Command, Context, Event, Key, Outcome, Rejection, Reply, RequestId, Row, State,
    Table, Timestamp,
    decide::Decision,
    limits::{REMEMBERED_ITEMS_MAX, REQUEST_WINDOW_MS, REQUESTS_MAX},
    rejection::Code,
};
use std::{hash::Hash, sync::Arc};

/// What the log entry says about a command, beside the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The leader's clock.
    pub time: Timestamp,
    /// The rules level to decide by, unless a higher one is in force.
    pub rules: u32,
    /// Who asks.
    pub caller: Caller,
    /// For idempotency.
    pub request_id: Option<RequestId>,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The answer.
    pub outcome: Outcome,
    /// What happened; empty for a refusal and for a repeat.
    pub events: Vec<Event>,
    /// The rows that differ, in key order, each before and after.
    pub changes: Vec<Change>,
}

impl State {
    /// Takes one command of the log. It has the next revision; its time is the stamp's, but never
    /// earlier than that of the command before. Nor is its rules level below the one in force: the
    /// leader may have named it before it heard of the rise. A repeat of a request id gets the first answer. A
    /// refusal changes nothing but revision, time and the remembered answer.
    pub fn apply(&mut self, stamp: &Stamp, command: &Command) -> Applied {
        let context = Context {
            revision: self.globals.revision.next(),
            time: stamp.time.max(self.globals.time),
            rules: stamp.rules.max(self.globals.rules),
            caller: stamp.caller.clone(),
            request_id: stamp.request_id.clone(),
        };
        self.globals.revision = context.revision;
        self.globals.time = context.time;
        self.forget(context.time);
        let (outcome, events) = self.answer(&context, command);
        Applied { outcome, events, changes: self.take_changes() }
    }

    fn answer(&mut self, context: &Context, command: &Command) -> (Outcome, Vec<Event>) {
        let revision = context.revision;
        if let Some(id) = &context.request_id {
            if let Some(first) = self.requests.get(id) {
                return (first.clone(), Vec::new());
            }
            if let Err(rejection) = self.admit(context, id, command) {
                return (Outcome { revision, result: Err(rejection) }, Vec::new());
            }
        }
        let (result, events): (Result<Reply, Rejection>, Vec<Event>) =
            match Decision::new(self.clone(), context).run(command) {
                Ok((state, events, reply)) => {
                    *self = state;
                    (Ok(reply), events)
                }
                Err(rejection) => (Err(rejection), Vec::new()),
            };
        let outcome = Outcome { revision, result };
        if let Some(id) = &context.request_id {
            self.requests.put(id.clone(), outcome.clone());
        }
        (outcome, events)
    }

    /// Whether a request id that was not seen before may be taken.
    fn admit(&self, context: &Context, id: &RequestId, command: &Command) -> Result<(), Rejection> {
        let oldest = self.globals.requests_from.max(window_start(context.time));
        if id.at < oldest || id.at > context.time.plus_ms(REQUEST_WINDOW_MS) {
            return Err(Code::RequestExpired
                .reject("the request id was made outside the time in which repeats are known")
                .at("request_id")
                .with("oldest_ms", oldest.0)
                .with("time_ms", context.time.0));
        }
        let items = crate::decide::items_of(command);
        if items > REMEMBERED_ITEMS_MAX {
            return Err(Code::TooMany
                .reject(format!(
                    "a command with a request id has at most {REMEMBERED_ITEMS_MAX} items, not {items}"
                ))
                .at("items")
                .with("max", REMEMBERED_ITEMS_MAX));
        }
        Ok(())
    }

    /// Forgets answers that are too old or too many.
    fn forget(&mut self, time: Timestamp) {
        let start = window_start(time);
        loop {
            let Some((id, _)) = self.requests.iter().next() else { return };
            if id.at >= start && self.requests.len() < REQUESTS_MAX {
                return;
            }
            let id = id.clone();
            let after = id.at.plus_ms(1);
            self.globals.requests_from = self.globals.requests_from.max(after);
            self.requests.remove(&id);
        }
    }

    /// The rows written since the last call, and an end to what the command left to look at.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        self.dirty = Default::default();
        let mut changes = Vec::new();
        take(&mut self.tenants, &mut changes, Key::Tenant, Row::Tenant);
        take(&mut self.hosts, &mut changes, |(a, b)| Key::Host(a, b), Row::Host);
        take(&mut self.clusters, &mut changes, |(a, b)| Key::Cluster(a, b), Row::Cluster);
        take(&mut self.images, &mut changes, |(a, b)| Key::Image(a, b), Row::Image);
        take(&mut self.packages, &mut changes, |(a, b, c)| Key::Package(a, b, c), Row::Package);
        take(&mut self.deployments, &mut changes, |(a, b)| Key::Deployment(a, b), Row::Deployment);
        take(
            &mut self.deployment_clusters,
            &mut changes,
            |(a, b, c)| Key::DeploymentCluster(a, b, c),
            Row::DeploymentCluster,
        );
        take(&mut self.jobs, &mut changes, Key::Job, Row::Job);
        take(&mut self.bindings, &mut changes, |(a, b)| Key::Binding(a, b), Row::Binding);
        take(&mut self.tokens, &mut changes, Key::Token, Row::Token);
        take(&mut self.nodes, &mut changes, Key::Node, Row::Node);
        take(&mut self.tombstones, &mut changes, |(a, b)| Key::Tombstone(a, b), Row::Tombstone);
        take(&mut self.requests, &mut changes, Key::Request, Row::Request);
        take(&mut self.removed_nodes, &mut changes, Key::RemovedNode, Row::RemovedNode);
        changes
    }
}

/// The oldest request id that may be taken.
fn window_start(time: Timestamp) -> Timestamp {
    Timestamp(time.0.saturating_sub(REQUEST_WINDOW_MS))
}

fn take<K, V>(
    table: &mut Table<K, V>,
    changes: &mut Vec<Change>,
    key: impl Fn(K) -> Key,
    row: fn(Arc<V>) -> Row,
) where
    K: Ord + Clone + Hash,
    V: Clone + Hash + PartialEq,
{
    for (at, before) in table.take_touched() {
        let after = table.get_arc(&at).cloned();
        if before != after {
            changes.push(Change { key: key(at), before: before.map(row), after: after.map(row) });
        }
    }
}
