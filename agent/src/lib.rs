//! The edge side of muster: the agent, the guards its jobs run under, and the drivers.
//!
//! Read `driver` first (the contract), then `guard` (the process that owns one job), `reconcile` and
//! `memory` (what an agent does next and must not forget, both pure), then `run` (the agent itself) with
//! `stream`, `executor`, `standing`, `images`, `report` and `logs` around it, `here` (an agent on a real machine) and
//! `local` (what works without a link). `discover` says what a host is made of.

pub mod cgroup;
pub mod config;
pub mod discover;
pub mod driver;
pub mod enrol;
mod executor;
pub mod guard;
pub mod here;
pub mod images;
mod lease;
mod leftovers;
pub mod local;
mod logs;
pub mod memory;
pub mod naming;
pub mod reconcile;
mod report;
mod run;
pub mod servers;
mod standing;
mod stream;

pub use config::{
    Capacity, Config, GuardsConfig, LeftoversConfig, LogSendConfig, SessionConfig, WorkConfig,
};
pub use enrol::Ticket;
pub use here::run_here;
pub use run::{Parts, RunError, run};
pub use servers::Servers;
