//! What watchers were sent, and whether a watch may send that: the nine promises of a watch, each by its
//! name where it is broken.
//!
//! | promise | here |
//! |---|---|
//! | ordered | a stream never goes back in revisions |
//! | unique | no change twice |
//! | atomic | the changes of one revision come together and all of them; `last` ends them |
//! | reliable | nothing that happened up to the last revision is left out |
//! | resumable | a stream that begins after a revision has all that came later, through whichever node |
//! | bookmarkable | a bookmark says that everything up to it was sent |
//! | previous | what a change says there was before is what the change before it left |
//! | created | a change is an addition exactly when there was nothing before |
//! | filtered | only what was asked for |

use super::{Anomaly, Call, Done};
use std::collections::{BTreeMap, BTreeSet};

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its revision.
    pub revision: u64,
    /// Whether it is the last of its revision.
    pub last: bool,
    /// What it says.
    pub what: What,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Everything up to its revision was sent.
    Bookmark,
    /// A register has a value.
    Change {
        /// The register.
        key: String,
        /// Its value.
        value: String,
        /// Whether it is new.
        added: bool,
        /// Value and revision that it had before.
        previous: Option<(String, u64)>,
    },
}

/// One stream, from its beginning to wherever it was left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// It was to send what came after this revision.
    pub after: u64,
    /// What it sent.
    pub seen: Vec<Seen>,
}

impl Stream {
    /// The revision up to which it has sent everything.
    pub fn whole(&self) -> u64 {
        let whole = self.seen.iter().filter(|seen| seen.last || seen.what == What::Bookmark);
        whole.map(|seen| seen.revision).fold(self.after, u64::max)
    }
}

/// What one watcher was sent, over all its streams: each began where the one before was whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// The only register it asked for; all if none.
    pub only: Option<String>,
    /// Its streams.
    pub streams: Vec<Stream>,
}

/// A change by revision and register.
type Changes<'a> = BTreeMap<(u64, &'a str), &'a Seen>;

/// Checks what a watcher was sent against what clients were answered. The first stream began after
/// revision 0, before there was any register.
///
/// # Errors
/// The first promise that is broken.
pub fn check_watched(calls: &[Call], watched: &Watched) -> Result<(), Anomaly> {
    let mut all = Changes::new();
    let mut whole = 0;
    for stream in &watched.streams {
        if stream.after != whole {
            return Err(broken(
                "resumable",
                format!("{whole} was whole, resumed at {}", stream.after),
            ));
        }
        ordered(stream)?;
        whole = stream.whole();
        add(stream, whole, &mut all)?;
    }
    filtered(watched, &all)?;
    previous(&all)?;
    reliable(calls, watched, &all, whole)?;
    known_and_together(calls, watched, &all)
}

fn broken(promise: &str, text: String) -> Anomaly {
    Anomaly(format!("watch, {promise}: {text}"))
}

/// Within one stream: in order, each once, revisions in one piece, nothing from before its beginning.
fn ordered(stream: &Stream) -> Result<(), Anomaly> {
    let mut before: Option<&Seen> = None;
    for seen in &stream.seen {
        let is_bookmark = seen.what == What::Bookmark;
        let too_old = match is_bookmark {
            true => seen.revision < stream.after,
            false => seen.revision <= stream.after,
        };
        if too_old {
            return Err(broken("resumable", format!("{seen:?} came after {}", stream.after)));
        }
        let Some(earlier) = before.replace(seen) else { continue };
        if seen.revision < earlier.revision {
            return Err(broken("ordered", format!("{seen:?} came after {earlier:?}")));
        }
        if earlier.what == What::Bookmark && !is_bookmark && seen.revision == earlier.revision {
            return Err(broken("bookmarkable", format!("{seen:?} came after {earlier:?}")));
        }
        let ends = earlier.last && earlier.what != What::Bookmark;
        if ends && !is_bookmark && seen.revision == earlier.revision {
            return Err(broken("atomic", format!("{seen:?} came after the last one, {earlier:?}")));
        }
        if !earlier.last && earlier.what != What::Bookmark && seen.revision != earlier.revision {
            return Err(broken("atomic", format!("{seen:?} came before the rest of {earlier:?}")));
        }
    }
    Ok(())
}

