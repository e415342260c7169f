//! Lists in pages, all of one revision.
//!
//! The first page of a list forks the state and keeps the fork under its revision; the token of the next
//! page names the revision and the last row shown. A fork is kept for a while and as long as there is
//! room. A node that keeps none, because it lost it or another node began the list, forks again if its
//! state is still of that revision; else the page is refused, and the list begins anew. Forks share their
//! rows, so each costs what changed since.

use crate::{PagesConfig, refusal};
use api::page::{After, Page as Asked, encode};
use model::{Key, Revision, State};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tonic::Status;

/// Forks by revision, for pages to come. Clones share them.
#[derive(Clone)]
pub(crate) struct Pages {
    config: PagesConfig,
    forks: Arc<Mutex<BTreeMap<Revision, Fork>>>,
}

struct Fork {
    state: State,
    until: Instant,
}

/// What is asked of a list.
pub(crate) struct Wanted<'a> {
    /// Rows wanted; 0 is the default.
    pub(crate) size: i32,
    /// Token of the page before; empty for the first.
    pub(crate) token: &'a str,
    /// Everything that decides which rows are in the list: a token is good for the same only.
    pub(crate) filter: String,
}

/// A page: rows, the token of the next one, and the revision of all.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) rows: Vec<T>,
    pub(crate) next: String,
    pub(crate) revision: u64,
}

/// Where a page begins: a fork, and the last row shown.
pub(crate) struct Start {
    state: State,
    after: Option<Key>,
    rows: usize,
    filter: String,
}

impl Start {
    /// The state all pages are of.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// The last row of the page before.
    pub(crate) fn after(&self) -> Option<&Key> {
        self.after.as_ref()
    }
}

impl Pages {
    pub(crate) fn new(config: PagesConfig) -> Self {
        Self { config, forks: Arc::default() }
    }

    /// The fork that a token names; `None` for the first page: see [`Pages::first`]. `again` forks
    /// the state as it is now, if it is of the revision that it is given.
    ///
    /// # Errors
    /// OUT_OF_RANGE `PAGE_EXPIRED`; INVALID_ARGUMENT for a token that is none of ours.
    pub(crate) fn resume(
        &self,
        wanted: &Wanted<'_>,
        again: impl FnOnce(Revision) -> Option<State>,
    ) -> Result<Option<Start>, Status> {
        let Asked { size: rows, after } = read(wanted)?;
        let Some(After { revision, resource }) = after else { return Ok(None) };
        let after = api::resource::parse("page_token", &resource)
            .map_err(|rejection| refusal::of_rejection(&rejection))?;
        let state = match self.kept(revision) {
            Some(state) => state,
            None => {
                let state = again(revision).ok_or_else(|| refusal::page_expired(revision))?;
                self.keep(state.clone());
                state
            }
        };
        Ok(Some(Start { state, after: Some(after), rows, filter: wanted.filter.clone() }))
    }

    /// The fork of a revision, which is kept for longer because it is in use.
    fn kept(&self, revision: Revision) -> Option<State> {
        let mut forks = self.forks.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        forks.retain(|_, fork| fork.until > now);
        let fork = forks.get_mut(&revision)?;
        fork.until = now + Duration::from_millis(self.config.fork_ms);
        Some(fork.state.clone())
    }

    /// Begins a list on a fork of the state.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for an impossible number of rows.
    pub(crate) fn first(&self, wanted: &Wanted<'_>, state: State) -> Result<Start, Status> {
        let rows = read(wanted)?.size;
        Ok(Start { state, after: None, rows, filter: wanted.filter.clone() })
    }

    /// Makes the page of `rows`, which come in order and begin after [`Start::after`].
    pub(crate) fn page<T>(&self, start: &Start, rows: impl Iterator<Item = (Key, T)>) -> Page<T> {
        let mut rows = rows.fuse();
        let page: Vec<(Key, T)> = rows.by_ref().take(start.rows).collect();
        let revision = start.state.globals.revision;
        let last = page.last().and_then(|(key, _)| api::resource::format(key));
        let next = match (rows.next(), last) {
            (Some(_more), Some(resource)) => encode(&After { revision, resource }, &start.filter),
            _ => String::new(),
        };
        if !next.is_empty() && start.after.is_none() {
            self.keep(start.state.clone());
        }
        let rows = page.into_iter().map(|(_, row)| row).collect();
        Page { rows, next, revision: revision.0 }
    }

