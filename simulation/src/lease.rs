//! The host's lease as its agent counts it: from the moment each renewal was sent.
//!
//! The rules of `agent::lease`, which is private to the agent: only a grant extends it, only to the
//! sending of the renewal it answers plus what was granted, and a grant counts once.

use agent::reconcile::Lease;
use std::collections::VecDeque;

/// Renewals that may be unanswered.
const RENEWALS_MAX: usize = 32;

/// Counts the lease.
#[derive(Debug, Default)]
pub(crate) struct LeaseCount {
    until: Option<u64>,
    sent: VecDeque<(u64, u64)>,
}

impl LeaseCount {
    /// A new session: what was sent in the one before is not answered any more.
    pub(crate) fn begin_session(&mut self) {
        self.sent.clear();
    }

    /// A renewal is about to be sent.
    pub(crate) fn sent(&mut self, sequence: u64, at_boot_ms: u64) {
        self.sent.push_back((sequence, at_boot_ms));
        while self.sent.len() > RENEWALS_MAX {
            self.sent.pop_front();
        }
    }

    /// A renewal was granted: the new deadline, if it is later than the one in force.
    pub(crate) fn granted(&mut self, sequence: u64, ttl_ms: u64) -> Option<u64> {
        let (_, sent_at) = *self.sent.iter().find(|(number, _)| *number == sequence)?;
        self.sent.retain(|(number, _)| *number > sequence);
        let until = sent_at.saturating_add(ttl_ms);
        if self.until.is_some_and(|before| before >= until) {
            return None;
        }
        self.until = Some(until);
        Some(until)
    }

    /// The lease at a moment.
    pub(crate) fn at(&self, now_boot_ms: u64) -> Lease {
        match self.until {
            None => Lease::Never,
            Some(until_boot_ms) if until_boot_ms > now_boot_ms => Lease::Alive { until_boot_ms },
            Some(_) => Lease::Expired,
        }
    }
}
