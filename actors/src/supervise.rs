//! Children of an actor: kept by name in order, started again with backoff after a crash.
//!
//! ractor's registry and process groups are global to the process, so several control nodes in one
//! process would meet there; nobody here uses them.

use crate::Config;
use ractor::{ActorCell, ActorRef, Message};
use std::{collections::BTreeMap, time::Duration};

/// The children of one actor.
pub(crate) struct Children<K: Ord, M: Message> {
    live: BTreeMap<K, ActorRef<M>>,
    crashes: BTreeMap<K, u32>,
}

impl<K: Ord + Clone, M: Message> Children<K, M> {
    pub(crate) fn new() -> Self {
        Self { live: BTreeMap::new(), crashes: BTreeMap::new() }
    }

    pub(crate) fn get(&self, name: &K) -> Option<&ActorRef<M>> {
        self.live.get(name)
    }

    pub(crate) fn names(&self) -> Vec<K> {
        self.live.keys().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    pub(crate) fn put(&mut self, name: K, actor: ActorRef<M>) {
        self.live.insert(name, actor);
    }

    /// Whether `name` waits for its restart after a crash.
    pub(crate) fn waits(&self, name: &K) -> bool {
        !self.live.contains_key(name) && self.crashes.contains_key(name)
    }

    /// Stops a child that is not wanted any more.
    pub(crate) fn stop(&mut self, name: &K) {
        self.crashes.remove(name);
        if let Some(actor) = self.live.remove(name) {
            actor.stop(None);
        }
    }

    /// Stops all, in order.
    pub(crate) fn stop_all(&mut self) {
        for name in self.names() {
            self.stop(&name);
        }
    }

    /// Forgets a child that ended, and says which it was. `None` if it was stopped on purpose.
    pub(crate) fn ended(&mut self, cell: &ActorCell) -> Option<K> {
        let id = cell.get_id();
        let name = self.live.iter().find(|(_, actor)| actor.get_id() == id)?.0.clone();
        self.live.remove(&name);
        Some(name)
    }

    /// Counts a crash and says after which delay the child is to be started again.
    pub(crate) fn crashed(&mut self, name: &K, config: &Config) -> Duration {
        let crashes = self.crashes.entry(name.clone()).or_insert(0);
        let delay_ms = config.restart_min_ms << (*crashes).min(16);
        *crashes += 1;
        Duration::from_millis(delay_ms.min(config.restart_max_ms))
    }

    /// A child that works has its crashes forgiven.
    pub(crate) fn forgive(&mut self, name: &K) {
        self.crashes.remove(name);
    }
}
