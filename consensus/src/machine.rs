//! Raft's state machine: committed entries become state, journal, events and answers.
//!
//! Everything here is the same on every node, in the same order, from the same bytes. A fault stops
//! the replica: it is returned to Raft, which ends. So does an entry, or a level that it raises, by
//! rules that this build does not know. The `jury` gets the hash of the state at fixed log indexes.

use crate::{
    Config, StopReason, WatchEvent,
    entry::{self, Entry, Step},
    jury::{Applied, Jury},
    keep::{Keep, Position},
    publish::Published,
    snapshot::{self, Content, Snapshots, Stored},
    types::{Answers, LogId, RaftEntry, SnapshotMeta, StoredMembership, Types},
};
use futures::{Stream, TryStreamExt, future::BoxFuture};
use model::{NodeId, State};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot,
    alias::SnapshotOf,
    storage::{EntryResponder, RaftStateMachine},
};
use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use storage::{
    Disk, Fault,
    log::{Log, LogStatus},
};
use tokio::sync::watch;

/// [`Log`] without its type.
pub(crate) trait LogFiles: Send + Sync + 'static {
    /// Waits until the log is durable as it is.
    fn flush(&self) -> BoxFuture<'_, Result<(), Fault>>;
    /// Where it stands.
    fn status(&self) -> LogStatus;
    /// The last entry below those up to `last` that fit into `bytes_max`; `None` when all fit.
    fn last_beyond(&self, last: u64, bytes_max: u64) -> Option<u64>;
}

impl<D: Disk> LogFiles for Log<D> {
    fn flush(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(Log::flush(self))
    }

    fn status(&self) -> LogStatus {
        Log::status(self)
    }

    fn last_beyond(&self, last: u64, bytes_max: u64) -> Option<u64> {
        let first = self.first_within(last, bytes_max);
        first.checked_sub(1).filter(|beyond| *beyond >= self.first_index())
    }
}

