//! Supervised reconcilers: the actors that plan and propose for what a control node owns.
//!
//! ```text
//! root                      one per control node; reads the watch, starts and stops what it owns
//! └── tenant                one per tenant of which this node owns something
//!     └── cluster           one per cluster this node owns: actualize, place, evict, settle
//!         └── partition     one per job whose scheduled and current halves differ, for that long
//! ```
//!
//! Ownership is a rendezvous hash over the control nodes that the state says are alive
//! ([`ownership`]). Two owners for a moment are harmless: actors are optimistic proposers, `decide`
//! refuses what is stale. They are woken by "revision 41 touched cluster c", but never read the event:
//! they read the state, plan with the pure planner, propose and sleep. A jittered sweep finds what a
//! lost wake missed. Nothing is handed over when ownership moves, because nothing is inherited.
//!
//! This is the only room that knows ractor.

mod board;
mod cluster;
mod config;
mod mailbox;
pub mod ownership;
mod partition;
mod reconcile;
mod root;
mod route;
mod supervise;
mod tenant;
mod warden;

#[cfg(test)]
mod tests;

pub use board::{ActorStatus, Board};
pub use config::Config;
pub use warden::Actors;