    /// Keeps a fork, and lets go of the one that was longest without use when there are too many.
    fn keep(&self, state: State) {
        let mut forks = self.forks.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now() + Duration::from_millis(self.config.fork_ms);
        forks.insert(state.globals.revision, Fork { state, until });
        while forks.len() > self.config.forks_max {
            let oldest = forks.iter().min_by_key(|(_, fork)| fork.until);
            let Some(revision) = oldest.map(|(revision, _)| *revision) else { return };
            forks.remove(&revision);
        }
    }
}

fn read(wanted: &Wanted<'_>) -> Result<Asked, Status> {
    Asked::read(wanted.size, wanted.token, &wanted.filter)
        .map_err(|rejection| refusal::of_rejection(&rejection))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Name;
    use tonic::Code;

    fn key(name: &str) -> Key {
        Key::Tenant(Name::new(name).unwrap())
    }

    fn list(start: &Start) -> impl Iterator<Item = (Key, String)> + use<> {
        let after = start.after().cloned();
        let names = ["a", "b", "c", "d", "e"].into_iter().map(key);
        names.filter(move |key| Some(key) > after.as_ref()).map(|key| {
            let name = api::resource::format(&key).unwrap();
            (key, name)
        })
    }

    fn wanted<'a>(token: &'a str, filter: &str) -> Wanted<'a> {
        Wanted { size: 2, token, filter: filter.to_owned() }
    }

    fn state_at(revision: u64) -> State {
        let mut state = State::default();
        state.globals.revision = Revision(revision);
        state
    }

    /// The state has gone on.
    fn gone(_: Revision) -> Option<State> {
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_did_not_begin_a_list_goes_on_with_it_at_the_same_revision_only() {
        let config = PagesConfig { forks_max: 2, fork_ms: 1_000 };
        let (began, other) = (Pages::new(config.clone()), Pages::new(config));
        let start = began.first(&wanted("", "x"), state_at(7)).unwrap();
        let token = began.page(&start, list(&start)).next;
        let at = |now: u64| move |asked| (asked == Revision(now)).then(|| state_at(now));
        let expired = other.resume(&wanted(&token, "x"), at(8)).map(|_| ()).unwrap_err();
        assert_eq!(expired.code(), Code::OutOfRange);
        let start = other.resume(&wanted(&token, "x"), at(7)).unwrap().unwrap();
        let second = other.page(&start, list(&start));
        assert_eq!(
            (second.rows, second.revision),
            (vec!["tenants/c".into(), "tenants/d".into()], 7)
        );
        // Now it has a fork of its own, and its state may go on.
        let start = other.resume(&wanted(&second.next, "x"), at(9)).unwrap().unwrap();
        assert_eq!(other.page(&start, list(&start)).rows, ["tenants/e"]);
    }

    #[tokio::test(start_paused = true)]
    async fn pages_are_of_one_revision_until_they_expire() {
        let pages = Pages::new(PagesConfig { forks_max: 2, fork_ms: 1_000 });
        let start = pages.first(&wanted("", "x"), state_at(7)).unwrap();
        let first = pages.page(&start, list(&start));
        assert_eq!((first.rows.len(), first.revision), (2, 7));

        assert!(pages.resume(&wanted(&first.next, "y"), gone).is_err(), "another list's token");
        let start = pages.resume(&wanted(&first.next, "x"), gone).unwrap().unwrap();
        let second = pages.page(&start, list(&start));
        assert_eq!(second.rows, ["tenants/c", "tenants/d"]);
        assert_eq!(second.revision, 7);
        let start = pages.resume(&wanted(&second.next, "x"), gone).unwrap().unwrap();
        let third = pages.page(&start, list(&start));
        assert_eq!((third.rows.len(), third.next.as_str()), (1, ""));

        tokio::time::advance(Duration::from_millis(1_001)).await;
        let expired = pages.resume(&wanted(&second.next, "x"), gone).map(|_| ()).unwrap_err();
        assert_eq!(expired.code(), Code::OutOfRange);
    }

    #[tokio::test(start_paused = true)]
    async fn the_fork_longest_without_use_goes_first() {
        let pages = Pages::new(PagesConfig { forks_max: 2, fork_ms: 1_000 });
        let mut tokens = Vec::new();
        for revision in 1..=3 {
            let start = pages.first(&wanted("", "x"), state_at(revision)).unwrap();
            tokens.push(pages.page(&start, list(&start)).next);
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        let known: Vec<_> =
            tokens.iter().map(|token| pages.resume(&wanted(token, "x"), gone).is_ok()).collect();
        assert_eq!(known, [false, true, true]);
    }
}
