//! An agent acts only on what is on its disk: at the seam, before a step leaves it.

use super::Found;
use crate::edge::Agent;

/// Nothing the agent remembers is still unsynced.
pub(super) fn is_on_disk(agent: &Agent) -> Found {
    match agent.unsynced {
        0 => Ok(()),
        records => Err(format!("a step begins while {records} records are not on disk")),
    }
}
