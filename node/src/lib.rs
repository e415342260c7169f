//! What runs in one control node: the composition root, as a library.
//!
//! Reading order: [`Config`], [`Shared`] (what services share), `access` (the one place that lets a call
//! through), `service` (one file per gRPC service), `ports` (what is mounted where), [`serve`]
//! (everything that runs, top down), `bootstrap`, `join` and `membership` (how a node gets its identity
//! and its place).

mod access;
mod artifacts;
mod bootstrap;
mod clock;
pub mod config;
mod folders;
mod freshness;
mod inspect;
mod join;
mod local;
mod members;
mod membership;
mod page;
mod passport;
mod peers;
mod ports;
pub mod refusal;
mod serve;
mod service;
mod sessions;
mod shared;
mod shutdown;
mod telemetry;
#[cfg(test)]
mod testing;
mod wire;

pub use access::Granted;
pub use artifacts::ArtifactsConfig;
pub use bootstrap::bootstrap;
pub use clock::SystemClock;
pub use config::{
    Config, ConfigError, KvConfig, LeaseConfig, NodeConfig, PagesConfig, ServerConfig,
    SessionsConfig, WatchConfig,
};
pub use folders::Folders;
pub use inspect::{FolderReport, InspectError, inspect};
pub use join::{JoinError, Ticket};
pub use local::LocalPort;
pub use members::{Alone, Members, RaftMembers};
pub use passport::{NodeFile, Passport, PassportError};
pub use peers::Peers;
pub use ports::Listener;
pub use serve::{Begin, Node, Seams, ServeError, serve};
pub use shared::Shared;
pub use shutdown::asked_by_signal;
pub use telemetry::{LOG_VARIABLE, LogFormat, TelemetryError, start_logs};
