//! Whoever makes the faults, one after the other, each mended before the next.

use nix::sys::signal::Signal;
use std::{sync::Arc, time::Duration};
use storage::Dice;
use tests::{Cluster, DiskError, Faults, Process, until};
use tokio::runtime::Runtime;

/// Clocks are off by up to this: well within what certificates and request ids bear.
const CLOCK_OFF_MS: u64 = 240_000;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A node is killed and started again.
    Kill,
    /// All are, at once.
    KillAll,
    /// A node does not run for a while.
    Stop,
    /// The leader does not.
    StopLeader,
    /// A node has no link to any other.
    Isolate,
    /// The leader has none. Clients reach it.
    IsolateLeader,
    /// The leader hears the others, and they do not hear it.
    MuteLeader,
    /// The others hear the leader, and it does not hear them.
    DeafLeader,
    /// Two nodes have no link to each other; the others have all of theirs.
    Bridge,
    /// One node has no link, another is killed: nobody has a majority, of three.
    IsolateAndKill,
    /// All links to a node are slow.
    Slow,
    /// A node's clock jumps, and stays wrong.
    Clock,
    /// A node's disk takes long to sync.
    SlowSyncs,
    /// A node's disk is full.
    FullDisk,
    /// A node's disk does not sync.
    BrokenSyncs,
    /// Another node leads because an operator says so.
    Transfer,
    /// One more node joins.
    Join,
}

impl Trouble {
    /// All of them.
    pub(crate) const ALL: &[Self] = &[
        Self::Kill,
        Self::KillAll,
        Self::Stop,
        Self::StopLeader,
        Self::Isolate,
        Self::IsolateLeader,
        Self::MuteLeader,
        Self::DeafLeader,
        Self::Bridge,
        Self::IsolateAndKill,
        Self::Slow,
        Self::Clock,
        Self::SlowSyncs,
        Self::FullDisk,
        Self::BrokenSyncs,
        Self::Transfer,
        Self::Join,
    ];

    /// Whether it needs [`Faults`].
    fn needs_faults(self) -> bool {
        !matches!(self, Self::Kill | Self::KillAll | Self::Stop | Self::StopLeader | Self::Transfer)
    }
}

/// Makes faults in a cluster.
pub(super) struct Nemesis {
    cluster: Cluster,
    faults: Option<Arc<Faults>>,
    dice: Dice,
    kinds: Vec<Trouble>,
    /// What is still to come before everything comes again.
    deck: Vec<Trouble>,
}

impl Nemesis {
    /// Of these kinds; what needs `faults` is left out where there are none.
    pub(super) fn new(
        cluster: Cluster,
        faults: Option<Arc<Faults>>,
        dice: Dice,
        kinds: &[Trouble],
    ) -> Self {
        let possible = |kind: &Trouble| faults.is_some() || !kind.needs_faults();
        let kinds = kinds.iter().copied().filter(possible).collect();
        Self { cluster, faults, dice, kinds, deck: Vec::new() }
    }

    /// Everything is mended.
    pub(super) fn end(self) -> Cluster {
        if let Some(faults) = &self.faults {
            faults.mend_clocks();
        }
        self.cluster
    }

    /// One fault and its mending, and a while without any.
    ///
    /// # Panics
    /// When a node has ended that had no reason to.
    pub(super) fn strike(&mut self, runtime: &Runtime) {
        let trouble = self.next();
        let pause = Duration::from_millis(self.dice.between(300, 2_500));
        println!("{trouble:?}, {pause:?}");
        match trouble {
            Trouble::Kill | Trouble::KillAll | Trouble::Stop | Trouble::StopLeader => {
                self.process(trouble, runtime, pause);
            }
            Trouble::Clock | Trouble::SlowSyncs | Trouble::FullDisk | Trouble::BrokenSyncs => {
                self.machine(trouble, runtime, pause);
            }
            // Where none can take over, that is said, and nothing else happens.
            Trouble::Transfer => drop(self.cluster.cli(&["cluster", "transfer-leader"])),
            Trouble::Join => self.join(),
            Trouble::Isolate
            | Trouble::IsolateLeader
            | Trouble::MuteLeader
            | Trouble::DeafLeader
            | Trouble::Bridge
            | Trouble::IsolateAndKill
            | Trouble::Slow => self.network(trouble, runtime, pause),
        }
        wait(runtime, Duration::from_millis(self.dice.between(300, 1_500)));
        for index in 0..self.cluster.nodes.len() {
            let running =
                self.cluster.nodes[index].process.as_mut().is_some_and(Process::is_running);
            let log = || self.cluster.node_log(index);
            assert!(running, "node {} ended by itself after {trouble:?}: {}", index + 1, log());
        }
    }

