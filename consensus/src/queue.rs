//! Group commit: everything that waits becomes one entry, and a few entries are under way at once.
//!
//! While an entry is replicated, new proposals gather; so batches grow with load by themselves and
//! a lone proposal waits for nobody. Both the number of proposals and their bytes are bounded:
//! past that a proposal is refused at once, certainly not done. A command too large for any entry is
//! refused in words of its own: waiting does not help it.
//!
//! The queue can be held, so that nothing is under way while leadership is handed over, and closed, so
//! that a node that stops leaves nobody in doubt: what waits then is refused, certainly not done.

use crate::{
    Config, Error,
    entry::{Blob, Entry},
    types::Answers,
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use model::{Clock, Outcome, Revision};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::Instant,
};

/// What the queue needs of Raft and of the state.
pub(crate) trait Log: Send + Sync + 'static {
    /// Replicates one entry and applies it here.
    fn commit(&self, entry: Entry) -> BoxFuture<'static, Result<Answers, Error>>;
    /// The rules level in force.
    fn rules(&self) -> u32;
    /// A state hash to be compared, each only once.
    fn hash_check(&self) -> Option<(Revision, u128)>;
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
    deadline: Instant,
    answer: oneshot::Sender<Result<Outcome, Error>>,
    /// Its share of the bytes that may wait.
    _bytes: OwnedSemaphorePermit,
}

/// The entrance. Clones lead to the same queue.
#[derive(Clone)]
pub(crate) struct Queue {
    items: mpsc::Sender<Item>,
    bytes: Arc<Semaphore>,
    command_bytes_max: usize,
    gate: watch::Sender<Gate>,
    /// The gate that the worker knows of, and how many entries it has under way.
    seen: watch::Receiver<(Gate, usize)>,
}

impl Queue {
    /// A queue and the work that empties it, to be spawned.
    pub(crate) fn new(
        config: Arc<Config>,
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (items, waiting) = mpsc::channel(config.queue_proposals_max);
        let (gate, seen) = (watch::Sender::new(Gate::Open), watch::Sender::new((Gate::Open, 0)));
        let queue = Self {
            items,
            bytes: Arc::new(Semaphore::new(config.queue_bytes_max)),
            command_bytes_max: config.command_bytes_max,
            seen: seen.subscribe(),
            gate: gate.clone(),
        };
        let work = Worker { config, log, clock, waiting, next: None }.run(gate.subscribe(), seen);
        (queue, work)
    }

    /// Lets nothing more into the log until [`Queue::release`], and waits until nothing is under way;
    /// whether that was so by the deadline.
    pub(crate) async fn hold(&self, deadline: Instant) -> bool {
        self.turn(Gate::Held, deadline).await
    }

    /// Ends [`Queue::hold`].
    pub(crate) fn release(&self) {
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
    pub(crate) async fn propose(&self, blob: Blob, deadline: Instant) -> Result<Outcome, Error> {
        let bytes = blob.0.len();
        if bytes > self.command_bytes_max {
            let max = self.command_bytes_max as u64;
            return Err(Error::TooLarge { bytes: bytes as u64, max });
        }
        let share = u32::try_from(bytes).map_err(|_| Error::Overloaded)?;
        let permit =
            self.bytes.clone().try_acquire_many_owned(share).map_err(|_| Error::Overloaded)?;
        let (answer, outcome) = oneshot::channel();
        let item = Item { blob, deadline, answer, _bytes: permit };
        self.items.try_send(item).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Error::Stopped,
        })?;
        match tokio::time::timeout_at(deadline, outcome).await {
            Ok(Ok(outcome)) => outcome,
            // The worker is gone; whether it had handed the entry over is not known.
            Ok(Err(_)) => Err(Error::Unknown),
            Err(_) => Err(Error::Unknown),
        }
    }
}

type Answer = oneshot::Sender<Result<Outcome, Error>>;

struct Worker {
    config: Arc<Config>,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    waiting: mpsc::Receiver<Item>,
    /// Taken from the queue, but too large for the entry before.
    next: Option<Item>,
}

impl Worker {
    async fn run(mut self, mut gate: watch::Receiver<Gate>, seen: watch::Sender<(Gate, usize)>) {
        let mut under_way = FuturesUnordered::new();
        let mut open = true;
        while open || !under_way.is_empty() || self.next.is_some() {
            let now = *gate.borrow_and_update();
            if now == Gate::Closed && open {
                self.refuse_rest().await;
                open = false;
            }
            seen.send_replace((now, under_way.len()));
            let room = under_way.len() < self.config.entries_in_flight_max && now == Gate::Open;
            tokio::select! {
                biased;
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
                Ok(()) = gate.changed() => {}
                first = self.first(), if room && (open || self.next.is_some()) => match first {
                    Some(first) => {
                        let (entry, answers) = self.gather(first);
                        if !answers.is_empty() {
                            under_way.push(self.commit(entry, answers));
                        }
                    }
                    None => open = false,
                },
                else => return,
            }
        }
    }

    /// Refuses what was not put into an entry: it certainly was not done.
    async fn refuse_rest(&mut self) {
        self.waiting.close();
        if let Some(Item { answer, .. }) = self.next.take() {
            drop(answer.send(Err(Error::Stopped)));
        }
        while let Some(Item { answer, .. }) = self.waiting.recv().await {
            drop(answer.send(Err(Error::Stopped)));
        }
    }

    async fn first(&mut self) -> Option<Item> {
        match self.next.take() {
            Some(item) => Some(item),
            None => self.waiting.recv().await,
        }
    }

    /// Puts everything that waits into one entry, as long as it fits.
    fn gather(&mut self, first: Item) -> (Entry, Vec<Answer>) {
        let now = Instant::now();
        let mut bytes = 0;
        let (mut commands, mut answers) = (Vec::new(), Vec::new());
        let mut item = Some(first);
        while let Some(Item { blob, deadline, answer, _bytes }) = item {
            // Nobody waits any more: not proposing it is the honest half of "unknown".
            if deadline > now && !answer.is_closed() {
                bytes += blob.0.len();
                commands.push(blob);
                answers.push(answer);
            }
            item = self.waiting.try_recv().ok();
            if let Some(next) = &item
                && bytes > 0
                && bytes + next.blob.0.len() > self.config.batch_bytes_max
            {
                self.next = item.take();
            }
        }
        let stamp = self.clock.now();
        let hash_check = (!commands.is_empty()).then(|| self.log.hash_check()).flatten();
        (Entry::V1 { stamp, rules: self.log.rules(), hash_check, commands }, answers)
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
