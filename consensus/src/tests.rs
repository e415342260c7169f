//! Tests of the whole room: a cluster on simulated disks and a wire in memory, in virtual time.

mod cluster;
mod conformance;
mod leasing;
mod log_suite;
mod membership;
mod over_grpc;
mod power;
mod watching;
mod world;
