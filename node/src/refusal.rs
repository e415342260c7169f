//! What a caller is told when it does not get what it asked for, as the errors of `api::status`.

use consensus::{Error, MemberRefusal};
use identity::Denied;
use model::{Class, NodeId, Rejection, Revision, rejection::Code as RejectionCode};
use std::collections::BTreeMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// OUT_OF_RANGE: the pages of a list are gone, list again from the first.
pub const PAGE_EXPIRED: &str = "PAGE_EXPIRED";
/// UNAUTHENTICATED: the method needs a certificate and none was shown, or it has ended.
pub const CERTIFICATE: &str = "CERTIFICATE";
/// UNAUTHENTICATED: a join token is unknown, spent or wrong.
pub const TOKEN: &str = "TOKEN";
/// PERMISSION_DENIED: this kind of caller never may.
pub const CALLER: &str = "CALLER";
/// PERMISSION_DENIED: the caller's role is too low.
pub const ROLE: &str = "ROLE";
/// FAILED_PRECONDITION: a control node does not know the rules level in force; as the rules say it.
pub const RULES_UNKNOWN: &str = "RULES_UNKNOWN";
/// NOT_FOUND: the tenant is not the caller's; worded as if it did not exist.
pub const UNKNOWN_TENANT: &str = "UNKNOWN_TENANT";

/// The status for a refusal by the rules.
pub fn of_rejection(rejection: &Rejection) -> Status {
    api::status::rejected(rejection)
}

/// The status for a proposal or read that the ledger did not answer.
pub fn of_ledger(error: &Error) -> Status {
    match error {
        Error::NotLeader { hint } => api::status::unavailable_not_leader(*hint),
        Error::Overloaded => api::status::overloaded(),
        Error::Stopped => api::status::stopped(),
        Error::Unknown => api::status::unknown_outcome(),
        Error::Disputed => api::status::state_disputed(),
        Error::TooLarge { bytes, max } => api::status::command_too_large(*bytes, *max),
        Error::Members(refused) => of_rejection(&of_members(refused)),
    }
}

/// Why the members stay as they are.
fn of_members(refused: &MemberRefusal) -> Rejection {
    use api::reason;
    let message = refused.to_string();
    let failed = |code, remedy| refusal(Class::FailedPrecondition, code, &message, remedy);
    match refused {
        MemberRefusal::Unknown { node } => {
            RejectionCode::UnknownNode.reject(message).with("node", node)
        }
        MemberRefusal::Removed { node } => removed(*node),
        MemberRefusal::LastVoter { node } => {
            RejectionCode::LastNode.reject(message).with("node", node)
        }
        MemberRefusal::Learner { node } => {
            failed(reason::LEARNER, "promote it first, or name a voter").with("node", node)
        }
        MemberRefusal::Silent { node } => {
            failed(reason::NODE_SILENT, "see that it runs and can be reached").with("node", node)
        }
        MemberRefusal::Lagging { node, lag, max } => failed(
            reason::NOT_CAUGHT_UP,
            "wait until it has caught up: see `muster cluster status`",
        )
        .with("node", node)
        .with("lag", lag)
        .with("max", max),
        MemberRefusal::NoQuorum { node, voters, up, needed } => {
            let remedy = "bring the others back first, or add a node; --force removes it all the \
                same, and nothing can be written until enough of the others are back";
            failed(reason::QUORUM_AT_RISK, remedy)
                .with("node", node)
                .with("voters", voters)
                .with("up", up)
                .with("needed", needed)
        }
        MemberRefusal::NobodyElse => {
            failed(reason::NO_SUCCESSOR, "bring another voter back, or add one")
        }
        MemberRefusal::NotTakenOver { node } => {
            let remedy = "see who leads now with `muster cluster status`, and ask again";
            refusal(Class::Aborted, reason::NOT_TAKEN_OVER, &message, remedy).with("node", node)
        }
    }
}

/// The status for a caller that may not.
pub fn of_denied(denied: Denied) -> Status {
    let (class, code, remedy) = match denied {
        Denied::Unauthenticated => {
            (Class::Unauthenticated, CERTIFICATE, "log in, and show the certificate you get")
        }
        Denied::Caller { .. } => {
            (Class::PermissionDenied, CALLER, "use the identity this method is for")
        }
        Denied::NotVisible => return of_rejection(&not_visible()),
        Denied::Removed { node } => return of_rejection(&removed(NodeId(node))),
        Denied::Role { .. } => {
            (Class::PermissionDenied, ROLE, "ask an admin of the cluster to bind you a role")
        }
    };
    of_rejection(&refusal(class, code, &denied.to_string(), remedy))
}

/// A refusal by this room.
pub fn refusal(class: Class, code: &str, message: &str, remedy: &str) -> Rejection {
    Rejection {
        class,
        code: code.to_owned(),
        message: message.to_owned(),
        field: String::new(),
        remedy: remedy.to_owned(),
        details: BTreeMap::new(),
    }
}

/// PERMISSION_DENIED `NODE_REMOVED`: what a control node is told that was removed.
pub fn removed(node: NodeId) -> Rejection {
    let message = format!("node {node} was removed from the cluster");
    RejectionCode::NodeRemoved.reject(message).with("node", node)
}

/// OUT_OF_RANGE `PAGE_EXPIRED`.
pub fn page_expired(revision: Revision) -> Status {
    let facts = [
        ("revision", revision.to_string()),
        ("remedy", "list again from the first page".to_owned()),
        ("done", "no".to_owned()),
    ];
    let facts = facts.map(|(key, value)| (key.to_owned(), value));
    let details = ErrorDetails::with_error_info(PAGE_EXPIRED, api::status::DOMAIN, facts);
    let message = format!("the pages of revision {revision} are gone");
    Status::with_error_details(Code::OutOfRange, message, details)
}

/// What a caller without a role in a tenant is told, whether the tenant exists or not.
fn not_visible() -> Rejection {
    let message = "the tenant does not exist, or you have no role in it";
    let remedy = "see those you have with `muster tenant list`, name one with --tenant, or ask an admin \
                  for `muster role bind YOU ROLE --tenant TENANT`";
    let field = "tenant".to_owned();
    Rejection { field, ..refusal(Class::NotFound, UNKNOWN_TENANT, message, remedy) }
}
