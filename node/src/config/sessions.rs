//! Settings of the sessions of agents.

use serde::{Deserialize, Serialize};

/// Sessions of agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionsConfig {
    /// Sessions at a time; one more is refused.
    pub sessions_max: usize,
    /// Longest wait for an agent's first message, in ms.
    pub hello_ms: u64,
    /// Messages waiting for an agent.
    pub queue_messages_max: usize,
    /// An agent that takes nothing for so long is cut, in ms.
    pub send_ms: u64,
    /// Longest wait for one proposal on an agent's behalf, in ms.
    pub propose_ms: u64,
    /// Messages with reports that wait for the log; an agent that sends one more is cut.
    pub reports_waiting_max: usize,
    /// Logs read at a time; one more is refused.
    pub logs_max: usize,
    /// Parts of a log that wait for its reader; one that is slower is cut.
    pub log_parts_max: usize,
    /// How often contacts that nobody holds are looked for, and failed proposals repeated, in ms.
    pub sweep_ms: u64,
}

impl Default for SessionsConfig {
    fn default() -> Self {
        Self {
            sessions_max: 16_384,
            hello_ms: 5_000,
            queue_messages_max: 64,
            send_ms: 10_000,
            propose_ms: 10_000,
            reports_waiting_max: 4,
            logs_max: 64,
            log_parts_max: 64,
            sweep_ms: 500,
        }
    }
}