    /// Each kind once, in any order, and then again.
    fn next(&mut self) -> Trouble {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.kinds);
        }
        let chosen = self.dice.below(self.deck.len() as u64) as usize;
        self.deck.swap_remove(chosen)
    }

    fn any(&mut self) -> usize {
        self.dice.below(self.cluster.nodes.len() as u64) as usize
    }

    fn others(&self, node: usize) -> Vec<usize> {
        (0..self.cluster.nodes.len()).filter(|other| *other != node).collect()
    }

    fn process(&mut self, trouble: Trouble, runtime: &Runtime, pause: Duration) {
        match trouble {
            Trouble::Kill => {
                let node = self.any();
                self.cluster.kill_node(node);
                wait(runtime, pause);
                self.cluster.restart_node(node);
            }
            Trouble::KillAll => {
                let all = 0..self.cluster.nodes.len();
                all.clone().for_each(|node| self.cluster.kill_node(node));
                all.for_each(|node| self.cluster.restart_node(node));
            }
            _ => {
                let leads = trouble == Trouble::StopLeader;
                let node = if leads { self.cluster.leader() } else { self.any() };
                let process = self.cluster.nodes[node].process.as_ref().unwrap();
                process.signal(Signal::SIGSTOP);
                wait(runtime, pause);
                process.signal(Signal::SIGCONT);
            }
        }
    }

    fn network(&mut self, trouble: Trouble, runtime: &Runtime, pause: Duration) {
        let faults = self.faults.clone().unwrap();
        let network = faults.network();
        let leads =
            matches!(trouble, Trouble::IsolateLeader | Trouble::MuteLeader | Trouble::DeafLeader);
        let node = if leads { self.cluster.leader() } else { self.any() };
        let others = self.others(node);
        let other = others[self.dice.below(others.len() as u64) as usize];
        match trouble {
            Trouble::MuteLeader => others.iter().for_each(|other| network.hold(node, *other)),
            Trouble::DeafLeader => others.iter().for_each(|other| network.hold(*other, node)),
            Trouble::Bridge => network.part(&[node], &[other]),
            Trouble::Slow => {
                let delay = Duration::from_millis(self.dice.between(5, 80));
                for other in &others {
                    network.delay(node, *other, delay);
                    network.delay(*other, node, delay);
                }
            }
            _ => network.part(&[node], &others),
        }
        if trouble == Trouble::IsolateAndKill {
            self.cluster.kill_node(other);
        }
        wait(runtime, pause);
        if trouble == Trouble::IsolateAndKill {
            self.cluster.restart_node(other);
        }
        network.heal();
    }

    fn machine(&mut self, trouble: Trouble, runtime: &Runtime, pause: Duration) {
        let (faults, node) = (self.faults.clone().unwrap(), self.any());
        match trouble {
            Trouble::Clock => {
                let off = self.dice.between(1_000, CLOCK_OFF_MS) as i64;
                let forward = self.dice.below(2) == 0;
                faults.set_clock(node, if forward { off } else { -off });
                return wait(runtime, pause);
            }
            Trouble::SlowSyncs => {
                faults.slow_syncs(node, Duration::from_millis(self.dice.between(20, 1_200)));
                wait(runtime, pause);
                return faults.mend_disks();
            }
            Trouble::FullDisk => faults.fail_writes(node, DiskError::Full),
            _ => faults.fail_syncs(node, DiskError::Broken),
        }
        // It must not go on as if nothing were: the next entry ends it.
        until("a node whose disk fails ends", 30, || {
            !self.cluster.nodes[node].process.as_mut().is_some_and(Process::is_running)
        });
        faults.mend_disks();
        self.cluster.nodes[node].process = None;
        self.cluster.restart_node(node);
    }

    fn join(&mut self) {
        if self.cluster.nodes.len() < self.faults.as_ref().unwrap().nodes() {
            self.cluster.join_node();
            self.cluster.wait_for_members();
        }
    }
}

fn wait(runtime: &Runtime, pause: Duration) {
    runtime.block_on(async { tokio::time::sleep(pause).await });
}
