//! All settings of one control node, in one place: this room's own and those of the rooms below.
//!
//! They come from a TOML file, then from the environment (`MUSTER_<SECTION>__<KEY>`), then from flags
//! (`section.key=value`); the later wins. A key that nobody knows is an error, and so is a value that
//! cannot work. [`Config::to_toml`] prints what came of it: the same text is a valid file.

pub mod foreign;
mod sessions;
mod source;

pub use sessions::SessionsConfig;
pub use source::{load, to_toml};

use serde::{Deserialize, Serialize};
use std::{io, path::PathBuf};

/// Prefix of environment variables that set a key.
const ENV_PREFIX: &str = "MUSTER_";
/// Prefix of those that set a key of an agent.
pub const AGENT_ENV_PREFIX: &str = "MUSTER_AGENT_";

/// Settings of one control node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where this node keeps its data and is reached.
    pub node: NodeConfig,
    /// Bounds on what callers may ask for.
    pub server: ServerConfig,
    /// Leases of hosts.
    pub lease: LeaseConfig,
    /// Sessions of agents.
    pub sessions: SessionsConfig,
    /// Images.
    pub artifacts: crate::ArtifactsConfig,
    /// Pages of lists.
    pub pages: PagesConfig,
    /// Watches.
    pub watch: WatchConfig,
    /// Connections of clients and agents.
    #[serde(with = "foreign::Wire")]
    pub client_wire: api::fabric::WireConfig,
    /// Connections between control nodes.
    #[serde(with = "foreign::Wire")]
    pub peer_wire: api::fabric::WireConfig,
    /// Handshakes of both ports.
    #[serde(with = "foreign::Accept")]
    pub accept: api::fabric::AcceptConfig,
    /// TCP.
    #[serde(with = "foreign::Tcp")]
    pub tcp: api::TcpConfig,
    /// The replicated ledger.
    pub raft: consensus::Config,
    /// The Raft log.
    #[serde(with = "foreign::Log")]
    pub log: storage::log::LogConfig,
    /// Threads for the Raft log and small files.
    #[serde(with = "foreign::Disk")]
    pub disk: storage::disk::real::RealDiskConfig,
    /// Threads for images and snapshots: others, so that no vote waits behind an upload.
    #[serde(with = "foreign::Disk")]
    pub bulk_disk: storage::disk::real::RealDiskConfig,
    /// What is materialised from the log.
    pub kv: KvConfig,
    /// The reconcilers.
    #[serde(with = "foreign::Actors")]
    pub actors: actors::Config,
    /// How long certificates live.
    #[serde(with = "foreign::Certificates")]
    pub certificates: identity::Config,
}

/// Where a node keeps its data and is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Data folder.
    pub data: PathBuf,
    /// `host:port` to listen on for clients and agents; port 0 takes a free one.
    pub client_addr: String,
    /// `host:port` to listen on for control nodes; port 0 takes a free one.
    pub peer_addr: String,
    /// `host:port` at which clients reach it; empty: where it listens.
    pub advertise_client: String,
    /// `host:port` at which control nodes reach it; empty: where it listens.
    pub advertise_peer: String,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            data: PathBuf::from("muster-data"),
            client_addr: "127.0.0.1:7400".to_owned(),
            peer_addr: "127.0.0.1:7401".to_owned(),
            advertise_client: String::new(),
            advertise_peer: String::new(),
        }
    }
}

/// Bounds on what callers may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Longest a call may take, in ms; calls that ask for less get less. Streams are exempt.
    pub call_timeout_ms: u64,
    /// Connections at a time on the client port; one more is closed at once.
    pub client_connections_max: usize,
    /// Connections at a time on the peer port; one more is closed at once.
    pub peer_connections_max: usize,
    /// Calls of operators and newcomers at a time over all connections of a port; one more is refused. A
    /// stream counts until it begins. All calls share one thread: more of them than it ends within a
    /// fraction of a second make each wait for all others, past the time their callers have.
    pub calls_max: usize,
    /// The same of agents and control nodes.
    pub agent_calls_max: usize,
    /// How often it is judged again whether the caller of a stream may still have it, while nothing is
    /// streamed, in ms.
    pub judge_ms: u64,
    /// Validity of a join token that names none, in ms.
    pub token_ttl_ms: u64,
    /// Longest validity of a join token, in ms.
    pub token_ttl_max_ms: u64,
    /// Time for a graceful stop before open connections are cut, in ms.
    pub stop_ms: u64,
    /// Pause between two tries to join, in ms.
    pub join_retry_ms: u64,
    /// Time for one try to join, in ms: catching up takes that long at most before it is asked again.
    pub join_ms: u64,
    /// Time for the other control nodes to say how they are, or what is in them, when somebody asks for
    /// all of them, in ms.
    pub status_ms: u64,
    /// Time that a read waits for the revision it asks for, in ms; clients then ask another node.
    pub at_least_ms: u64,
    /// Most entries an answer of `Inspect` holds.
    pub inspect_entries_max: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            call_timeout_ms: 10_000,
            client_connections_max: 16_384,
            peer_connections_max: 256,
            calls_max: 256,
            agent_calls_max: 32_768,
            judge_ms: 1_000,
            token_ttl_ms: 24 * 60 * 60 * 1_000,
            token_ttl_max_ms: 30 * 24 * 60 * 60 * 1_000,
            stop_ms: 5_000,
            join_retry_ms: 500,
            join_ms: 30_000,
            status_ms: 1_000,
            at_least_ms: 2_000,
            inspect_entries_max: 10_000,
        }
    }
}

