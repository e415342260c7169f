//! Users: they found the fleet, then change their minds, are wrong, and ask again when nobody
//! answers, under the same request id and through another node.

mod acts;

pub(crate) use acts::{cluster_of, package_of};

use crate::{event::Event, ledger::EPOCH_MS, ledger::Origin, names::operator, world::World};
use model::{Command, Outcome, RequestId, Timestamp};

/// How long a user waits before asking again, in ms.
const PATIENCE_MS: u64 = 3_000;
/// Tries of a request.
const TRIES_MAX: u32 = 5;

/// A request of a user.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) id: RequestId,
    pub(crate) command: Command,
    pub(crate) tries: u32,
    /// The first answer.
    pub(crate) answer: Option<Outcome>,
    /// It is asked until there is an answer.
    stubborn: bool,
}

/// All requests so far.
#[derive(Debug, Default)]
pub(crate) struct Users {
    pub(crate) requests: Vec<Request>,
}

impl World {
    /// Asks for something. The number of the request.
    pub(crate) fn ask(&mut self, command: Command, stubborn: bool) -> usize {
        let unique = u128::from(self.dice.next() >> 1);
        let id = RequestId { at: Timestamp(EPOCH_MS + self.now), unique };
        let request = self.users.requests.len();
        self.users.requests.push(Request { id, command, tries: 0, answer: None, stubborn });
        self.send_request(request);
        request
    }

    fn send_request(&mut self, request: usize) {
        let up: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].up).collect();
        self.users.requests[request].tries += 1;
        let it = self.users.requests[request].clone();
        if let Some(node) = self.dice.pick(&up).copied() {
            let proposal = (operator(), it.command.clone());
            let origin = Origin::User { request };
            self.propose_named(node, proposal.clone(), Some(it.id.clone()), origin.clone());
            // A client that is told nothing cannot know that its first try arrived.
            if self.settings.faults.messages && !self.healing && self.dice.permille(60) {
                self.propose_named(node, proposal, Some(it.id), origin);
            }
        }
        let at = self.now + PATIENCE_MS + self.dice.range(0, 500);
        self.at(at, Event::Retry { request });
    }

    /// A user who has no answer asks again.
    pub(crate) fn user_retries(&mut self, request: usize) {
        let it = &self.users.requests[request];
        if it.answer.is_none() && (it.tries < TRIES_MAX || it.stubborn) {
            self.send_request(request);
        }
    }

    /// A user is answered: acknowledged, if it is no refusal.
    pub(crate) fn user_answered(&mut self, request: usize, outcome: Outcome) {
        self.check_acknowledged(request, &outcome);
        let it = &mut self.users.requests[request];
        if it.answer.is_none() {
            self.stats.acknowledged += u64::from(outcome.result.is_ok());
            it.answer = Some(outcome);
        }
    }
}
