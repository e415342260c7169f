//! Oracles that look at every node all the time: equal states at equal revisions, and a watch that misses
//! nothing.
//!
//! Each life of a node has three observers. What one of them sees is compared with what any other saw,
//! in this life or before, on this node or elsewhere: replayed from the log, loaded from the store or
//! installed from a snapshot, a revision has one state and one event.

use super::book::Book;
use consensus::{Ledger as _, RaftLedger, WatchError, WatchEvent};
use model::{NodeId, Revision, State};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::task::JoinHandle;

#[derive(Default)]
struct Seen {
    /// State hash by revision.
    states: BTreeMap<Revision, u128>,
    /// Digest of the event by revision.
    events: BTreeMap<Revision, u32>,
    /// Who led in which term. Raft as it is used here orders leaders by term and node: a term may have
    /// several, one after the other.
    leaders: BTreeSet<(u64, NodeId)>,
}

/// The observers of all nodes. Clones compare with the same.
#[derive(Clone)]
pub(super) struct Observers {
    seen: Arc<Mutex<Seen>>,
    book: Book,
}

/// Up to where a node's watcher has seen everything.
#[derive(Clone, Default)]
pub(super) struct Watched(Arc<Mutex<Option<Revision>>>);

impl Watched {
    fn get(&self) -> Option<Revision> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, revision: Revision) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(revision);
    }
}

impl Observers {
    pub(super) fn new(book: Book) -> Self {
        Self { seen: Arc::default(), book }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Observes a ledger until the tasks are aborted.
    pub(super) fn observe(&self, ledger: &RaftLedger, watched: &Watched) -> Vec<JoinHandle<()>> {
        vec![
            tokio::spawn(self.clone().states(ledger.clone())),
            tokio::spawn(self.clone().leaders(ledger.clone())),
            tokio::spawn(self.clone().watch(ledger.clone(), watched.clone())),
        ]
    }

    async fn states(self, ledger: RaftLedger) {
        let mut applied = ledger.applied();
        loop {
            let (revision, hash) = ledger.read(|state| (state.globals.revision, state.hash()));
            self.judge_state(ledger.node_id(), revision, hash);
            if applied.changed().await.is_err() {
                return;
            }
        }
    }

    /// Compares a state with all states of its revision.
    pub(super) fn judge_state(&self, node: NodeId, revision: Revision, hash: u128) {
        let first = *self.seen().states.entry(revision).or_insert(hash);
        self.book.count(|figures| figures.revisions = figures.revisions.max(revision.0));
        if first != hash {
            let detail = format!(
                "node {node} has {hash:032x} at revision {revision}, before it was {first:032x}"
            );
            self.book.fail("replicas", detail);
        }
    }

    /// The newest revision of which a state was seen.
    pub(super) fn newest(&self) -> Revision {
        self.seen().states.last_key_value().map_or(Revision(0), |(revision, _)| *revision)
    }

    async fn leaders(self, ledger: RaftLedger) {
        let (mut leadership, me) = (ledger.leadership(), ledger.node_id());
        loop {
            let now = *leadership.borrow_and_update();
            if now.is_leader {
                let count = {
                    let mut seen = self.seen();
                    seen.leaders.insert((now.term, me));
                    seen.leaders.len() as u64
                };
                self.book.count(|figures| figures.leaders = count);
            }
            if leadership.changed().await.is_err() {
                return;
            }
        }
    }

    /// Watches from where it was, and from what the state holds where that is not kept any more.
    async fn watch(self, ledger: RaftLedger, watched: Watched) {
        loop {
            let now = ledger.read(|state: &State| state.globals.revision);
            let mut after = watched.get().unwrap_or(Revision(0));
            let mut events = match ledger.watch(after) {
                Ok(events) => events,
                Err(WatchError::Compacted { oldest }) => {
                    // Said in so many words; then what was missed is in the state.
                    if oldest.0 <= after.0 {
                        let detail = format!("{after} is compacted, and {oldest} is kept");
                        self.book.fail("watch", detail);
                    }
                    watched.set(now.max(after));
                    tokio::task::yield_now().await;
                    continue;
                }
                Err(WatchError::Lagged { .. }) => continue,
                Err(WatchError::Stopped) => return,
            };
            loop {
                match events.next().await {
                    Some(Ok(event)) => {
                        self.book.judge("watch", self.follows(&mut after, &event));
                        watched.set(after);
                    }
                    Some(Err(WatchError::Lagged { resume_revision }))
                        if resume_revision == after =>
                    {
                        tokio::task::yield_now().await;
                        break;
                    }
                    Some(Err(WatchError::Stopped)) | None => return,
                    Some(Err(error)) => return self.book.fail("watch", error.to_string()),
                }
            }
        }
    }

    /// In order, none missing, none twice, and the same as anybody else saw.
    fn follows(&self, after: &mut Revision, event: &WatchEvent) -> Result<(), String> {
        let revision = event.revision;
        if revision != after.next() {
            return Err(format!("revision {revision} came after {after}"));
        }
        *after = revision;
        let said = (event.revision, event.time, &event.caller, &event.changes[..]);
        let bytes = storage::codec::encode(&said).map_err(|fault| fault.to_string())?;
        let digest = super::wire::hash(&bytes);
        let first = *self.seen().events.entry(revision).or_insert(digest);
        self.book.count(|figures| figures.watched += 1);
        match first == digest {
            true => Ok(()),
            false => Err(format!("revision {revision} has two events")),
        }
    }
}
