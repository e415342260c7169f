//! What a run is told, and the product's settings in it.

use crate::settings::Faults;
use std::{fmt, path::PathBuf, str::FromStr};
use storage::{disk::simulated::SimulatedDiskConfig, log::LogConfig};

/// Everything a run follows from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The seed.
    pub seed: u64,
    /// How long there are faults, in seconds of the world.
    pub seconds: u64,
    /// Number of control nodes.
    pub nodes: usize,
    /// Number of edge hosts with agents.
    pub hosts: usize,
    /// What travels between nodes and agents.
    pub wire: Wire,
    /// Kinds of trouble.
    pub faults: Faults,
    /// A bug to plant.
    pub plant: Option<Plant>,
    /// File for the trace.
    pub trace: Option<PathBuf>,
}

impl Settings {
    /// The usual sizes: 3 control nodes, 50 edge hosts, 30 seconds of all faults.
    pub fn of_seed(seed: u64) -> Self {
        let (wire, faults, plant, trace) = (Wire::Messages, Faults::ALL, None, None);
        Self { seed, seconds: 30, nodes: 3, hosts: 50, wire, faults, plant, trace }
    }
}

/// What travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Messages, without HTTP/2: for volume.
    Messages,
    /// Byte streams below real gRPC.
    Bytes,
}

impl Wire {
    /// The wire's word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Bytes => "bytes",
        }
    }
}

impl FromStr for Wire {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = [Self::Messages, Self::Bytes].into_iter().find(|wire| wire.as_str() == text);
        found.ok_or_else(|| format!("a wire is messages or bytes, not {text:?}"))
    }
}

/// A bug planted in the world, to show that it is caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Users read a node's state as it is and take it for up to date.
    StaleReads,
    /// After a power cut of all nodes their disks are as they were some time before.
    OldDisks,
    /// Half of what the disks of control nodes say is durable is not.
    LyingDisks,
    /// Guards do not hear of the lease: their jobs go on when it is over.
    DeafGuards,
}

impl Plant {
    /// Every plant.
    pub const ALL: [Self; 4] =
        [Self::StaleReads, Self::OldDisks, Self::LyingDisks, Self::DeafGuards];

    /// The plant's word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StaleReads => "stale-reads",
            Self::OldDisks => "old-disks",
            Self::LyingDisks => "lying-disks",
            Self::DeafGuards => "deaf-guards",
        }
    }
}

impl fmt::Display for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Plant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|plant| plant.as_str() == text);
        found.ok_or_else(|| format!("ring b has no plant called {text:?}"))
    }
}

/// How long leases last in this world, in ms: shorter than usual, so that more of them end, and long
/// enough for the longest grace of a job, between two renewals too.
const TTL_MS: u64 = 12_000;

/// A disk without errors: syncs take 0.1 to 2 ms, and one in a thousand stalls.
pub(super) fn disk(seed: u64) -> SimulatedDiskConfig {
    SimulatedDiskConfig {
        seed,
        sync_us: (100, 2_000),
        stalls_per_million: 1_000,
        stall_ms: (10, 150),
        ..SimulatedDiskConfig::default()
    }
}

/// The settings of a control node: small files and few entries between snapshots, so that segments,
/// snapshots and purges are everyday things.
pub(super) fn node() -> node::Config {
    let lease = node::LeaseConfig { ttl_ms: TTL_MS, renew_every_ms: 3_000, grace_ms: 3_000 };
    let raft = consensus::Config {
        snapshot_every_entries: 300,
        log_keep_entries: 100,
        hash_check_entries: 16,
        node_lost_ms: 3_000,
        ..consensus::Config::default()
    };
    let log = LogConfig { segment_bytes: 64 << 10, ..LogConfig::new() };
    let actors = actors::Config { sweep_ms: 30_000, ..actors::Config::new() };
    node::Config { lease, raft, log, actors, ..node::Config::default() }
}
