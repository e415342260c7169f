//! A history of reads and writes of registers, and whether it can have happened one after the other.
//!
//! Every answered call names the revision it was at, and the whole cluster counts revisions in one
//! order. So nothing has to be searched: the calls, sorted by revision, are the only order there can
//! be, and they are linearizable exactly when that order contradicts neither time (a call that ended
//! before another began is not after it) nor what was read (each read has the value that was written
//! at the revision it names). A lost write shows as a read that goes back; a stale read too.
//!
//! That asks more than a checker that searches for an order (Wing and Gong's algorithm, which the crates
//! for it have): such a one is content with any order that fits the values, this one only with the order
//! that the cluster says it was, and over all registers at once for writes. It takes n log n steps where a
//! search may take exponentially many, so that hours can be checked whole. A write that nobody knows the
//! fate of may be at any revision or none, but not at two.
//!
//! `watched` judges what watchers were sent.

mod watched;

pub use watched::{Seen, Stream, Watched, What, check_watched};

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// What a call was and what it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// A value was written, at this revision.
    Wrote(String, u64),
    /// A value was to be written; nobody knows whether it was.
    Attempted(String),
    /// A value was to be written, and certainly was not.
    Refused(String),
    /// This value was read, of this revision; none of a register that does not exist.
    Read(Option<(String, u64)>),
}

/// One call on one register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The register.
    pub key: String,
    /// When it was made, in a clock that all callers share.
    pub began: u64,
    /// When it was answered.
    pub ended: u64,
    /// What it was.
    pub done: Done,
}

impl Call {
    fn revision(&self) -> Option<u64> {
        match &self.done {
            Done::Wrote(_, revision) => Some(*revision),
            Done::Read(found) => Some(found.as_ref().map_or(0, |(_, revision)| *revision)),
            Done::Attempted(_) | Done::Refused(_) => None,
        }
    }
}

/// What cannot have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly(pub String);

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks a whole history. Values are written once each, by whoever makes the history.
///
/// # Errors
/// The first thing that cannot have happened.
pub fn check(calls: &[Call]) -> Result<(), Anomaly> {
    let mut by_key: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        by_key.entry(&call.key).or_default().push(call);
    }
    for (key, calls) in by_key {
        values(key, &calls)?;
        times(key, &calls)?;
    }
    let writes: Vec<&Call> =
        calls.iter().filter(|call| matches!(call.done, Done::Wrote(..))).collect();
    times("all writes", &writes)
}

/// Each revision has one value, each value that was read was written or attempted, and each is at one
/// revision only.
fn values(key: &str, calls: &[&Call]) -> Result<(), Anomaly> {
    let mut at: BTreeMap<u64, &str> = BTreeMap::new();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    let mut places: BTreeMap<&str, u64> = BTreeMap::new();
    for call in calls {
        match &call.done {
            Done::Wrote(value, revision) => {
                known.insert(value);
                if let Some(other) = at.insert(*revision, value).filter(|other| other != value) {
                    return Err(Anomaly(format!("{key}: {other} and {value} at {revision}")));
                }
                places.insert(value, *revision);
            }
            Done::Attempted(value) => {
                known.insert(value);
            }
            Done::Read(_) | Done::Refused(_) => {}
        }
    }
    for call in calls {
        let Done::Read(Some((value, revision))) = &call.done else { continue };
        if !known.contains(value.as_str()) {
            return Err(Anomaly(format!("{key}: {value} was read and never written")));
        }
        if let Some(other) = at.insert(*revision, value).filter(|other| other != value) {
            return Err(Anomaly(format!("{key}: {other} and {value} at {revision}")));
        }
        let place = *places.entry(value).or_insert(*revision);
        if place != *revision {
            let text = format!("{key}: {value} was written once and is at {place} and {revision}");
            return Err(Anomaly(text));
        }
    }
    Ok(())
}

