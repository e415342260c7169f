//! What came of a command, as a caller is told.

use crate::v1;
use model::{Outcome, Rejection, Reply};

/// The answer to a change of one resource.
///
/// # Errors
/// The rejection that the command got.
pub fn outcome(outcome: &Outcome) -> Result<v1::Outcome, Rejection> {
    let reply = outcome.result.as_ref().map_err(Rejection::clone)?;
    Ok(done(reply, outcome.revision.0))
}

/// The answer to an `Apply` of several documents.
///
/// # Errors
/// The rejection that the batch got; its field begins with the document's place.
pub fn apply_response(outcome: &Outcome) -> Result<v1::ApplyResponse, Rejection> {
    let revision = outcome.revision.0;
    let reply = outcome.result.as_ref().map_err(Rejection::clone)?;
    let outcomes = match reply {
        Reply::Batch(replies) => replies.iter().map(|reply| done(reply, revision)).collect(),
        Reply::Done { .. } | Reply::Items(_) | Reply::Session(_) => vec![done(reply, revision)],
    };
    Ok(v1::ApplyResponse { outcomes, revision })
}

fn done(reply: &Reply, revision: u64) -> v1::Outcome {
    match reply {
        Reply::Done { resource, changed } => {
            v1::Outcome { resource: resource.clone(), changed: *changed, revision }
        }
        Reply::Items(_) | Reply::Batch(_) | Reply::Session(_) => {
            v1::Outcome { resource: String::new(), changed: true, revision }
        }
    }
}
