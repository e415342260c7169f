//! From any node to the leader, and again until the deadline when that is safe.
//!
//! A try that certainly did nothing is repeated. One that may have done something is repeated only
//! under a request id, with which the state answers a repeat as it answered first; without one the
//! caller learns that the outcome is unknown.

use crate::{
    Config, Error, Method,
    core::{Core, ForwardError},
    entry::Blob,
    queue::Queue,
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

/// Puts an encoded command into the log, wherever the leader is.
pub(crate) async fn propose(
    core: &Core,
    queue: &Queue,
    blob: Blob,
    has_request_id: bool,
    deadline: Instant,
) -> Result<Outcome, Error> {
    let mut backoff = Backoff::new(&core.config);
    let mut ambiguous = false;
    loop {
        let failed = match propose_once(core, queue, &blob, deadline).await {
            Ok(outcome) => return Ok(outcome),
            Err(failed) => failed,
        };
        ambiguous |= failed == Error::Unknown;
        let again = match failed {
            Error::NotLeader { .. } => true,
            Error::Unknown => has_request_id,
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

async fn propose_once(
    core: &Core,
    queue: &Queue,
    blob: &Blob,
    deadline: Instant,
) -> Result<Outcome, Error> {
    if core.is_stopped() {
        return Err(Error::Stopped);
    }
    let Some(leader) = core.leader() else { return Err(Error::NotLeader { hint: None }) };
    if leader.0 == core.node_id {
        return queue.propose(blob.clone(), deadline).await;
    }
    let hint = Some(leader.0);
    let request = |deadline_ms| ForwardRequest::Propose { queued: blob.clone(), deadline_ms };
    let until = core.try_until(deadline);
    match core.ask(leader, Method::Propose, request, until).await {
        Ok(ForwardAnswer::Outcome(outcome)) => Ok(outcome),
        // The leader is stopping, not this node: another one will be found.
        Ok(ForwardAnswer::Failed(Error::Stopped)) => Err(Error::NotLeader { hint: None }),
        Ok(ForwardAnswer::Failed(error)) => Err(error),
        Ok(ForwardAnswer::Index { .. } | ForwardAnswer::Changed) => Err(Error::Unknown),
        Err(ForwardError::NotSent) => Err(Error::NotLeader { hint }),
        Err(ForwardError::Lost) => Err(Error::Unknown),
    }
}
