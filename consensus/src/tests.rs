//! Tests of the whole room: a cluster on simulated disks and a wire in memory, in virtual time.

mod cluster;
mod conformance;
mod diverging;
mod leasing;
mod life;
mod log_suite;
mod membership;
mod over_grpc;
mod power;
mod reading;
mod rules;
mod watching;
pub(crate) mod world;

pub(crate) use world::TestClock;