/// No call has an older revision than one that ended before it began; a write has a newer one.
fn times(key: &str, calls: &[&Call]) -> Result<(), Anomaly> {
    let answered = |call: &&&Call| call.revision().is_some();
    let mut begun: Vec<&Call> = calls.iter().filter(answered).copied().collect();
    let mut ended = begun.clone();
    begun.sort_by_key(|call| call.began);
    ended.sort_by_key(|call| call.ended);
    let mut ended = ended.into_iter().peekable();
    let mut newest: Option<&Call> = None;
    for call in begun {
        while let Some(before) = ended.next_if(|before| before.ended < call.began) {
            if newest.is_none_or(|newest| newest.revision() < before.revision()) {
                newest = Some(before);
            }
        }
        let Some(newest) = newest else { continue };
        let backwards = match call.done {
            Done::Wrote(..) => call.revision() <= newest.revision(),
            Done::Read(_) | Done::Attempted(_) | Done::Refused(_) => {
                call.revision() < newest.revision()
            }
        };
        if backwards {
            return Err(Anomaly(format!("{key}: {call:?} came after {newest:?}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(began: u64, ended: u64, done: Done) -> Call {
        Call { key: "k".to_owned(), began, ended, done }
    }

    fn wrote(value: &str, revision: u64) -> Done {
        Done::Wrote(value.to_owned(), revision)
    }

    fn read(value: &str, revision: u64) -> Done {
        Done::Read(Some((value.to_owned(), revision)))
    }

    #[test]
    fn calls_at_once_may_come_in_either_order() {
        let history = [
            call(0, 1, Done::Read(None)),
            call(2, 9, wrote("a", 5)),
            call(3, 8, wrote("b", 4)),
            call(4, 5, read("b", 4)),
            call(10, 11, read("a", 5)),
        ];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn a_lost_write_and_a_stale_read_are_found() {
        let lost = [call(0, 1, wrote("a", 4)), call(2, 3, wrote("b", 5)), call(4, 5, read("a", 4))];
        assert!(check(&lost).is_err());
        let gone = [call(0, 1, wrote("a", 4)), call(2, 3, Done::Read(None))];
        assert!(check(&gone).is_err());
        let twice = [call(0, 1, wrote("a", 4)), call(2, 3, wrote("b", 4))];
        assert!(check(&twice).is_err());
        let back = [call(0, 1, read("b", 5)), call(2, 3, read("a", 4))];
        let written = [call(0, 9, Done::Attempted("a".into())), call(0, 9, wrote("b", 5))];
        assert!(check(&[&back[..], &written[..]].concat()).is_err());
        let invented = [call(0, 1, read("x", 4))];
        assert!(check(&invented).is_err());
    }

    #[test]
    fn an_attempt_may_have_happened_late_or_never() {
        let attempt = call(0, 1, Done::Attempted("a".to_owned()));
        assert_eq!(check(&[attempt.clone(), call(2, 3, Done::Read(None))]), Ok(()));
        assert_eq!(
            check(&[attempt, call(2, 3, Done::Read(None)), call(4, 5, read("a", 7))]),
            Ok(())
        );
    }

    #[test]
    fn what_was_refused_does_not_happen() {
        let refused = call(0, 1, Done::Refused("a".to_owned()));
        assert!(check(&[refused, call(2, 3, read("a", 5))]).is_err());
    }

    #[test]
    fn nothing_happens_twice() {
        let attempt = call(0, 1, Done::Attempted("a".to_owned()));
        assert!(check(&[attempt, call(2, 3, read("a", 5)), call(4, 5, read("a", 7))]).is_err());
    }

    #[test]
    fn writes_of_different_registers_keep_their_order_too() {
        let other = Call { key: "l".to_owned(), ..call(2, 3, wrote("b", 4)) };
        assert!(check(&[call(0, 1, wrote("a", 5)), other.clone()]).is_err());
        assert_eq!(check(&[call(0, 2, wrote("a", 5)), other]), Ok(()));
    }
}