/// Adds the changes up to the revision that is whole; the rest is sent again.
fn add<'a>(stream: &'a Stream, whole: u64, all: &mut Changes<'a>) -> Result<(), Anomaly> {
    for seen in stream.seen.iter().filter(|seen| seen.revision <= whole) {
        let What::Change { key, .. } = &seen.what else { continue };
        if let Some(other) = all.insert((seen.revision, key), seen) {
            return Err(broken("unique", format!("{other:?} and {seen:?}")));
        }
    }
    Ok(())
}

fn filtered(watched: &Watched, all: &Changes<'_>) -> Result<(), Anomaly> {
    let Some(only) = &watched.only else { return Ok(()) };
    match all.iter().find(|((_, key), _)| key != only) {
        Some((_, seen)) => Err(broken("filtered", format!("{seen:?}, asked for {only}"))),
        None => Ok(()),
    }
}

fn previous(all: &Changes<'_>) -> Result<(), Anomaly> {
    let mut last: BTreeMap<&str, (String, u64)> = BTreeMap::new();
    for ((revision, key), seen) in all {
        let What::Change { value, added, previous, .. } = &seen.what else { continue };
        let before = last.insert(key, (value.clone(), *revision));
        if before != *previous {
            return Err(broken("previous", format!("{seen:?} came after {before:?}")));
        }
        if *added != before.is_none() {
            return Err(broken("created", format!("{seen:?} came after {before:?}")));
        }
    }
    Ok(())
}

/// Everything that a client was told of is there.
fn reliable(
    calls: &[Call],
    watched: &Watched,
    all: &Changes<'_>,
    whole: u64,
) -> Result<(), Anomaly> {
    for call in calls.iter().filter(|call| watched.only.as_ref().is_none_or(|it| *it == call.key)) {
        let (Done::Wrote(value, revision) | Done::Read(Some((value, revision)))) = &call.done
        else {
            continue;
        };
        let found = all.get(&(*revision, call.key.as_str()));
        let same = found.is_some_and(|seen| value_of(seen) == Some(value));
        if *revision <= whole && !same {
            return Err(broken(
                "reliable",
                format!("{call:?} was seen as {found:?}, up to {whole}"),
            ));
        }
    }
    Ok(())
}

fn value_of(seen: &Seen) -> Option<&String> {
    match &seen.what {
        What::Change { value, .. } => Some(value),
        What::Bookmark => None,
    }
}

