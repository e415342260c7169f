//! Stories told on purpose, in the same world as the seeds and under the same oracles, with nobody
//! else in it: those of specification 6.13 that ring A can tell.
//!
//! Each gives what happened, or the first thing that went another way. What a seed found is told again
//! here.

mod stage;
mod stories;

pub use stories::{
    a_node_nobody_can_call_grants_no_lease, a_stopped_rollout_keeps_no_host, s2_a_host_appears,
    s3_a_host_dies, s7_a_link_is_down,
};
