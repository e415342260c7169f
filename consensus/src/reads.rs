//! Linearizable reads in rounds: everybody who waits shares one confirmation of the leader.
//!
//! A round that began after a reader asked answers it, so while one is under way the next gathers.
//! Reads cost one exchange with a majority per round, however many there are.

use crate::{
    Error, Method,
    core::Core,
    forward::Backoff,
    wire::{ForwardAnswer, ForwardRequest},
};
use std::sync::Arc;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

struct Reader {
    deadline: Instant,
    answer: oneshot::Sender<Result<Option<u64>, Error>>,
}

/// The entrance. Clones lead to the same rounds.
#[derive(Clone)]
pub(crate) struct Reads {
    readers: mpsc::Sender<Reader>,
}

impl Reads {
    /// The entrance and the work behind it, to be spawned.
    pub(crate) fn new(core: Arc<Core>) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (readers, waiting) = mpsc::channel(core.config.queue_reads_max);
        (Self { readers }, rounds(core, waiting))
    }

    /// The log index that a state must have applied to hold everything answered before now.
    pub(crate) async fn index(&self, deadline: Instant) -> Result<Option<u64>, Error> {
        let (answer, index) = oneshot::channel();
        self.readers.try_send(Reader { deadline, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Error::Stopped,
        })?;
        match tokio::time::timeout_at(deadline, index).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::Stopped),
            Err(_) => Err(Error::NotLeader { hint: None }),
        }
    }
}

async fn rounds(core: Arc<Core>, mut waiting: mpsc::Receiver<Reader>) {
    let mut readers: Vec<Reader> = Vec::new();
    let mut backoff = Backoff::new(&core.config);
    loop {
        if readers.is_empty() {
            match waiting.recv().await {
                Some(reader) => readers.push(reader),
                None => return,
            }
        }
        while let Ok(reader) = waiting.try_recv() {
            readers.push(reader);
        }
        let now = Instant::now();
        readers.retain(|reader| reader.deadline > now && !reader.answer.is_closed());
        let Some(deadline) = readers.iter().map(|reader| reader.deadline).max() else { continue };
        match round(&core, core.try_until(deadline)).await {
            Ok(index) => {
                backoff.reset();
                readers.drain(..).for_each(|reader| drop(reader.answer.send(Ok(index))));
            }
            Err(Error::Stopped) if core.is_stopped() => {
                for reader in readers.drain(..) {
                    drop(reader.answer.send(Err(Error::Stopped)));
                }
            }
            // A read has no effect: it is simply tried again until its deadline.
            Err(_) => backoff.wait(&core, deadline).await,
        }
    }
}

async fn round(core: &Core, deadline: Instant) -> Result<Option<u64>, Error> {
    match core.leader() {
        Some((id, _)) if id == core.node_id => core.read_index(deadline).await,
        Some(leader) => {
            let request = |deadline_ms| ForwardRequest::Linearize { deadline_ms };
            match core.ask(leader, Method::Linearize, request, deadline).await {
                Ok(ForwardAnswer::Index(index)) => Ok(index),
                Ok(ForwardAnswer::Failed(error)) => Err(error),
                Ok(ForwardAnswer::Outcome(_) | ForwardAnswer::Changed) | Err(_) => {
                    Err(Error::Unknown)
                }
            }
        }
        None => Err(Error::NotLeader { hint: None }),
    }
}