/// What the machine shares with the ledger around it.
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) published: Arc<Published>,
    pub(crate) keep: Keep,
    pub(crate) snapshots: Arc<dyn Snapshots>,
    /// Log index of the newest applied entry.
    pub(crate) applied_index: watch::Sender<Option<u64>>,
    /// The log below Raft.
    pub(crate) log: Arc<dyn LogFiles>,
    /// Log index of the newest entry in the state that was found in the store.
    pub(crate) restored_index: OnceLock<u64>,
    jury: Mutex<Jury>,
    /// Why this replica must end, where Raft only knows that it does.
    halt: Mutex<Option<StopReason>>,
    /// Entries and bytes applied since the newest snapshot.
    pub(crate) entries_since: AtomicU64,
    pub(crate) bytes_since: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        (me, config): (NodeId, Arc<Config>),
        published: Arc<Published>,
        keep: Keep,
        (snapshots, log): (Arc<dyn Snapshots>, Arc<dyn LogFiles>),
    ) -> Arc<Self> {
        Arc::new(Self {
            log,
            config,
            published,
            keep,
            snapshots,
            applied_index: watch::Sender::new(None),
            restored_index: OnceLock::new(),
            jury: Mutex::new(Jury::new(me)),
            halt: Mutex::default(),
            entries_since: AtomicU64::new(0),
            bytes_since: AtomicU64::new(0),
        })
    }

    pub(crate) fn jury<R>(&self, f: impl FnOnce(&mut Jury) -> R) -> R {
        f(&mut self.jury.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why this replica ended, if it says so itself.
    pub(crate) fn halt_reason(&self) -> Option<StopReason> {
        self.halt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Refuses a rules level that this build does not know: it could not decide as the others do.
    fn need_rules(&self, level: u32) -> Result<(), Fault> {
        let known = self.config.rules_max;
        if level <= known {
            return Ok(());
        }
        let reason = StopReason::RulesUnknown { level, known };
        *self.halt.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        let (what, path) = ("rules of a log entry", PathBuf::new());
        Err(Fault::Version { what, path, found: level, known })
    }
}

/// The state machine. Raft owns it; the ledger sees its [`Shared`] part.
pub(crate) struct Machine {
    shared: Arc<Shared>,
    applied: Option<LogId>,
    membership: StoredMembership,
}

impl Machine {
    pub(crate) fn new(shared: Arc<Shared>, position: Position) -> Self {
        let found = position.applied.map(|id| id.index);
        shared.applied_index.send_replace(found);
        if let Some(index) = found {
            shared.restored_index.get_or_init(|| index);
        }
        shared.jury(|jury| jury.replaced(applied(&position)));
        Self { shared, applied: position.applied, membership: position.membership }
    }

    fn apply_one(&mut self, entry: RaftEntry) -> Result<Answers, Fault> {
        let index = entry.log_id.index;
        let mut steps = Vec::new();
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            EntryPayload::Normal(entry) => steps = self.apply_commands(entry)?,
        }
        self.applied = Some(entry.log_id);
        let position = self.shared.published.write(|state| {
            state.globals.applied_index = index;
            Position {
                applied: self.applied,
                membership: self.membership.clone(),
                globals: state.globals.clone(),
                hash: state.hash(),
            }
        });
        // Before it is stored: a newer build is to find the state as it was before.
        self.shared.need_rules(position.globals.rules)?;
        self.shared.keep.write(&position, &steps)?;
        if let Some(applied) = applied(&position) {
            let due = index.is_multiple_of(self.shared.config.hash_check_entries);
            let fork = due.then(|| self.shared.published.read(State::clone));
            self.shared.jury(|jury| jury.applied(applied, fork));
        }
        let answers = steps.iter().map(Step::outcome).collect();
        self.shared.published.publish(steps.into_iter().map(WatchEvent::from).collect());
        self.shared.applied_index.send_replace(Some(index));
        self.shared.entries_since.fetch_add(1, Ordering::Relaxed);
        Ok(Answers(answers))
    }

    fn apply_commands(&self, entry: Entry) -> Result<Vec<Step>, Fault> {
        let Entry::V1 { stamp, rules, hash_check: _, commands } = entry;
        self.shared.need_rules(rules)?;
        let bytes: usize = commands.iter().map(|blob| blob.0.len()).sum();
        self.shared.bytes_since.fetch_add(bytes as u64, Ordering::Relaxed);
        let commands = entry::decode(&commands)?;
        Ok(self.shared.published.write(|state| entry::apply(state, stamp, rules, commands)))
    }

    fn position(&self, state: &State) -> Position {
        Position {
            applied: self.applied,
            membership: self.membership.clone(),
            globals: state.globals.clone(),
            hash: state.hash(),
        }
    }
}

/// What the jury hears of a position.
fn applied(position: &Position) -> Option<Applied> {
    let Position { applied, globals, hash, .. } = position;
    Some(Applied { index: applied.as_ref()?.index, revision: globals.revision, hash: *hash })
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Content;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let answers = self.apply_one(entry).inspect_err(|fault| {
                tracing::error!(%fault, "cannot apply an entry: this replica stops");
            })?;
            if let Some(responder) = responder {
                responder.send(answers);
            }
            // A long run of entries must not keep heartbeats waiting on the same thread.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let state = self.shared.published.read(State::clone);
        let position = self.position(&state);
        self.shared.entries_since.store(0, Ordering::Relaxed);
        self.shared.bytes_since.store(0, Ordering::Relaxed);
        Builder { shared: self.shared.clone(), state, position }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        content: Content,
    ) -> Result<(), io::Error> {
        let snapshots = &self.shared.snapshots;
        let stored = match content {
            Content::Stored(place, stored) if Arc::ptr_eq(&place, snapshots) => stored,
            Content::Stored(place, stored) => {
                let stored = snapshot::copy(&*place, &stored, &**snapshots).await?;
                snapshots.finished(stored.clone()).await?;
                stored
            }
            Content::Received(writer) => {
                // The log may have been cut to make way for this. Were the snapshot durable and
                // the cut not, they would contradict each other at the next start.
                self.shared.log.flush().await?;
                let stored = writer.finish().await?;
                snapshots.finished(stored.clone()).await?;
                stored
            }
        };
        let (position, state) = snapshot::read(snapshots.reader(&stored).await?).await?;
        if position.applied != meta.last_log_id {
            let detail = "its content is of another log position than its description".to_owned();
            let path = PathBuf::from(stored.name.id);
            return Err(Fault::Corrupt { what: "snapshot", path, offset: 0, detail }.into());
        }
        self.shared.need_rules(position.globals.rules)?;
        self.shared.keep.replace(&position, &state).await?;
        let applied = applied(&position);
        self.applied = position.applied;
        self.membership = position.membership;
        tracing::info!(revision = %position.globals.revision, "installed a snapshot");
        self.shared.published.reset(state);
        self.shared.jury(|jury| jury.replaced(applied));
        self.shared.applied_index.send_replace(self.applied.map(|id| id.index));
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<Types, Content>>, io::Error> {
        let current = self.shared.snapshots.current().await?;
        let snapshot = |stored: Stored| Snapshot {
            meta: stored.meta.clone(),
            snapshot: Content::Stored(self.shared.snapshots.clone(), stored),
        };
        Ok(current.map(snapshot))
    }
}

/// Writes a snapshot from a fork of the state, while entries go on being applied.
pub(crate) struct Builder {
    shared: Arc<Shared>,
    state: State,
    position: Position,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Content;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, Content>, io::Error> {
        // Raft purges the log below a snapshot: first what was materialised is made durable, then
        // the snapshot, and only then this returns.
        self.shared.keep.sync().await?;
        let meta = SnapshotMeta {
            last_log_id: self.position.applied,
            last_membership: self.position.membership.clone(),
        };
        let writer = self.shared.snapshots.create(&meta).await?;
        let stored = snapshot::write(writer, &self.position, &self.state).await?;
        self.shared.snapshots.finished(stored.clone()).await?;
        tracing::info!(revision = %self.position.globals.revision, "made a snapshot");
        let place = self.shared.snapshots.clone();
        Ok(Snapshot { meta, snapshot: Content::Stored(place, stored) })
    }
}
