//! A state read back from its rows, one after the other.
//!
//! A large state is read without a second copy of it: a row goes into its table as it comes, and what
//! the tables would note for a command is forgotten at once.

use crate::{Globals, Key, Row, State};
use std::sync::Arc;

/// A state that is being read back. Indexes are rebuilt and equal workloads share memory again.
#[derive(Debug)]
pub struct Loading {
    state: State,
}

impl Loading {
    /// Begins with no rows.
    pub fn new(globals: Globals) -> Self {
        Self { state: State { globals, ..State::default() } }
    }

    /// Takes the next row. Rows come in key order, as [`State::rows`] gives them.
    pub fn put(&mut self, key: Key, row: Row) {
        self.state.put_row(key, row);
        self.state.forget_changes();
    }

    /// How many rows it has.
    pub fn rows_count(&self) -> usize {
        self.state.rows_count()
    }

    /// The state, once all rows are in it.
    pub fn finish(self) -> State {
        self.state
    }
}

impl State {
    /// The state with these rows, in key order; see [`Loading`].
    pub fn load(globals: Globals, rows: impl Iterator<Item = (Key, Row)>) -> Self {
        let mut loading = Loading::new(globals);
        rows.for_each(|(key, row)| loading.put(key, row));
        loading.finish()
    }

    /// Forgets which rows were written.
    fn forget_changes(&mut self) {
        self.dirty = Default::default();
        self.tenants.forget_touched();
        self.hosts.forget_touched();
        self.clusters.forget_touched();
        self.images.forget_touched();
        self.packages.forget_touched();
        self.deployments.forget_touched();
        self.deployment_clusters.forget_touched();
        self.jobs.forget_touched();
        self.bindings.forget_touched();
        self.tokens.forget_touched();
        self.nodes.forget_touched();
        self.tombstones.forget_touched();
        self.requests.forget_touched();
        self.removed_nodes.forget_touched();
    }

    fn put_row(&mut self, key: Key, row: Row) {
        match (key, row) {
            (Key::Tenant(at), Row::Tenant(row)) => self.tenants.put_arc(at, row),
            (Key::Host(a, b), Row::Host(row)) => {
                self.put_host((a, b), Some(Arc::unwrap_or_clone(row)));
            }
            (Key::Cluster(a, b), Row::Cluster(row)) => {
                self.put_cluster((a, b), Some(Arc::unwrap_or_clone(row)));
            }
            (Key::Image(a, b), Row::Image(row)) => self.images.put_arc((a, b), row),
            (Key::Package(a, b, c), Row::Package(row)) => self.packages.put_arc((a, b, c), row),
            (Key::Deployment(a, b), Row::Deployment(row)) => {
                self.put_deployment((a, b), Some(Arc::unwrap_or_clone(row)));
            }
            (Key::DeploymentCluster(a, b, c), Row::DeploymentCluster(row)) => {
                self.put_part((a, b, c), Some(Arc::unwrap_or_clone(row)));
            }
            (Key::Job(key), Row::Job(row)) => {
                let mut job = Arc::unwrap_or_clone(row);
                self.intern(&key, &mut job);
                self.put_job(&key, Some(job));
            }
            (Key::Binding(a, b), Row::Binding(row)) => self.bindings.put_arc((a, b), row),
            (Key::Token(at), Row::Token(row)) => self.tokens.put_arc(at, row),
            (Key::Node(at), Row::Node(row)) => self.nodes.put_arc(at, row),
            (Key::Tombstone(a, b), Row::Tombstone(row)) => self.tombstones.put_arc((a, b), row),
            (Key::Request(at), Row::Request(row)) => self.requests.put_arc(at, row),
            (Key::RemovedNode(at), Row::RemovedNode(row)) => self.removed_nodes.put_arc(at, row),
            (key, row) => debug_assert!(false, "row {row:?} under key {key:?}"),
        }
    }
}
