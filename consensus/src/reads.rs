//! Linearizable reads in rounds: everybody who waits shares one confirmation of the leader.
//!
//! A round that began after a reader asked answers it, so while one is under way the next gathers.
//! Reads cost one exchange with a majority per round, however many there are.

use crate::{
    Error, Method,
    core::{Confirmed, Core},
    forward::Backoff,
    wire::{ForwardAnswer, ForwardRequest},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

struct Reader {
    deadline: Instant,
    answer: oneshot::Sender<Result<Confirmed, Error>>,
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

    /// A confirmation that began after this call: a state that has applied its index holds everything
    /// answered before now.
    pub(crate) async fn confirmed(&self, deadline: Instant) -> Result<Confirmed, Error> {
        let (answer, confirmed) = oneshot::channel();
        self.readers.try_send(Reader { deadline, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Error::Stopped,
        })?;
        match tokio::time::timeout_at(deadline, confirmed).await {
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
            Ok(confirmed) => {
                backoff.reset();
                readers.drain(..).for_each(|reader| drop(reader.answer.send(Ok(confirmed))));
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

async fn round(core: &Core, deadline: Instant) -> Result<Confirmed, Error> {
    let (at, node, lease_ttl_ms) = (Instant::now(), core.node_id, core.leases.ttl_ms());
    let confirmed = |index, lease_ttl_ms: Option<u64>| Confirmed {
        at,
        index,
        lease_ttl: lease_ttl_ms.map(Duration::from_millis),
    };
    match core.leader() {
        Some((id, _)) if id == node => {
            Ok(confirmed(core.read_index(deadline).await?, lease_ttl_ms))
        }
        Some(leader) => {
            let leader_id = leader.0;
            let request =
                |deadline_ms| ForwardRequest::Linearize { node, lease_ttl_ms, deadline_ms };
            match core.ask_leader(leader, Method::Linearize, request, deadline).await {
                Ok(ForwardAnswer::Index { index, lease_ttl_ms }) => {
                    if let Some(ttl_ms) = lease_ttl_ms {
                        core.leases.note_ttl(leader_id, Duration::from_millis(ttl_ms));
                    }
                    Ok(confirmed(index, lease_ttl_ms))
                }
                Ok(ForwardAnswer::Failed(error)) => Err(error),
                Ok(
                    ForwardAnswer::Outcome(_) | ForwardAnswer::Changed | ForwardAnswer::Ballots(_),
                )
                | Err(_) => Err(Error::Unknown),
            }
        }
        None => Err(Error::NotLeader { hint: None }),
    }
}
