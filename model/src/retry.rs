//! When to try again: one backoff for everybody who retries.
//!
//! 1 s, doubled up to 60 s, and after ten attempts every ten minutes: never silent, never hot. The
//! spread of ten percent either way is a hash of who retries and of the attempt, so that a
//! thousand jobs that failed together do not come back together, and a replay does the same again.

use crate::{Current, JobKey, Phase, Timestamp};

/// Delay after the first failed attempt.
pub const FIRST_MS: u64 = 1_000;
/// Longest delay while the attempts last.
pub const LONGEST_MS: u64 = 60_000;
/// Attempts made at the quick cadence.
pub const QUICK_ATTEMPTS_MAX: u32 = crate::limits::RETRY_ATTEMPTS;
/// Delay once they are used up.
pub const SLOW_MS: u64 = 600_000;

/// Milliseconds to wait after the failure of attempt number `attempt` (from 1; 0 counts as 1).
/// `who` is a [`stable_hash`] of whatever retries.
pub fn next_delay_ms(who: u64, attempt: u32) -> u64 {
    let attempt = attempt.max(1);
    let base = if attempt > QUICK_ATTEMPTS_MAX {
        SLOW_MS
    } else {
        (FIRST_MS << (attempt - 1).min(16)).min(LONGEST_MS)
    };
    let spread = mix(who ^ u64::from(attempt).wrapping_mul(0x9e37_79b9_7f4a_7c15)) % (base / 5 + 1);
    base - base / 10 + spread
}

/// When the agent that reported a failed attempt tries again, on control's clock; `None` when nothing
/// failed, or nothing is tried again before somebody changes something.
pub fn next_retry_at(key: &JobKey, current: &Current) -> Option<Timestamp> {
    let error = current.error.as_deref().filter(|error| error.retryable)?;
    let waits = current.phase == Phase::Failing;
    waits.then(|| Timestamp(current.since.0 + next_delay_ms(hash_of(key), error.attempt)))
}

/// A hash of text parts that is the same in every process and every build.
pub fn stable_hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    mix(hash)
}

/// The hash of a job's identity, for [`next_delay_ms`] and for breaking ties.
pub fn hash_of(key: &JobKey) -> u64 {
    let slot = key.slot.to_string();
    stable_hash([
        key.tenant.as_str(),
        key.deployment.as_str(),
        key.cluster.as_str(),
        key.application.as_str(),
        &slot,
    ])
}

/// The last step of a good hash: every bit of the input moves every bit of the output.
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let value = (value ^ (value >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_a_minute_and_then_are_ten_minutes() {
        let expected = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 600, 600];
        for (attempt, seconds) in (1_u32..).zip(expected) {
            for who in 0..500 {
                let delay = next_delay_ms(mix(who), attempt);
                let base = seconds * 1_000;
                assert!(
                    (base * 9 / 10..=base * 11 / 10).contains(&delay),
                    "attempt {attempt} of {who} waits {delay} ms"
                );
            }
        }
    }

    #[test]
    fn jobs_that_failed_together_do_not_come_back_together() {
        let mut delays: Vec<u64> = (0..100).map(|who| next_delay_ms(mix(who), 5)).collect();
        delays.sort_unstable();
        delays.dedup();
        assert!(delays.len() > 90, "only {} different delays", delays.len());
    }

    #[test]
    fn a_copy_that_fails_for_now_says_when_it_is_tried_again() {
        let name = |text: &str| crate::Name::new(text).unwrap();
        let key = JobKey {
            tenant: name("acme"),
            deployment: name("shop"),
            cluster: name("north"),
            application: name("web"),
            slot: crate::Slot::Partition(0),
        };
        let error = crate::JobError {
            reason: "CRASHED".to_owned(),
            text: "exit status 1".to_owned(),
            retryable: true,
            attempt: 3,
        };
        let failing = Current {
            phase: Phase::Failing,
            spec_revision: crate::Revision(1),
            image: crate::Digest([1; 32]),
            order: crate::Revision(1),
            number: crate::ReportNumber::default(),
            since: Timestamp(1_000_000),
            restarts: 2,
            settled: false,
            data_left_behind: false,
            error: Some(Box::new(error.clone())),
        };
        let at = next_retry_at(&key, &failing).unwrap();
        assert_eq!(at.0, 1_000_000 + next_delay_ms(hash_of(&key), 3));
        let started = Current { phase: Phase::Starting, ..failing.clone() };
        assert_eq!(next_retry_at(&key, &started), None);
        let lasting = crate::JobError { retryable: false, ..error };
        let failed = Current { error: Some(Box::new(lasting)), ..failing };
        assert_eq!(next_retry_at(&key, &failed), None);
    }

    #[test]
    fn any_attempt_number_has_a_delay() {
        assert_eq!(next_delay_ms(7, 0), next_delay_ms(7, 1));
        assert!(next_delay_ms(7, u32::MAX) <= SLOW_MS * 11 / 10);
    }
}
