//! (2) No acknowledged write is lost, and none is carried out twice under one request id.

use super::{Found, Oracles};
use crate::{ledger::Node, workload::Users};
use model::{Outcome, RequestId};

/// Every entry with a request id seen before is answered as the first was.
pub(super) fn answered_alike(
    oracles: &mut Oracles,
    request: Option<RequestId>,
    outcome: &Outcome,
) -> Found {
    let Some(id) = request else { return Ok(()) };
    match oracles.answers.get(&id) {
        Some(first) if first != outcome => {
            Err(format!("request {id:?} was answered {first:?}, and then {outcome:?}"))
        }
        Some(_) => Ok(()),
        None => {
            oracles.answers.insert(id, outcome.clone());
            Ok(())
        }
    }
}

/// What a user is told is what the log holds.
pub(super) fn is_logged(oracles: &Oracles, id: &RequestId, outcome: &Outcome) -> Found {
    match oracles.answers.get(id) {
        Some(first) if first == outcome => Ok(()),
        Some(first) => Err(format!("a user was told {outcome:?}, the log says {first:?}")),
        None => Err(format!("a user was told {outcome:?}, of which the log knows nothing")),
    }
}

/// At the end: every answer a user has is in the log, and nodes that remember the request agree.
pub(super) fn all_kept(oracles: &Oracles, users: &Users, nodes: &[Node]) -> Found {
    for request in &users.requests {
        let Some(answer) = &request.answer else { continue };
        is_logged(oracles, &request.id, answer)?;
        for node in nodes {
            let kept = node.state.requests.get(&request.id);
            if kept.is_some_and(|kept| kept != answer) {
                return Err(format!("node {} remembers another answer than {answer:?}", node.id));
            }
            let forgotten = request.id.at < node.state.globals.requests_from;
            let refused_early = answer.result.is_err();
            if kept.is_none() && !forgotten && !refused_early {
                return Err(format!("node {} does not remember {answer:?}", node.id));
            }
        }
    }
    Ok(())
}
