//! Lists in pages, all of one revision.
//!
//! The first page of a list forks the state and keeps the fork under its revision; the token of the next
//! page names the revision and the last row shown. A fork is kept for a while and as long as there is
//! room: a page of one that has gone is refused, and the list begins anew. Forks share their rows, so
//! each costs what changed since.

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

    /// The fork that a token names; `None` for the first page: see [`Pages::first`].
    ///
    /// # Errors
    /// OUT_OF_RANGE `PAGE_EXPIRED`; INVALID_ARGUMENT for a token that is none of ours.
    pub(crate) fn resume(&self, wanted: &Wanted<'_>) -> Result<Option<Start>, Status> {
        let Asked { size: rows, after } = read(wanted)?;
        let Some(After { revision, resource }) = after else { return Ok(None) };
        let after = api::resource::parse("page_token", &resource)
            .map_err(|rejection| refusal::of_rejection(&rejection))?;
        let mut forks = self.forks.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        forks.retain(|_, fork| fork.until > now);
        let fork = forks.get_mut(&revision).ok_or_else(|| refusal::page_expired(revision))?;
        fork.until = now + Duration::from_millis(self.config.fork_ms);
        let state = fork.state.clone();
        Ok(Some(Start { state, after: Some(after), rows, filter: wanted.filter.clone() }))
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

    #[tokio::test(start_paused = true)]
    async fn pages_are_of_one_revision_until_they_expire() {
        let pages = Pages::new(PagesConfig { forks_max: 2, fork_ms: 1_000 });
        let start = pages.first(&wanted("", "x"), state_at(7)).unwrap();
        let first = pages.page(&start, list(&start));
        assert_eq!((first.rows.len(), first.revision), (2, 7));

        assert!(pages.resume(&wanted(&first.next, "y")).is_err(), "another list's token");
        let start = pages.resume(&wanted(&first.next, "x")).unwrap().unwrap();
        let second = pages.page(&start, list(&start));
        assert_eq!(second.rows, ["tenants/c", "tenants/d"]);
        assert_eq!(second.revision, 7);
        let start = pages.resume(&wanted(&second.next, "x")).unwrap().unwrap();
        let third = pages.page(&start, list(&start));
        assert_eq!((third.rows.len(), third.next.as_str()), (1, ""));

        tokio::time::advance(Duration::from_millis(1_001)).await;
        let gone = pages.resume(&wanted(&second.next, "x")).map(|_| ()).unwrap_err();
        assert_eq!(gone.code(), Code::OutOfRange);
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
            tokens.iter().map(|token| pages.resume(&wanted(token, "x")).is_ok()).collect();
        assert_eq!(known, [false, true, true]);
    }
}
