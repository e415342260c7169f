//! Whole clusters for tests: real processes of the real binary, on loopback, in a temporary folder.
//!
//! Everything waits for a condition with a deadline, never for a length of time. Whatever was
//! started is stopped, by pid, when its handle is dropped, guards and jobs included.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failing harness fails its test")]

mod cluster;
mod faults;
pub mod history;
mod load;
mod network;
pub mod operator;
pub mod power;
mod preload;
mod process;
mod ticks;
mod wait;
mod writers;

pub use cluster::{Agent, Cluster, Node, Settings, number};
pub use faults::{DiskError, Faults};
pub use load::{Load, Told};
pub use network::Network;
pub use operator::{Change, Operator};
pub use process::{Answer, Process};
pub use ticks::{Overlap, Ticks};
pub use wait::{until, until_some};
pub use writers::{Attempt, Writers, now_ns, tenants};