/// Every value was written by somebody, at one revision, and with it whatever was written in the same
/// call.
fn known_and_together(calls: &[Call], watched: &Watched, all: &Changes<'_>) -> Result<(), Anomaly> {
    let mut written: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for call in calls {
        let (Done::Wrote(value, _) | Done::Attempted(value)) = &call.done else { continue };
        written.entry(value).or_default().insert(&call.key);
    }
    let mut places: BTreeMap<&str, u64> = BTreeMap::new();
    for ((revision, key), seen) in all {
        let Some(value) = value_of(seen) else { continue };
        let Some(keys) = written.get(value.as_str()).filter(|keys| keys.contains(key)) else {
            return Err(broken("reliable", format!("{seen:?} was never written")));
        };
        let place = *places.entry(value).or_insert(*revision);
        if place != *revision {
            return Err(broken("unique", format!("{value} is at {place} and at {revision}")));
        }
        let wanted = keys.iter().filter(|key| watched.only.as_deref().is_none_or(|it| it == **key));
        for other in wanted {
            if all.get(&(*revision, *other)).and_then(|seen| value_of(seen)) != Some(value) {
                return Err(broken("atomic", format!("{seen:?} came without that of {other}")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrote(key: &str, value: &str, revision: u64) -> Call {
        let done = Done::Wrote(value.to_owned(), revision);
        Call { key: key.to_owned(), began: revision, ended: revision, done }
    }

    fn change(key: &str, value: &str, revision: u64, previous: Option<(&str, u64)>) -> Seen {
        let previous = previous.map(|(value, revision)| (value.to_owned(), revision));
        let (key, value, added) = (key.to_owned(), value.to_owned(), previous.is_none());
        Seen { revision, last: true, what: What::Change { key, value, added, previous } }
    }

    fn bookmark(revision: u64) -> Seen {
        Seen { revision, last: true, what: What::Bookmark }
    }

    fn judge(calls: &[Call], streams: &[(u64, &[Seen])]) -> Result<(), String> {
        let stream = |(after, seen): &(u64, &[Seen])| Stream { after: *after, seen: seen.to_vec() };
        let watched = Watched { only: None, streams: streams.iter().map(stream).collect() };
        check_watched(calls, &watched).map_err(|Anomaly(text)| text)
    }

    fn breaks(promise: &str, calls: &[Call], streams: &[(u64, &[Seen])]) {
        let error = judge(calls, streams).unwrap_err();
        assert!(error.starts_with(&format!("watch, {promise}:")), "{promise}: {error}");
    }

    #[test]
    fn what_a_watch_may_send_is_accepted() {
        let calls = [wrote("k", "a", 4), wrote("k", "b", 6), wrote("l", "b", 6)];
        let (a, b) = (change("k", "a", 4, None), change("k", "b", 6, Some(("a", 4))));
        let other = change("l", "b", 6, None);
        let begun = Seen { last: false, ..b.clone() };
        let all = [a.clone(), bookmark(5), begun.clone(), other.clone(), bookmark(9)];
        assert_eq!(judge(&calls, &[(0, &all)]), Ok(()));
        assert_eq!(judge(&calls, &[(0, &all[..1])]), Ok(()), "it may be behind");
        // Left in the middle of a revision, which comes again.
        let again = [begun, other];
        assert_eq!(judge(&calls, &[(0, &all[..3]), (5, &again)]), Ok(()));
    }

    #[test]
    fn each_promise_that_is_broken_is_named() {
        let calls = [wrote("k", "a", 4), wrote("k", "b", 6)];
        let (a, b) = (change("k", "a", 4, None), change("k", "b", 6, Some(("a", 4))));
        breaks("ordered", &calls, &[(0, &[b.clone(), a.clone()])]);
        breaks("atomic", &calls, &[(0, &[a.clone(), a.clone()])]);
        let both = [a.clone(), b.clone()];
        breaks("resumable", &calls, &[(0, &both[..1]), (4, &both)]);
        breaks("resumable", &calls, &[(0, &both[..1]), (0, &both)]);
        breaks("reliable", &calls, &[(0, &[change("k", "b", 6, None)])]);
        breaks("reliable", &calls, &[(0, &[a.clone(), bookmark(7)])]);
        breaks("bookmarkable", &calls, &[(0, &[a.clone(), bookmark(6), b.clone()])]);
        breaks("previous", &calls, &[(0, &[a.clone(), change("k", "b", 6, Some(("x", 4)))])]);
        let known = Seen {
            what: What::Change { key: "k".into(), value: "a".into(), added: false, previous: None },
            ..a.clone()
        };
        breaks("created", &calls, &[(0, &[known])]);
        let unknown = change("k", "x", 5, Some(("a", 4)));
        breaks("reliable", &calls, &[(0, &[a.clone(), unknown])]);
        let begun = Seen { last: false, ..a.clone() };
        breaks("unique", &calls, &[(0, &[begun.clone(), a])]);
        breaks("atomic", &calls, &[(0, &[begun, change("k", "b", 6, Some(("a", 4)))])]);
    }

    #[test]
    fn what_was_written_together_comes_together_and_once() {
        let calls = [wrote("k", "a", 4), wrote("l", "a", 4)];
        breaks("reliable", &calls, &[(0, &[change("k", "a", 4, None)])]);
        let attempted =
            |key: &str| Call { done: Done::Attempted("a".into()), ..wrote(key, "a", 4) };
        let calls = [attempted("k"), attempted("l")];
        breaks("atomic", &calls, &[(0, &[change("k", "a", 4, None)])]);
        let twice = [change("k", "a", 4, None), change("k", "a", 5, Some(("a", 4)))];
        breaks("unique", &[attempted("k")], &[(0, &twice)]);
    }

    #[test]
    fn a_watch_of_one_register_sees_no_other() {
        let calls = [wrote("k", "a", 4), wrote("l", "b", 5)];
        let seen = vec![change("k", "a", 4, None)];
        let mut watched =
            Watched { only: Some("k".to_owned()), streams: vec![Stream { after: 0, seen }] };
        assert_eq!(check_watched(&calls, &watched), Ok(()));
        watched.streams[0].seen.push(change("l", "b", 5, None));
        assert!(check_watched(&calls, &watched).unwrap_err().0.starts_with("watch, filtered:"));
    }
}
