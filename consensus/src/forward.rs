//! From any node to the leader, and again until the deadline when that is safe.
//!
//! A try that certainly did nothing is repeated. One that may have done something is repeated only
//! under a request id, with which the state answers a repeat as it answered first; without one the
//! caller learns that the outcome is unknown. A try ends with the leader it was given to: a request
//! that a dead leader swallowed goes to the next one as soon as that is known. Nothing is handed to a
//! leader of whom nothing was heard lately before it has confirmed that a majority follows it: so while
//! a majority is missing every command is certainly not done, and the answer names no leader.

use crate::{
    Config, Error, Method,
    core::{Core, ForwardError},
    entry::Blob,
    queue::{Queue, Rank},
    reads::Reads,
    wire::{ForwardAnswer, ForwardRequest},
};
use model::Outcome;
use std::time::Duration;
use tokio::time::Instant;

/// Growing pauses between tries, cut short when leadership changes.
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(config: &Config) -> Self {
        let min = Duration::from_millis(config.retry_min_ms.max(1));
        let max = Duration::from_millis(config.retry_max_ms).max(min);
        Self { min, max, next: min }
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }

    /// Pauses, but not past the deadline, and not when the leader is another one.
    pub(crate) async fn wait(&mut self, core: &Core, deadline: Instant) {
        let until = deadline.min(Instant::now() + self.next);
        self.next = (self.next * 2).min(self.max);
        let mut leadership = core.leadership.subscribe();
        let before = leadership.borrow().leader;
        let changed = leadership.wait_for(|now| now.leader != before && now.leader.is_some());
        drop(tokio::time::timeout_at(until, changed).await);
    }
}

/// A command on its way to the leader.
pub(crate) struct Asked {
    /// It, encoded.
    pub(crate) blob: Blob,
    /// Whose it is.
    pub(crate) rank: Rank,
    /// Whether the state would know a repeat.
    pub(crate) has_request_id: bool,
}

/// Puts a command into the log, wherever the leader is.
pub(crate) async fn propose(
    core: &Core,
    (queue, reads): (&Queue, &Reads),
    asked: &Asked,
    deadline: Instant,
) -> Result<Outcome, Error> {
    let mut backoff = Backoff::new(&core.config);
    let mut ambiguous = false;
    loop {
        let tried = match followed(core, reads, deadline).await {
            Ok(()) => propose_once(core, queue, asked, deadline).await,
            Err(missing) => Err(missing),
        };
        let failed = match tried {
            Ok(outcome) => return Ok(outcome),
            Err(failed) => core.blamed(failed),
        };
        ambiguous |= failed == Error::Unknown;
        let again = match failed {
            Error::NotLeader { .. } | Error::Disputed => true,
            Error::Unknown => asked.has_request_id,
            Error::Overloaded | Error::Stopped | Error::TooLarge { .. } | Error::Members(_) => {
                false
            }
        };
        if !again || core.is_stopped() || Instant::now() >= deadline {
            return Err(if ambiguous { Error::Unknown } else { failed });
        }
        backoff.wait(core, deadline).await;
    }
}

/// Returns when a majority follows the leader, as far as was lately heard.
async fn followed(core: &Core, reads: &Reads, deadline: Instant) -> Result<(), Error> {
    if core.is_stopped() {
        return Err(Error::Stopped);
    }
    if core.has_quorum() {
        return Ok(());
    }
    reads.confirmed(core.try_until(deadline)).await.map(|_confirmed| ())
}

/// Puts a command into the line of this node, which leads, unless no majority can take it.
pub(crate) async fn propose_here(
    core: &Core,
    queue: &Queue,
    (blob, rank): (Blob, Rank),
    deadline: Instant,
) -> Result<Outcome, Error> {
    if !core.has_quorum() {
        return Err(Error::NotLeader { hint: None });
    }
    core.need_agreement()?;
    queue.propose(blob, rank, deadline).await.map_err(|error| core.blamed(error))
}

async fn propose_once(
    core: &Core,
    queue: &Queue,
    asked: &Asked,
    deadline: Instant,
) -> Result<Outcome, Error> {
    let Some(leader) = core.leader() else { return Err(Error::NotLeader { hint: None }) };
    let blob = asked.blob.clone();
    if leader.0 == core.node_id {
        return propose_here(core, queue, (blob, asked.rank), deadline).await;
    }
    let hint = Some(leader.0);
    let request = |deadline_ms| ForwardRequest::Propose { queued: blob, deadline_ms };
    let until = core.try_until(deadline);
    match core.ask_leader(leader, Method::Propose, request, until).await {
        Ok(ForwardAnswer::Outcome(outcome)) => Ok(outcome),
        // The leader is stopping, not this node: another one will be found.
        Ok(ForwardAnswer::Failed(Error::Stopped)) => Err(Error::NotLeader { hint: None }),
        Ok(ForwardAnswer::Failed(error)) => Err(error),
        Ok(ForwardAnswer::Index { .. } | ForwardAnswer::Changed | ForwardAnswer::Ballots(_)) => {
            Err(Error::Unknown)
        }
        Err(ForwardError::NotSent) => Err(Error::NotLeader { hint }),
        Err(ForwardError::Lost) => Err(Error::Unknown),
    }
}
