//! Group commit: everything that waits becomes one entry, and a few entries are under way at once.
//!
//! While an entry is replicated, new proposals gather; so batches grow with load by themselves and
//! a lone proposal waits for nobody. The number of proposals, their bytes and the time they wait are
//! bounded: past that a proposal is refused at once, certainly not done. What operators ask for is
//! refused as soon as the first in the line has waited too long, so that what is taken is answered soon
//! however much is asked; what agents and nodes report goes on until the line is full, so that no crowd
//! of operators keeps the cluster from its own work. A proposal that is given up while it still waits
//! never reaches the log, and its caller is told so. A command too large for any entry is refused in
//! words of its own: waiting does not help it.
//!
//! The queue can be held, so that nothing is under way while leadership is handed over, and closed, so
//! that a node that stops leaves nobody in doubt: what waits then is refused, certainly not done.

use crate::{
    Config, Error,
    entry::{Blob, Entry},
    types::Answers,
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use model::{Caller, Clock, Outcome};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch},
    time::Instant,
};

/// A proposal that has waited so many times `queue_wait_ms` is refused when its turn comes: whoever
/// asked has better things to do by then.
const WAITS_MAX: u32 = 4;

/// What the queue needs of Raft and of the state.
pub(crate) trait Log: Send + Sync + 'static {
    /// Replicates one entry and applies it here.
    fn commit(&self, entry: Entry) -> BoxFuture<'static, Result<Answers, Error>>;
    /// The rules level in force.
    fn rules(&self) -> u32;
}

/// Whose proposal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// An operator's: refused as soon as others wait for too long.
    Operator,
    /// The cluster's own work: of agents, nodes and the leader itself.
    House,
}

impl Rank {
    pub(crate) fn of(caller: &Caller) -> Self {
        match caller {
            Caller::Operator(_) => Self::Operator,
            Caller::Agent { .. } | Caller::Node(_) | Caller::System => Self::House,
        }
    }
}

/// Who was first to take a proposal out of the line: the log, or the caller who gives up.
#[derive(Clone, Default)]
struct Ticket(Arc<AtomicBool>);

impl Ticket {
    /// Whether this was the first.
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::SeqCst)
    }
}

/// Whether what waits is put into entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Gate {
    /// As it comes.
    Open,
    /// It waits.
    Held,
    /// It is refused, for good.
    Closed,
}

struct Item {
    blob: Blob,
    since: Instant,
    deadline: Instant,
    answer: oneshot::Sender<Result<Outcome, Error>>,
    ticket: Ticket,
    /// Its share of the bytes that may wait.
    _bytes: OwnedSemaphorePermit,
}

/// What waits, in the order it came.
#[derive(Default)]
struct Line {
    items: Mutex<VecDeque<Item>>,
    arrived: Notify,
    /// Whether nobody takes anything out any more. Changed under the lock of the items.
    closed: AtomicBool,
}

impl Line {
    fn items(&self) -> MutexGuard<'_, VecDeque<Item>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Refuses what waits and what comes: it certainly was not done.
    fn close(&self) {
        let mut items = self.items();
        self.closed.store(true, Ordering::SeqCst);
        items.clear();
    }

    /// Returns when something waits. Safe to drop.
    async fn some(&self) {
        loop {
            let arrived = self.arrived.notified();
            if !self.items().is_empty() {
                return;
            }
            arrived.await;
        }
    }
}

/// The entrance. Clones lead to the same queue.
#[derive(Clone)]
pub(crate) struct Queue {
    config: Arc<Config>,
    line: Arc<Line>,
    bytes: Arc<Semaphore>,
    gate: watch::Sender<Gate>,
    /// The gate that the worker knows of, and how many entries it has under way.
    seen: watch::Receiver<(Gate, usize)>,
}

impl Queue {
    /// A queue and the work that empties it, to be spawned; it goes on until it is aborted.
    pub(crate) fn new(
        config: Arc<Config>,
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let line = Arc::new(Line::default());
        let bytes = Arc::new(Semaphore::new(config.queue_bytes_max));
        let (gate, seen) = (watch::Sender::new(Gate::Open), watch::Sender::new((Gate::Open, 0)));
        let (opened, heard) = (gate.subscribe(), seen.subscribe());
        let queue = Self { config: config.clone(), line: line.clone(), bytes, gate, seen: heard };
        let work = Worker { config, log, clock, line }.run(opened, seen);
        (queue, work)
    }

    /// Lets nothing more into the log until [`Queue::release`], and waits until nothing is under way;
    /// whether that was so by the deadline.
    pub(crate) async fn hold(&self, deadline: Instant) -> bool {
        self.turn(Gate::Held, deadline).await
    }

    /// Ends [`Queue::hold`].
    pub(crate) fn release(&self) {
        // What waited on purpose is not late.
        let now = Instant::now();
        self.line.items().iter_mut().for_each(|item| item.since = now);
        self.gate.send_if_modified(|gate| {
            let held = *gate == Gate::Held;
            if held {
                *gate = Gate::Open;
            }
            held
        });
    }

    /// Refuses what waits and what comes, and waits until nothing is under way, but not past the
    /// deadline.
    pub(crate) async fn close(&self, deadline: Instant) {
        if !self.turn(Gate::Closed, deadline).await {
            tracing::warn!("entries were still under way when the queue was closed");
        }
    }

    async fn turn(&self, to: Gate, deadline: Instant) -> bool {
        self.gate.send_if_modified(|gate| {
            let turns = *gate != Gate::Closed && *gate != to;
            if turns {
                *gate = to;
            }
            turns
        });
        let mut seen = self.seen.clone();
        // What is seen may still be of the hold before.
        let idle = seen.wait_for(|(gate, under_way)| *gate >= to && *under_way == 0);
        // A worker that is gone has nothing under way.
        tokio::time::timeout_at(deadline, idle).await.is_ok()
    }

