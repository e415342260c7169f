//! When a call is made again: the one place that says so.
//!
//! | the answer | what it means | a read, or a change under a request id | a change without one |
//! |---|---|---|---|
//! | a result | done | - | - |
//! | a refusal with a code of its own | it stays refused | never | never |
//! | `NO_LEADER`, `NOT_LEADER`, `STOPPED`, `REVISION_NOT_REACHED`, no connection | certainly not done | next node | next node |
//! | `OVERLOADED` | certainly not done | next node, after a pause | next node, after a pause |
//! | `UNKNOWN_OUTCOME`, a connection that broke, no answer in time | nobody knows | next node, same id | never |
//!
//! Every try of one call carries the same request id, so that the cluster carries it out once and gives
//! the first answer again. Pauses double from [`PAUSE_MIN`] to [`PAUSE_MAX`] and are jittered by a hash of
//! the call and the try, so that clients that were refused together do not come back together. A pause
//! comes when all nodes were tried once, or at once after `OVERLOADED`. All of it ends at the deadline of
//! the call. What is said then is the worst that is true: if any try of a change may have been carried
//! out, its outcome is unknown, whatever came after.

use api::{
    reason::{OVERLOADED, UNKNOWN_OUTCOME},
    status::ClientError,
};
use std::{error::Error, time::Duration};
use tonic::{Code, ConnectError, Status};

/// Shortest pause before a repeat, before jitter.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(50);

/// Longest pause before a repeat, before jitter.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What repeating a call would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It reads.
    Read,
    /// It changes something, under a request id: a repeat is answered as the first try was.
    Named,
    /// It changes something each time.
    Unnamed,
}

/// What an error says of the try it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The answer stays the same.
    Refused,
    /// Certainly not done; another node, or the same one later, may do it.
    NotDone,
    /// The same, for there was too much to do.
    Overloaded,
    /// Perhaps done.
    Unknown,
}

impl Verdict {
    pub(crate) fn of(status: &Status) -> Self {
        let error = ClientError::from(status.clone());
        if error.reason == OVERLOADED {
            return Self::Overloaded;
        }
        match (error.reason.as_str(), error.is_worth_repeating()) {
            ("", true) if was_not_sent(status) => Self::NotDone,
            ("", true) => Self::Unknown,
            // A connection that breaks under a call.
            ("", false) if broke(status) => Self::Unknown,
            (UNKNOWN_OUTCOME, _) => Self::Unknown,
            (_, true) if error.certainly_not_done => Self::NotDone,
            (_, true) => Self::Unknown,
            (_, false) => Self::Refused,
        }
    }

    /// Whether a try with this answer may be followed by another one.
    pub(crate) fn may_repeat(self, effect: Effect) -> bool {
        match self {
            Self::Refused => false,
            Self::NotDone | Self::Overloaded => true,
            Self::Unknown => effect != Effect::Unnamed,
        }
    }
}

/// Whether there was no connection to send the call on.
fn was_not_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether the connection ended under the call: such errors have no reason of ours.
fn broke(status: &Status) -> bool {
    match status.code() {
        Code::Unknown => true,
        Code::Internal => status.message().starts_with("h2 protocol error"),
        _ => false,
    }
}

/// The pauses of one call.
pub(crate) struct Backoff {
    seed: u64,
    attempt: u32,
}

impl Backoff {
    /// `seed` tells calls and clients apart.
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, attempt: 0 }
    }

    /// The next pause: between half of the doubled one and all of it.
    pub(crate) fn pause(&mut self) -> Duration {
        let whole = PAUSE_MIN.saturating_mul(1 << self.attempt.min(16)).min(PAUSE_MAX);
        let bytes = [self.seed.to_le_bytes(), u64::from(self.attempt).to_le_bytes()].concat();
        self.attempt += 1;
        let part = u32::try_from(hash(&bytes) % 1_024).unwrap_or(0);
        whole / 2 + whole * part / 2_048
    }
}

/// FNV-1a with a last mixing: jitter needs no more.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mixed = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::status;

    #[test]
    fn only_what_is_certainly_not_done_is_repeated_without_a_request_id() {
        let refused = api::status::rejected(&api::reason::bad_field("name", "bad", "mend it"));
        let cases = [
            (refused, Verdict::Refused),
            (status::host_not_connected(), Verdict::Refused),
            (status::unavailable_not_leader(None), Verdict::NotDone),
            (status::stopped(), Verdict::NotDone),
            (status::overloaded(), Verdict::Overloaded),
            (status::unknown_outcome(), Verdict::Unknown),
            (Status::unavailable("the connection broke"), Verdict::Unknown),
            (Status::unknown("transport error"), Verdict::Unknown),
            (Status::internal("h2 protocol error: reset"), Verdict::Unknown),
            (Status::internal("a fault"), Verdict::Refused),
            (Status::deadline_exceeded("late"), Verdict::Unknown),
            (Status::cancelled("late"), Verdict::Unknown),
            (Status::from_error(Box::new(ConnectError("no route".into()))), Verdict::NotDone),
        ];
        for (status, expected) in cases {
            let verdict = Verdict::of(&status);
            assert_eq!(verdict, expected, "{status:?}");
            let again = [Effect::Read, Effect::Named, Effect::Unnamed]
                .map(|effect| verdict.may_repeat(effect));
            let unknown = verdict == Verdict::Unknown;
            let repeated = verdict != Verdict::Refused;
            assert_eq!(again, [repeated, repeated, repeated && !unknown], "{status:?}");
        }
    }

    #[test]
    fn pauses_double_to_a_bound_and_differ_from_call_to_call() {
        let mut spread = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let mut backoff = Backoff::new(seed);
            let mut whole = PAUSE_MIN;
            for _ in 0..12 {
                let pause = backoff.pause();
                assert!(pause >= whole / 2 && pause <= whole, "{pause:?} of {whole:?}");
                whole = (whole * 2).min(PAUSE_MAX);
            }
            spread.insert(backoff.pause());
            let again: Vec<_> = (0..3).map(|_| Backoff::new(seed).pause()).collect();
            assert!(again.windows(2).all(|two| two[0] == two[1]), "the same call pauses alike");
        }
        assert!(spread.len() > 48, "{} pauses of 64 differ", spread.len());
    }
}
