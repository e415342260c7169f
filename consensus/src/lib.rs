//! The replicated ledger: the only room that knows Raft.
//!
//! Other rooms see the [`Ledger`] trait: propose a command, read the state, watch revisions. Every
//! node applies the same log of commands through `model::State::apply`; a node whose disk or codec
//! fails stops instead of diverging. Nothing here decides anything about the domain.
//!
//! A proposal goes `raft_ledger` -> `forward` (to the leader) -> `queue` (one entry for all that
//! wait) -> Raft over `log_store` and `network` -> `machine` on every node -> `keep` (stored) and
//! `publish` (readers, watchers) -> the answer.
//!
//! Reading order: [`Ledger`], [`MemoryLedger`], `entry`, `publish`, then the path above.

#![deny(clippy::wildcard_enum_match_arm)]

mod attentive;
mod ballots;
mod config;
mod core;
mod duty;
mod entry;
mod error;
mod forward;
mod hand_over;
mod herald;
mod inspect;
mod jury;
mod keep;
mod leases;
mod ledger;
mod log_store;
mod machine;
mod membership;
mod memory_ledger;
mod network;
mod planted;
mod promise;
mod publish;
mod purge;
mod queue;
mod raft_ledger;
mod reads;
mod rows;
mod service;
mod snapshot;
mod snapshot_files;
mod steward;
mod transport;
mod types;
mod wire;

#[cfg(test)]
mod tests;

pub use config::{BadConfig, Config};
pub use error::{Error, MemberRefusal, StopReason, WatchError};
pub use inspect::{LedgerReport, LogReport, SnapshotReport, StoreReport, inspect};
pub use keep::JournalRow;
pub use leases::{Leases, Support};
pub use ledger::{Leadership, Ledger, Proposal, WatchEvent};
pub use membership::{Member, MemberChange};
pub use memory_ledger::MemoryLedger;
pub use planted::PlantedBug;
pub use promise::Promise;
pub use publish::WatchStream;
pub use raft_ledger::{Foundation, LedgerStatus, RaftLedger, StartError};
pub use service::{PeerService, ServiceError};
pub use transport::grpc::GrpcTransport;
pub use transport::{Lane, Method, Target, Transport, TransportError};
pub use types::Peer;
