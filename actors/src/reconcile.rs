//! What all actors share: the ledger they read and propose to, and one run of the loop.

use crate::{Board, Config, board::Subject, ownership::weight};
use consensus::{Ledger, Proposal};
use model::{Caller, Clock, Command, NodeId, Timestamp};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Handed to every actor of a tree.
pub(crate) struct Shared<L> {
    pub(crate) ledger: L,
    pub(crate) config: Config,
    pub(crate) board: Board,
    pub(crate) clock: Arc<dyn Clock>,
}

impl<L: Clone> Clone for Shared<L> {
    fn clone(&self) -> Self {
        Self {
            ledger: self.ledger.clone(),
            config: self.config.clone(),
            board: self.board.clone(),
            clock: self.clock.clone(),
        }
    }
}

impl<L: Ledger> Shared<L> {
    /// Proposes `commands` in order, at most `proposals_max`. A refusal is not an error: the view
    /// was stale and whatever made it so wakes the actor again. Stops at the first command the
    /// ledger did not take; the next run plans again from the state, whatever became of it.
    pub(crate) async fn propose(&self, subject: &Subject, commands: Vec<Command>) -> Run {
        let mut run = Run { proposed: 0, error: None };
        for command in commands.into_iter().take(self.config.proposals_max) {
            let proposal = Proposal {
                command,
                caller: Caller::System,
                request_id: None,
                deadline: Instant::now() + Duration::from_millis(self.config.propose_timeout_ms),
            };
            match self.ledger.propose(proposal).await {
                Ok(outcome) => {
                    run.proposed += 1;
                    if let Err(refusal) = outcome.result {
                        tracing::debug!(actor = %subject, code = %refusal.code, "proposal refused, the view was stale");
                    }
                }
                Err(error) => {
                    tracing::debug!(actor = %subject, %error, "proposal not taken");
                    run.error = Some(error.to_string());
                    break;
                }
            }
        }
        run
    }

    /// The sweep period of one actor: the configured one, spread by ±10 % by a hash of who asks, so
    /// that a thousand actors started together do not sweep together.
    pub(crate) fn sweep(&self, subject: &Subject) -> Duration {
        let spread = weight(NodeId(0), &[&subject.to_string()]) % 200;
        Duration::from_millis(self.config.sweep_ms * (900 + spread) / 1_000)
    }

    /// How long until `due`, at least the debounce: a clock that runs ahead must not spin.
    pub(crate) fn until(&self, due: Timestamp) -> Duration {
        let wait_ms = due.since_ms(self.clock.now());
        Duration::from_millis(wait_ms.max(self.config.debounce_ms))
    }

    pub(crate) fn debounce(&self) -> Duration {
        Duration::from_millis(self.config.debounce_ms)
    }
}

/// What one run did.
pub(crate) struct Run {
    pub(crate) proposed: u64,
    pub(crate) error: Option<String>,
}