    /// Waits for the outcome of a command that goes into the log here.
    pub(crate) async fn propose(
        &self,
        blob: Blob,
        rank: Rank,
        deadline: Instant,
    ) -> Result<Outcome, Error> {
        let (bytes, bytes_max) = (blob.0.len(), self.config.command_bytes_max);
        if bytes > bytes_max {
            return Err(Error::TooLarge { bytes: bytes as u64, max: bytes_max as u64 });
        }
        let share = u32::try_from(bytes).map_err(|_| Error::Overloaded)?;
        let permit =
            self.bytes.clone().try_acquire_many_owned(share).map_err(|_| Error::Overloaded)?;
        let (answer, outcome) = oneshot::channel();
        let (since, ticket) = (Instant::now(), Ticket::default());
        let item = Item { blob, since, deadline, answer, ticket: ticket.clone(), _bytes: permit };
        self.stand(item, rank)?;
        match tokio::time::timeout_at(deadline, outcome).await {
            Ok(Ok(outcome)) => outcome,
            // It still waited: now it never reaches the log.
            Ok(Err(_)) | Err(_) if ticket.take() => match self.line.is_closed() {
                true => Err(Error::Stopped),
                false => Err(Error::Overloaded),
            },
            // The log has it; whether it is done is not known.
            Ok(Err(_)) | Err(_) => Err(Error::Unknown),
        }
    }

    /// Puts a proposal at the end of the line, if there is room for its rank.
    fn stand(&self, item: Item, rank: Rank) -> Result<(), Error> {
        let wait = Duration::from_millis(self.config.queue_wait_ms);
        let mut items = self.line.items();
        if self.line.is_closed() {
            return Err(Error::Stopped);
        }
        // While the queue is held on purpose, waiting says nothing of the load.
        let open = *self.gate.borrow() == Gate::Open;
        let late = open && items.front().is_some_and(|first| item.since > first.since + wait);
        if items.len() >= self.config.queue_proposals_max || (late && rank == Rank::Operator) {
            return Err(Error::Overloaded);
        }
        items.push_back(item);
        drop(items);
        self.line.arrived.notify_one();
        Ok(())
    }
}

type Answer = oneshot::Sender<Result<Outcome, Error>>;

struct Worker {
    config: Arc<Config>,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    line: Arc<Line>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.line.close();
    }
}

impl Worker {
    async fn run(self, mut gate: watch::Receiver<Gate>, seen: watch::Sender<(Gate, usize)>) {
        let mut under_way = FuturesUnordered::new();
        loop {
            let now = *gate.borrow_and_update();
            if now == Gate::Closed {
                self.line.close();
            }
            seen.send_replace((now, under_way.len()));
            let room = under_way.len() < self.config.entries_in_flight_max && now == Gate::Open;
            tokio::select! {
                biased;
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
                Ok(()) = gate.changed() => {}
                () = self.line.some(), if room => {
                    let (entry, answers) = self.gather();
                    if !answers.is_empty() {
                        under_way.push(self.commit(entry, answers));
                    }
                }
                else => return,
            }
        }
    }

    /// Puts everything that waits into one entry, as long as it fits.
    fn gather(&self) -> (Entry, Vec<Answer>) {
        let now = Instant::now();
        let longest = Duration::from_millis(self.config.queue_wait_ms) * WAITS_MAX;
        let mut bytes = 0;
        let (mut commands, mut answers) = (Vec::new(), Vec::new());
        let mut items = self.line.items();
        while let Some(item) = items.pop_front() {
            if bytes > 0 && bytes + item.blob.0.len() > self.config.batch_bytes_max {
                items.push_front(item);
                break;
            }
            // Nobody waits any more: not proposing it is the honest half of "unknown".
            if item.deadline <= now || item.answer.is_closed() {
                continue;
            }
            let Item { blob, since, answer, ticket, .. } = item;
            if !ticket.take() {
                continue;
            }
            if now > since + longest {
                drop(answer.send(Err(Error::Overloaded)));
                continue;
            }
            bytes += blob.0.len();
            commands.push(blob);
            answers.push(answer);
        }
        drop(items);
        let stamp = self.clock.now();
        (Entry::V1 { stamp, rules: self.log.rules(), hash_check: None, commands }, answers)
    }

    fn commit(&self, entry: Entry, answers: Vec<Answer>) -> BoxFuture<'static, ()> {
        let commit = self.log.commit(entry);
        let limit = Duration::from_millis(self.config.entry_ms);
        Box::pin(async move {
            let result = match tokio::time::timeout(limit, commit).await {
                Ok(result) => result,
                Err(_) => Err(Error::Unknown),
            };
            match result {
                Ok(Answers(outcomes)) if outcomes.len() == answers.len() => {
                    for (answer, outcome) in answers.into_iter().zip(outcomes) {
                        drop(answer.send(Ok(outcome)));
                    }
                }
                Ok(Answers(outcomes)) => {
                    let (got, expected) = (outcomes.len(), answers.len());
                    tracing::error!(got, expected, "an entry answered other than it asked");
                    answers.into_iter().for_each(|answer| drop(answer.send(Err(Error::Unknown))));
                }
                Err(error) => {
                    for answer in answers {
                        drop(answer.send(Err(error.clone())));
                    }
                }
            }
        })
    }
}

#[cfg(test)]
#[path = "queue/tests.rs"]
mod tests;
