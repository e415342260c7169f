//! What a run writes down: its trace, its figures, and the first rule that was broken.

use super::trace::Trace;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// Which oracle found it.
    pub oracle: String,
    /// What it found.
    pub detail: String,
    /// When, in the world's ms.
    pub at_ms: u64,
}

/// What happened, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Messages between control nodes.
    pub messages: u64,
    /// Of them, those that were lost or held.
    pub lost: u64,
    /// Faults.
    pub faults: u64,
    /// Starts of control nodes.
    pub starts: u64,
    /// Leaders elected.
    pub leaders: u64,
    /// Acknowledged requests of users.
    pub acknowledged: u64,
    /// Linearizable reads that were answered.
    pub reads: u64,
    /// Revisions that watchers saw.
    pub watched: u64,
    /// Newest revision.
    pub revisions: u64,
    /// Sessions that agents opened.
    pub sessions: u64,
    /// Jobs that ran when all had come right.
    pub running: u64,
    /// How long it took to come right when the faults were over, in the world's ms.
    pub healed_ms: u64,
}

impl Figures {
    /// Sums, for many seeds.
    pub fn add(&mut self, more: &Self) {
        self.messages += more.messages;
        self.lost += more.lost;
        self.faults += more.faults;
        self.starts += more.starts;
        self.leaders += more.leaders;
        self.acknowledged += more.acknowledged;
        self.reads += more.reads;
        self.watched += more.watched;
        self.revisions += more.revisions;
        self.sessions += more.sessions;
        self.running += more.running;
        self.healed_ms = self.healed_ms.max(more.healed_ms);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "messages {} ({} lost), faults {}, starts of nodes {}, leaders {}, revisions {}, acknowledged \
             {}, reads {}, watched {}, sessions {}, jobs running {}, slowest to heal {} ms",
            self.messages,
            self.lost,
            self.faults,
            self.starts,
            self.leaders,
            self.revisions,
            self.acknowledged,
            self.reads,
            self.watched,
            self.sessions,
            self.running,
            self.healed_ms,
        )
    }
}

#[derive(Default)]
struct Inner {
    figures: Figures,
    broken: Option<Broken>,
}

/// The book. Clones write in the same one.
#[derive(Clone)]
pub(super) struct Book {
    inner: Arc<Mutex<Inner>>,
    pub(super) trace: Trace,
    pub(super) began: Instant,
}

impl Book {
    pub(super) fn new(trace: Trace) -> Self {
        Self { inner: Arc::default(), trace, began: Instant::now() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the world has been there.
    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Adds a line to the trace.
    pub(super) fn line(&self, text: fmt::Arguments<'_>) {
        self.trace.line(text);
    }

    /// Notes figures.
    pub(super) fn count(&self, count: impl FnOnce(&mut Figures)) {
        count(&mut self.inner().figures);
    }

    pub(super) fn figures(&self) -> Figures {
        self.inner().figures
    }

    /// A rule is broken; only the first counts.
    pub(super) fn fail(&self, oracle: &str, detail: String) {
        let mut inner = self.inner();
        if inner.broken.is_none() {
            self.trace.line(format_args!("BROKEN {oracle}: {detail}"));
            let at_ms = u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX);
            inner.broken = Some(Broken { oracle: oracle.to_owned(), detail, at_ms });
        }
    }

    /// Notes what a rule found.
    pub(super) fn judge(&self, oracle: &str, found: Result<(), String>) {
        if let Err(detail) = found {
            self.fail(oracle, detail);
        }
    }

    pub(super) fn broken(&self) -> Option<Broken> {
        self.inner().broken.clone()
    }

    pub(super) fn is_broken(&self) -> bool {
        self.inner().broken.is_some()
    }
}