/// Leases of hosts. All control nodes must agree; agents learn them at the start of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseConfig {
    /// How long a lease holds after the renewal it answers, in ms.
    pub ttl_ms: u64,
    /// How often an agent renews, in ms; 0 means a quarter of the TTL.
    pub renew_every_ms: u64,
    /// How long after its last lease a host is held for lost, in ms; 0 means a quarter of the TTL.
    pub grace_ms: u64,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self { ttl_ms: 20_000, renew_every_ms: 0, grace_ms: 0 }
    }
}

impl LeaseConfig {
    /// How often an agent renews, in ms: 5 s with the default TTL.
    pub fn renew_every_ms(&self) -> u64 {
        if self.renew_every_ms == 0 { self.ttl_ms / 4 } else { self.renew_every_ms }
    }

    /// How long after its last lease a host is held for lost, in ms: 5 s with the default TTL.
    pub fn grace_ms(&self) -> u64 {
        if self.grace_ms == 0 { self.ttl_ms / 4 } else { self.grace_ms }
    }
}

/// Pages of lists. Their default and largest size are part of the API: 50 and 500.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PagesConfig {
    /// Revisions of which a fork is kept, so that the next page is of the same revision.
    pub forks_max: usize,
    /// How long a fork is kept after its last page, in ms.
    pub fork_ms: u64,
}

impl Default for PagesConfig {
    fn default() -> Self {
        Self { forks_max: 64, fork_ms: 60_000 }
    }
}

/// Watches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchConfig {
    /// Watches at a time; one more is refused.
    pub watches_max: usize,
    /// Events waiting for a watcher that reads slowly; a revision with more of them has the queue to
    /// itself.
    pub queue_events_max: usize,
    /// A bookmark comes after so long without an event that passed the filter, in ms.
    pub bookmark_ms: u64,
    /// A watcher that takes nothing for so long is cut, in ms.
    pub send_ms: u64,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self { watches_max: 16_384, queue_events_max: 64, bookmark_ms: 10_000, send_ms: 30_000 }
    }
}

/// What is materialised from the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KvConfig {
    /// Memory for cached pages, in bytes.
    pub cache_bytes: u64,
    /// Callers that may wait for a sync.
    pub sync_waiters_max: usize,
    /// Stores set aside that are kept for inspection.
    pub aside_max: usize,
    /// Milliseconds to wait for the lock of the directory.
    pub lock_wait_ms: u64,
}

