//! The simulation: muster's own rules, run from a seed in a world that is hostile on purpose.
//!
//! **Ring A** is sans-IO: the real `model`, `planner`, `actors::ownership`, `agent::memory` and
//! `agent::reconcile`; simulated are the replicated log, the network, clocks, machines and users. One
//! thread per seed, no runtime: whatever happens follows from the seed, so a trace can be compared byte
//! by byte and every violation prints the command that shows it again.
//!
//! **Ring B** ([`ring_b`]) is the whole house: real ledgers, actors, sessions and agents over simulated
//! disks, network and clocks, on one paused runtime, one process for each seed.
//!
//! Reading order of ring A: [`Settings`], `world` (the loop), `ledger` and `duty` (control nodes and their log),
//! `planning`, `session` (control's side of a host's link), `link`, `edge`, `steps`, `machine` (the
//! host's side), `workload` and `faults` (what is done to them), `heal` (faults off: all must come
//! right), and `oracle`, one file per invariant. `scenario` holds stories that are told on purpose.

mod dice;
mod duty;
mod edge;
mod event;
mod faults;
mod heal;
mod lease;
mod ledger;
mod link;
mod machine;
mod names;
mod network;
mod nodes;
mod oracle;
mod planning;
mod plants;
pub mod ring_b;
mod run;
pub mod scenario;
mod session;
mod settings;
mod steps;
mod trace;
mod workload;
mod world;

pub use oracle::Violation;
pub use run::{Report, run_many, run_one};
pub use settings::{Faults, Plant, Settings};
pub use world::Stats;
