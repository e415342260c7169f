//! What a caller is told when it does not get what it asked for, as the errors of `api::status`.

use consensus::Error;
use identity::Denied;
use model::{Class, Rejection, Revision};
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
