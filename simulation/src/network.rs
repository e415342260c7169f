//! The network: which links work, and connections over them.
//!
//! A connection of a host to a node is like TCP: in order, nothing lost, until it breaks, and then
//! nothing passes any more. With faults some connections are worse than that: they lose, repeat and
//! reorder messages one by one.

use std::collections::{BTreeMap, BTreeSet};

/// One direction of a link. Between control nodes a direction is that of the calls: a node that can be
/// called by nobody may still call others and hear their answers, as with a firewall or a hung disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Link {
    /// Calls of one control node to another.
    Nodes(usize, usize),
    /// From a host to a node.
    Up(usize, usize),
    /// From a node to a host.
    Down(usize, usize),
}

/// A connection of an agent to a node.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) host: usize,
    pub(crate) node: usize,
    /// Incarnations of both ends when it was opened: it dies with either.
    pub(crate) agent: u64,
    pub(crate) server: u64,
    /// Loses, repeats and reorders.
    pub(crate) lossy: bool,
    /// Nothing passes any more.
    pub(crate) broken: bool,
    /// When the last message in each direction arrives.
    pub(crate) last_up: u64,
    pub(crate) last_down: u64,
}

/// Links that do not work, and connections.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// Blocked directions, each by so many faults.
    blocked: BTreeMap<Link, u32>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) next_connection: u64,
}

impl Network {
    /// Whether a message passes this way.
    pub(crate) fn passes(&self, link: Link) -> bool {
        !self.blocked.contains_key(&link)
    }

    /// Whether a node can call another and hear its answer.
    pub(crate) fn calls(&self, from: usize, to: usize) -> bool {
        from == to || self.passes(Link::Nodes(from, to))
    }

    /// Whether a host and a node can talk.
    pub(crate) fn reach(&self, host: usize, node: usize) -> bool {
        self.passes(Link::Up(host, node)) && self.passes(Link::Down(node, host))
    }

    pub(crate) fn block(&mut self, link: Link) {
        *self.blocked.entry(link).or_default() += 1;
    }

    pub(crate) fn unblock(&mut self, link: Link) {
        if let Some(faults) = self.blocked.get_mut(&link) {
            *faults -= 1;
            if *faults == 0 {
                self.blocked.remove(&link);
            }
        }
    }

    pub(crate) fn mend_all(&mut self) {
        self.blocked.clear();
    }

    /// Nodes a host can talk to.
    pub(crate) fn reachable(&self, host: usize, nodes: usize) -> BTreeSet<usize> {
        (0..nodes).filter(|node| self.reach(host, *node)).collect()
    }
}