impl Default for KvConfig {
    fn default() -> Self {
        Self { cache_bytes: 16 << 20, sync_waiters_max: 4_096, aside_max: 1, lock_wait_ms: 2_000 }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("could not read configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file, a variable or a flag is no TOML, names an unknown key or has a value of another kind.
    #[error("could not understand {place}: {problem}")]
    Malformed {
        /// Where: the file's path, the variable's name or the flag.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// A value cannot work.
    #[error("setting {setting} is refused: {reason}")]
    Refused {
        /// The key, such as `server.calls_max`.
        setting: String,
        /// Why.
        reason: String,
    },
}

impl Config {
    /// Reads the file, if one is named, the environment and the flags, each `(section.key, value)`;
    /// the later wins.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(
        file: Option<&std::path::Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        // An agent on the same machine has its own.
        let env = env.into_iter().filter(|(name, _)| !name.starts_with(AGENT_ENV_PREFIX));
        let config: Self = load(ENV_PREFIX, file, env, flags)?;
        config.validate()?;
        Ok(config)
    }

    /// The configuration as a file.
    pub fn to_toml(&self) -> String {
        to_toml(self)
    }

    /// Checks what can be checked without starting.
    ///
    /// # Errors
    /// [`ConfigError::Refused`], for the first setting that cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.raft
            .validate()
            .map_err(|bad| refused(&format!("raft.{}", bad.setting), &bad.reason))?;
        let positive = [
            ("server.call_timeout_ms", self.server.call_timeout_ms),
            ("server.client_connections_max", self.server.client_connections_max as u64),
            ("server.peer_connections_max", self.server.peer_connections_max as u64),
            ("server.calls_max", self.server.calls_max as u64),
            ("server.agent_calls_max", self.server.agent_calls_max as u64),
            ("server.judge_ms", self.server.judge_ms),
            ("server.token_ttl_ms", self.server.token_ttl_ms),
            ("server.join_ms", self.server.join_ms),
            ("server.join_retry_ms", self.server.join_retry_ms),
            ("server.status_ms", self.server.status_ms),
            ("server.at_least_ms", self.server.at_least_ms),
            ("artifacts.sweep_ms", self.artifacts.sweep_ms),
            ("artifacts.push_ms", self.artifacts.push_ms),
            ("artifacts.ask_ms", self.artifacts.ask_ms),
            ("artifacts.stall_ms", self.artifacts.stall_ms),
            ("artifacts.finish_ms", self.artifacts.finish_ms),
            ("artifacts.uploads_max", self.artifacts.uploads_max as u64),
            ("artifacts.downloads_max", self.artifacts.downloads_max as u64),
            ("pages.forks_max", self.pages.forks_max as u64),
            ("watch.watches_max", self.watch.watches_max as u64),
            ("watch.queue_events_max", self.watch.queue_events_max as u64),
            ("watch.bookmark_ms", self.watch.bookmark_ms),
            ("sessions.sessions_max", self.sessions.sessions_max as u64),
            ("sessions.hello_ms", self.sessions.hello_ms),
            ("sessions.send_ms", self.sessions.send_ms),
            ("sessions.propose_ms", self.sessions.propose_ms),
            ("sessions.sweep_ms", self.sessions.sweep_ms),
            ("accept.handshakes_max", self.accept.handshakes_max as u64),
            ("accept.handshake_timeout_ms", self.accept.handshake_timeout_ms),
            ("tcp.accept_pause_ms", self.tcp.accept_pause_ms),
        ];
        if let Some((setting, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(refused(setting, "it must be above 0"));
        }
        if self.lease.ttl_ms < 4 || self.lease.renew_every_ms() * 2 > self.lease.ttl_ms {
            return Err(refused("lease.ttl_ms", "a lease must outlast two renewals"));
        }
        if self.server.token_ttl_ms > self.server.token_ttl_max_ms {
            return Err(refused("server.token_ttl_ms", "it must not exceed token_ttl_max_ms"));
        }
        Ok(())
    }
}

fn refused(setting: &str, reason: &str) -> ConfigError {
    ConfigError::Refused { setting: setting.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_later_source_wins_and_other_variables_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("muster.toml");
        std::fs::write(&file, "[lease]\nttl_ms = 1000\n[server]\ncalls_max = 7\n").unwrap();
        let env =
            pairs(&[("MUSTER_LEASE__TTL_MS", "2000"), ("MUSTER_IDENTITY", "x"), ("HOME", "/")]);
        let flags = pairs(&[("node.client_addr", "127.0.0.1:0"), ("node.data", "17")]);
        let config = Config::load(Some(&file), env, flags).unwrap();
        assert_eq!(config.lease.ttl_ms, 2_000);
        assert_eq!(config.server.calls_max, 7);
        assert_eq!(config.node.client_addr, "127.0.0.1:0");
        assert_eq!(config.node.data, PathBuf::from("17"));
    }

    #[test]
    fn an_unknown_key_a_bad_value_and_an_impossible_one_are_errors() {
        let load = |key: &str, value: &str| Config::load(None, [], pairs(&[(key, value)]));
        for (key, value) in [
            ("lease.ttl", "1"),
            ("leases.ttl_ms", "1"),
            ("actors.sweeps_ms", "1"),
            ("lease.ttl_ms", "soon"),
            ("lease", "1"),
            ("server.calls_max", "0"),
            ("raft.heartbeat_ms", "0"),
        ] {
            assert!(load(key, value).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn what_is_printed_is_a_valid_file_with_the_same_content() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("muster.toml");
        let flags = pairs(&[("actors.sweep_ms", "4711"), ("peer_wire.streams_max", "9")]);
        let config = Config::load(None, [], flags).unwrap();
        std::fs::write(&file, config.to_toml()).unwrap();
        let again = Config::load(Some(&file), [], []).unwrap();
        assert_eq!(again.to_toml(), config.to_toml());
        assert!(config.to_toml().contains("sweep_ms = 4711"));
    }
}
