//! (5) When all is as asked, nothing is written: no planner, agent or duty goes on by itself.

use super::{Found, Oracles};
use crate::ledger::Log;
use model::Command;

/// Since this entry only time did anything.
pub(super) fn kept(log: &Log, oracles: &Oracles, since: usize) -> Found {
    for (index, entry) in log.committed.iter().enumerate().take(oracles.seen.len()).skip(since) {
        let refused = matches!(oracles.seen.get(index), Some((_, it)) if it.result.is_err());
        let allowed = match *entry.command {
            // An owner whose clock is ahead of the leader's proposes it until it is time.
            Command::Settle { .. } => true,
            // The agent of a host that is not trusted or not known asks again and again.
            Command::ConnectHost { .. } => refused,
            _ => false,
        };
        if !allowed {
            return Err(format!("all was as asked, and then came {:?}", entry.command));
        }
    }
    Ok(())
}
