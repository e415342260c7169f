//! What every service of one control node shares: the ledger and the seams around it.
//!
//! A [`Shared`] is cheap to clone and holds no lock. It is generic over the ledger, so that tests and
//! simulation run the same services over `MemoryLedger`. It knows how to propose and how to read on
//! behalf of a caller within a deadline; what is proposed is the services' business.

use crate::{Config, Folders, Peers, refusal};
use consensus::{Ledger, Proposal};
use identity::{Authority, Entropy};
use model::{
    Caller, Clock, Command, Globals, NodeId, Outcome, RequestId, Revision, Stamp, State, Timestamp,
    rejection::Code,
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Status, codegen::http::HeaderMap};

/// Longest time kept of a caller's for the answer to reach it.
const ANSWER: Duration = Duration::from_millis(200);

/// Handed to every service. Clones share everything.
#[derive(Clone)]
pub struct Shared<L: Ledger> {
    /// The replicated state.
    pub ledger: L,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Dice, for secrets and serials.
    pub entropy: Arc<dyn Entropy>,
    /// This node.
    pub node_id: NodeId,
    /// The cluster, as its certificates name it.
    pub cluster_id: identity::Name,
    /// Where this node keeps what.
    pub folders: Arc<Folders>,
    /// All settings.
    pub config: Arc<Config>,
    /// gRPC channels to the other control nodes.
    pub peers: Peers,
    /// The cluster's certificate authority, key included.
    pub authority: Arc<Authority>,
    /// What every actor last did.
    pub board: actors::Board,
    /// Cancelled when the node stops: long-lived tasks and streams end then.
    pub stop: CancellationToken,
    /// When the node started.
    pub started_at: Timestamp,
}

impl<L: Ledger> Shared<L> {
    /// Proposes a command on behalf of `caller` and waits for its outcome until `deadline`. A refusal
    /// by the rules is an `Ok(Outcome)`: see [`Shared::decided`] for the usual way on.
    ///
    /// # Errors
    /// UNAVAILABLE when it certainly was not done, DEADLINE_EXCEEDED when it may have been.
    pub async fn propose(
        &self,
        caller: Caller,
        request_id: Option<RequestId>,
        command: Command,
        deadline: Instant,
    ) -> Result<Outcome, Status> {
        let Globals { revision, rules, .. } = self.ledger.read(|state| state.globals.clone());
        if command.rules_min() > rules {
            let needed = command.rules_min();
            let rejection = Code::RulesUnknown
                .reject(format!("rules level {rules} is in force, and this needs {needed}"))
                .with("rules", rules);
            return Ok(Outcome { revision, result: Err(rejection) });
        }
        let proposal = Proposal { command, caller, request_id, deadline };
        self.ledger.propose(proposal).await.map_err(|error| refusal::of_ledger(&error))
    }

    /// What this node's state would answer to a command now; nothing is changed or proposed.
    pub fn rehearse(&self, caller: Caller, command: &Command) -> Outcome {
        let mut fork = self.ledger.read(State::clone);
        let Globals { revision, rules, .. } = fork.globals;
        let stamp = Stamp { time: self.clock.now(), rules, caller, request_id: None };
        Outcome { revision, ..fork.apply(&stamp, command).outcome }
    }

    /// Like [`Shared::propose`], with a refusal by the rules as an error too.
    ///
    /// # Errors
    /// Those of [`Shared::propose`], and the status that stands for the rejection.
    pub async fn decided(
        &self,
        caller: Caller,
        request_id: Option<RequestId>,
        command: Command,
        deadline: Instant,
    ) -> Result<(Revision, model::Reply), Status> {
        let Outcome { revision, result } =
            self.propose(caller, request_id, command, deadline).await?;
        let reply = result.map_err(|rejection| refusal::of_rejection(&rejection))?;
        Ok((revision, reply))
    }

    /// Returns once the local state holds every write answered before this call.
    ///
    /// # Errors
    /// UNAVAILABLE when no leader confirmed in time.
    pub async fn linearize(&self, deadline: Instant) -> Result<(), Status> {
        let read = tokio::time::timeout_at(deadline, self.ledger.linearize(deadline)).await;
        match read {
            Ok(Ok(_revision)) => Ok(()),
            Ok(Err(error)) => Err(refusal::of_ledger(&error)),
            Err(_elapsed) => Err(refusal::of_ledger(&consensus::Error::NotLeader { hint: None })),
        }
    }

    /// The moment until which a call may take: a little before its caller stops waiting, as told by
    /// `grpc-timeout`, so that the answer says what was missing; at most `[server] call_timeout_ms`.
    pub fn deadline(&self, headers: &HeaderMap) -> Instant {
        let longest = Duration::from_millis(self.config.server.call_timeout_ms);
        let asked = headers.get("grpc-timeout").and_then(|value| value.to_str().ok());
        let asked = asked.and_then(grpc_timeout).map(|asked| asked - (asked / 10).min(ANSWER));
        Instant::now() + asked.map_or(longest, |asked| asked.min(longest))
    }
}

/// Reads a `grpc-timeout`: up to 8 digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let unit = text.len().checked_sub(1)?;
    let (digits, unit) = (text.get(..unit)?, text.get(unit..)?);
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestNode, name};
    use consensus::MemoryLedger;

    #[tokio::test]
    async fn a_command_that_some_nodes_could_not_read_is_not_proposed() {
        let node = TestNode::start().await;
        let ledger = MemoryLedger::new(NodeId(1), node.shared.clock.clone());
        let early = Shared { ledger, ..node.shared.clone() };
        let (tenant, deployment) = (name("acme"), name("shop"));
        let retry = Command::RetryDeployment { tenant, deployment, cluster: None };
        let deadline = Instant::now() + Duration::from_secs(5);
        for (shared, code) in [(&early, "RULES_UNKNOWN"), (&node.shared, "UNKNOWN_TENANT")] {
            let outcome = shared.propose(Caller::System, None, retry.clone(), deadline).await;
            assert_eq!(outcome.unwrap().result.unwrap_err().code, code);
        }
        assert_eq!(early.ledger.read(|state| state.globals.revision), Revision(0));
    }

    #[test]
    fn a_timeout_has_digits_and_a_unit() {
        assert_eq!(grpc_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(grpc_timeout("250m"), Some(Duration::from_millis(250)));
        for bad in ["", "S", "5", "-5S", "123456789S", "5x", "5é"] {
            assert_eq!(grpc_timeout(bad), None, "{bad:?}");
        }
    }
}
