//! What other rooms see of an applied entry: the state, the newest revision, and events for
//! watchers.
//!
//! The state stands behind a std lock that is never held across an await. Events live in a bounded
//! ring; a watcher keeps only its position, so a slow one costs nothing and is cut when the ring
//! has moved past it. Older events come from the journal ([`History`]) while a watcher catches up.

use crate::{WatchError, WatchEvent};
use model::{Revision, State};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, RwLock},
};
use tokio::sync::watch;

/// Past events, below the ring.
pub(crate) trait History: Send + Sync + 'static {
    /// Up to `max` events above `after`, in order. Empty if the next one is not there.
    fn page(&self, after: Revision, max: usize) -> Result<Vec<WatchEvent>, storage::Fault>;

    /// The oldest revision kept, if any is.
    fn oldest(&self) -> Option<Revision>;
}

/// Bounds of the ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingLimits {
    pub(crate) events_max: usize,
    pub(crate) changes_max: usize,
}

#[derive(Default)]
struct Ring {
    events: VecDeque<WatchEvent>,
    changes: usize,
    /// Revision before the first event.
    base: Revision,
}

/// Shared by the machine that writes and everybody who reads.
pub(crate) struct Published {
    state: RwLock<State>,
    ring: Mutex<Ring>,
    limits: RingLimits,
    applied: watch::Sender<Revision>,
    history: Option<Arc<dyn History>>,
}

impl Published {
    pub(crate) fn new(
        state: State,
        limits: RingLimits,
        history: Option<Arc<dyn History>>,
    ) -> Arc<Self> {
        let revision = state.globals.revision;
        Arc::new(Self {
            ring: Mutex::new(Ring { base: revision, ..Ring::default() }),
            state: RwLock::new(state),
            limits,
            applied: watch::Sender::new(revision),
            history,
        })
    }

    pub(crate) fn read<R>(&self, reader: impl FnOnce(&State) -> R) -> R {
        reader(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn write<R>(&self, writer: impl FnOnce(&mut State) -> R) -> R {
        writer(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Events of newly applied revisions, in order, and then the news that they are applied.
    pub(crate) fn publish(&self, events: Vec<WatchEvent>) {
        let Some(last) = events.last().map(|event| event.revision) else { return };
        {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            for event in events {
                ring.changes += event.changes.len();
                ring.events.push_back(event);
            }
            while ring.events.len() > self.limits.events_max
                || (ring.changes > self.limits.changes_max && ring.events.len() > 1)
            {
                let Some(gone) = ring.events.pop_front() else { break };
                ring.changes -= gone.changes.len();
                ring.base = gone.revision;
            }
        }
        self.applied.send_replace(last);
    }

    /// The state was replaced as a whole: there are no events for what happened in between.
    pub(crate) fn reset(&self, state: State) {
        let revision = state.globals.revision;
        self.write(|current| *current = state);
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        *ring = Ring { base: revision, ..Ring::default() };
        drop(ring);
        self.applied.send_replace(revision);
    }

    pub(crate) fn applied(&self) -> watch::Receiver<Revision> {
        self.applied.subscribe()
    }

    pub(crate) fn watch(self: &Arc<Self>, after: Revision) -> Result<WatchStream, WatchError> {
        let base = self.ring.lock().unwrap_or_else(PoisonError::into_inner).base;
        let live = after >= base;
        if !live {
            let kept = self.history.as_ref().and_then(|history| history.oldest());
            let oldest = kept.map_or(base.next(), |kept| kept.min(base.next()));
            if after.next() < oldest {
                return Err(WatchError::Compacted { oldest });
            }
        }
        Ok(WatchStream {
            published: Arc::downgrade(self),
            applied: self.applied.subscribe(),
            after,
            live,
            buffer: VecDeque::new(),
            ended: false,
        })
    }

    /// Events of the ring above `after`, at most `max`; `None` if the ring begins later.
    fn recent(&self, after: Revision, max: usize) -> Option<Vec<WatchEvent>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if after < ring.base {
            return None;
        }
        // Revisions in the ring are consecutive: the position follows from the number.
        let skip = usize::try_from(after.0 - ring.base.0).unwrap_or(usize::MAX);
        Some(ring.events.iter().skip(skip).take(max).cloned().collect())
    }
}

/// Events in order. Pull it with [`WatchStream::next`], or turn it into a `Stream`.
pub struct WatchStream {
    published: std::sync::Weak<Published>,
    applied: watch::Receiver<Revision>,
    after: Revision,
    /// Whether the ring has been reached: from then on, falling out of it ends the watch.
    live: bool,
    buffer: VecDeque<WatchEvent>,
    ended: bool,
}

/// Events taken from ring or journal at once.
const PAGE_EVENTS: usize = 64;

impl WatchStream {
    /// The next event; waits for it. An error ends the watch; `None` after that, and when the
    /// ledger is gone. Safe to drop while waiting.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, WatchError>> {
        while !self.ended {
            if let Some(event) = self.buffer.pop_front() {
                self.after = event.revision;
                return Some(Ok(event));
            }
            self.applied.mark_unchanged();
            match self.fill() {
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                Ok(true) => {}
                Ok(false) => {
                    if self.applied.changed().await.is_err() {
                        self.ended = true;
                    }
                }
            }
        }
        None
    }

    /// The next event, if it is there by now: for whoever learns from `Ledger::applied` when to look. An
    /// error ends the watch.
    pub fn try_next(&mut self) -> Option<Result<WatchEvent, WatchError>> {
        if self.ended {
            return None;
        }
        if self.buffer.is_empty()
            && let Err(error) = self.fill()
        {
            self.ended = true;
            return Some(Err(error));
        }
        let event = self.buffer.pop_front()?;
        self.after = event.revision;
        Some(Ok(event))
    }

    /// The last revision handed out, to resume from.
    pub fn position(&self) -> Revision {
        self.after
    }

    /// The same as a `Stream`.
    pub fn into_stream(
        self,
    ) -> impl futures::Stream<Item = Result<WatchEvent, WatchError>> + Send + 'static {
        futures::stream::unfold(self, |mut watch| async move {
            watch.next().await.map(|item| (item, watch))
        })
    }

    /// Whether events were put into the buffer.
    fn fill(&mut self) -> Result<bool, WatchError> {
        let Some(published) = self.published.upgrade() else { return Err(WatchError::Stopped) };
        if let Some(events) = published.recent(self.after, PAGE_EVENTS) {
            self.live = true;
            self.buffer.extend(events);
            return Ok(!self.buffer.is_empty());
        }
        if self.live {
            return Err(WatchError::Lagged { resume_revision: self.after });
        }
        let Some(history) = &published.history else {
            return Err(WatchError::Lagged { resume_revision: self.after });
        };
        let events = history.page(self.after, PAGE_EVENTS).map_err(|fault| {
            tracing::error!(%fault, "cannot read the journal for a watch");
            WatchError::Stopped
        })?;
        if events.first().map(|event| event.revision) != Some(self.after.next()) {
            return Err(WatchError::Lagged { resume_revision: self.after });
        }
        self.buffer.extend(events);
        Ok(true)
    }
}
