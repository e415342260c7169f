//! Children of an actor: kept by name in order, started again with backoff after a crash.
//!
//! The delay doubles with each crash, and a child that has run well for `steady_ms` begins at the
//! shortest again. ractor's registry and process groups are global to the process, so several control
//! nodes in one process would meet there; nobody here uses them.

use crate::Config;
use ractor::{ActorCell, ActorRef, Message};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

struct Child<M: Message> {
    actor: ActorRef<M>,
    since: Instant,
}

/// The children of one actor.
pub(crate) struct Children<K: Ord, M: Message> {
    live: BTreeMap<K, Child<M>>,
    /// Crashes in a row, of those that live and of those that wait.
    crashes: BTreeMap<K, u32>,
}

impl<K: Ord + Clone, M: Message> Children<K, M> {
    pub(crate) fn new() -> Self {
        Self { live: BTreeMap::new(), crashes: BTreeMap::new() }
    }

    pub(crate) fn get(&self, name: &K) -> Option<&ActorRef<M>> {
        self.live.get(name).map(|child| &child.actor)
    }

    /// Those that live and those that wait for their restart.
    pub(crate) fn names(&self) -> BTreeSet<K> {
        self.live.keys().chain(self.crashes.keys()).cloned().collect()
    }

    /// Number of those that live.
    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    pub(crate) fn put(&mut self, name: K, actor: ActorRef<M>) {
        self.live.insert(name, Child { actor, since: Instant::now() });
    }

    /// Whether `name` waits for its restart after a crash.
    pub(crate) fn waits(&self, name: &K) -> bool {
        !self.live.contains_key(name) && self.crashes.contains_key(name)
    }

    /// Stops a child that is not wanted any more; one that waits is not started again.
    pub(crate) fn stop(&mut self, name: &K) {
        self.crashes.remove(name);
        if let Some(child) = self.live.remove(name) {
            child.actor.stop(None);
        }
    }

    /// Stops all, in order.
    pub(crate) fn stop_all(&mut self) {
        for name in self.names() {
            self.stop(&name);
        }
    }

    fn take(&mut self, cell: &ActorCell) -> Option<(K, Child<M>)> {
        let id = cell.get_id();
        let name = self.live.iter().find(|(_, child)| child.actor.get_id() == id)?.0.clone();
        self.live.remove_entry(&name)
    }

    /// Forgets a child that ended by itself, as it should.
    pub(crate) fn ended(&mut self, cell: &ActorCell) {
        if let Some((name, _)) = self.take(cell) {
            self.crashes.remove(&name);
        }
    }

    /// Counts a crash; says which child it was and after which delay it is to be started again.
    /// `None` if it had been stopped on purpose.
    pub(crate) fn crashed(&mut self, cell: &ActorCell, config: &Config) -> Option<(K, Duration)> {
        let (name, child) = self.take(cell)?;
        if child.since.elapsed() >= Duration::from_millis(config.steady_ms) {
            self.crashes.remove(&name);
        }
        let delay = self.count(&name, config);
        Some((name, delay))
    }

    /// Counts a crash, or a start that failed; answers the delay before the next.
    pub(crate) fn count(&mut self, name: &K, config: &Config) -> Duration {
        let crashes = self.crashes.entry(name.clone()).or_insert(0);
        let delay_ms = config.restart_min_ms << (*crashes).min(16);
        *crashes = crashes.saturating_add(1);
        Duration::from_millis(delay_ms.min(config.restart_max_ms))
    }
}
