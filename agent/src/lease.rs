//! The host's lease as the agent counts it: from the moment each renewal was sent.
//!
//! Only a grant extends it, and only to the sending of the renewal it answers plus what was granted. A
//! new session takes over what the one before was granted: the deadline is the host's, not the link's.

use std::collections::VecDeque;

use crate::reconcile::Lease;

/// Renewals that may be unanswered; older ones are forgotten.
const RENEWALS_MAX: usize = 32;

/// Counts the lease.
#[derive(Debug)]
pub(crate) struct LeaseCount {
    lease: Lease,
    /// Renewals of the session in force by sequence, each with when it was sent.
    sent: VecDeque<(u64, u64)>,
}

impl LeaseCount {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { lease: Lease::Never, sent: VecDeque::new() }
    }

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
        let until_boot_ms = sent_at.saturating_add(ttl_ms);
        match self.lease {
            Lease::Alive { until_boot_ms: before } if before >= until_boot_ms => None,
            _ => {
                self.lease = Lease::Alive { until_boot_ms };
                Some(until_boot_ms)
            }
        }
    }

    /// The lease at a moment.
    pub(crate) fn at(&mut self, now_boot_ms: u64) -> Lease {
        if let Lease::Alive { until_boot_ms } = self.lease
            && until_boot_ms <= now_boot_ms
        {
            self.lease = Lease::Expired;
        }
        self.lease
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_counted_from_when_its_renewal_was_sent() {
        let mut count = LeaseCount::new();
        assert_eq!(count.at(5), Lease::Never);
        count.sent(1, 1_000);
        count.sent(2, 2_000);
        assert_eq!(count.granted(1, 500), Some(1_500));
        assert_eq!(count.at(1_499), Lease::Alive { until_boot_ms: 1_500 });
        assert_eq!(count.at(1_500), Lease::Expired);
        assert_eq!(count.granted(2, 500), Some(2_500));
        assert_eq!(count.granted(2, 9_000), None, "a grant counts once");
    }

    #[test]
    fn grants_of_an_earlier_session_or_earlier_deadlines_count_for_nothing() {
        let mut count = LeaseCount::new();
        count.sent(1, 1_000);
        count.begin_session();
        assert_eq!(count.granted(1, 500), None);
        count.sent(1, 3_000);
        assert_eq!(count.granted(1, 500), Some(3_500));
        count.sent(2, 3_100);
        assert_eq!(count.granted(2, 100), None, "the deadline in force is later");
    }
}
