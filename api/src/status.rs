//! Refusals and errors on the wire, and back at the client.
//!
//! Every error carries google.rpc details: `ErrorInfo{reason, domain "muster", metadata}`, and a
//! `BadRequest` violation where a field is to blame. The metadata hold the facts of the refusal and two
//! words of their own: `remedy`, what to do about it, and `done`, whether it may have been done all the
//! same (`no` or `unknown`). [`ClientError`] is the same at the other end.

use crate::reason;
use model::{Class, NodeId, Rejection, Revision};
use std::{collections::BTreeMap, fmt};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

/// `ErrorInfo.domain` of every error.
pub const DOMAIN: &str = "muster";

/// Violations in one error, at most; what is left out is counted in the metadata as `violations`.
pub const VIOLATIONS_MAX: usize = 50;

/// Longest text of one violation, in bytes: an error travels in HTTP/2 headers.
pub const VIOLATION_BYTES_MAX: usize = 300;

#[expect(clippy::disallowed_types, reason = "tonic-types takes no other map")]
type Metadata = std::collections::HashMap<String, String>;

const REMEDY: &str = "remedy";
const DONE: &str = "done";

/// One of several faults of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Field, or path inside an image.
    pub field: String,
    /// Its own stable code, and what is wrong.
    pub description: String,
}

/// The error of a refusal.
pub fn rejected(rejection: &Rejection) -> Status {
    let violations = match rejection.field.is_empty() {
        true => Vec::new(),
        false => vec![Violation {
            field: rejection.field.clone(),
            description: rejection.message.clone(),
        }],
    };
    rejected_with(rejection, &violations)
}

/// The error of a refusal that lists several faults, such as those of an image.
pub fn rejected_with(rejection: &Rejection, violations: &[Violation]) -> Status {
    let mut metadata = rejection.details.clone();
    metadata.insert(REMEDY.to_owned(), rejection.remedy.clone());
    metadata.insert(DONE.to_owned(), "no".to_owned());
    if violations.len() > VIOLATIONS_MAX {
        metadata.insert("violations".to_owned(), violations.len().to_string());
    }
    build(code_of(rejection.class), &rejection.code, &rejection.message, metadata, violations)
}

/// UNAVAILABLE, certainly not done: `NOT_LEADER` when a leader is known and was not reached,
/// `NO_LEADER` when none answers for a majority.
pub fn unavailable_not_leader(hint: Option<NodeId>) -> Status {
    let Some(hint) = hint else {
        let message = "no leader answers: less than a majority of the control nodes can be reached \
            from this one, or they are about to elect one";
        let remedy = "try again; if it stays so, see that a majority of the control nodes run and \
            reach each other (`muster cluster status` says what each of them knows)";
        return certain(Code::Unavailable, reason::NO_LEADER, message, remedy, None);
    };
    let message = "the node does not lead and could not reach the one that does";
    let (remedy, leader) = ("try again, or ask another node", Some(("leader", hint.to_string())));
    certain(Code::Unavailable, reason::NOT_LEADER, message, remedy, leader)
}

/// UNAVAILABLE `REVISION_NOT_REACHED`: the node asked is at `now` still.
pub fn revision_not_reached(wanted: Revision, now: Revision) -> Status {
    let message = format!("this node is at revision {now} and did not get to {wanted} in time");
    let remedy = "ask another node, or read without at_least; if no node gets there, the revision is \
        not of this cluster";
    let now = Some(("revision", now.to_string()));
    certain(Code::Unavailable, reason::REVISION_NOT_REACHED, &message, remedy, now)
}

/// RESOURCE_EXHAUSTED `OVERLOADED`: certainly not done.
pub fn overloaded() -> Status {
    let message = "a queue of the control plane is full";
    certain(Code::ResourceExhausted, reason::OVERLOADED, message, "try again a little later", None)
}

/// INVALID_ARGUMENT `COMMAND_TOO_LARGE`: certainly not done, and repeating it does not help.
pub fn command_too_large(bytes: u64, max: u64) -> Status {
    let message = format!("the request makes a command of {bytes} bytes, at most {max} are taken");
    rejected(&Rejection {
        class: Class::InvalidArgument,
        code: reason::COMMAND_TOO_LARGE.to_owned(),
        message,
        field: "request".to_owned(),
        remedy: "split it: apply fewer documents at a time, or shorten what each brings".to_owned(),
        details: [("bytes", bytes), ("max", max)]
            .map(|(name, size)| (name.to_owned(), size.to_string()))
            .into(),
    })
}

/// UNAVAILABLE `STOPPED`: certainly not done.
pub fn stopped() -> Status {
    certain(Code::Unavailable, reason::STOPPED, "the node is stopping", "ask another node", None)
}

/// UNAVAILABLE `STATE_DISPUTED`: control nodes differ and no majority agrees; certainly not done.
pub fn state_disputed() -> Status {
    let message = "control nodes differ in their state, and no majority says which is right";
    let remedy = "start the control nodes that are down; if all are up, see docs/upgrades.md";
    certain(Code::Unavailable, reason::STATE_DISPUTED, message, remedy, None)
}

/// UNAVAILABLE `UNKNOWN_OUTCOME`: no answer in time, it may have been done.
pub fn unknown_outcome() -> Status {
    let metadata = BTreeMap::from([
        (REMEDY.to_owned(), "repeat it with the same request id".to_owned()),
        (DONE.to_owned(), "unknown".to_owned()),
    ]);
    let message = "the command got no answer in time; it may have been carried out";
    build(Code::Unavailable, reason::UNKNOWN_OUTCOME, message, metadata, &[])
}

/// OUT_OF_RANGE `COMPACTED`: history before `oldest` is gone.
pub fn compacted(oldest: Revision) -> Status {
    let message = format!("history before revision {oldest} is gone");
    let remedy = "list what is there, then go on from the revision of the list";
    let oldest = Some(("oldest", oldest.to_string()));
    certain(Code::OutOfRange, reason::COMPACTED, &message, remedy, oldest)
}

/// RESOURCE_EXHAUSTED `LAGGED`: the watcher read too slowly and was cut.
pub fn lagged(resume: Revision) -> Status {
    let remedy = "resume from resume_revision";
    let resume = Some(("resume_revision", resume.to_string()));
    certain(Code::ResourceExhausted, reason::LAGGED, "the watcher read too slowly", remedy, resume)
}

/// OUT_OF_RANGE `UPLOAD_OFFSET`: the chunk does not begin where the upload ends.
pub fn upload_offset(offset: u64) -> Status {
    let message = format!("the upload goes on at byte {offset}");
    let offset = Some(("offset", offset.to_string()));
    certain(Code::OutOfRange, reason::UPLOAD_OFFSET, &message, "send the chunk at offset", offset)
}

/// UNAVAILABLE `HOST_NOT_CONNECTED`: nothing can be fetched from a host out of contact.
pub fn host_not_connected() -> Status {
    let remedy = "wait until the host is back in contact";
    certain(
        Code::Unavailable,
        reason::HOST_NOT_CONNECTED,
        "the host is out of contact",
        remedy,
        None,
    )
}

/// INTERNAL `FAULT`: this node is broken. Details are for its log, not for callers.
pub fn fault() -> Status {
    let remedy = "ask another node, and read this node's log";
    certain(Code::Internal, reason::FAULT, "the node could not carry this out", remedy, None)
}

fn certain(
    code: Code,
    reason: &str,
    message: &str,
    remedy: &str,
    fact: Option<(&str, String)>,
) -> Status {
    let mut metadata: BTreeMap<String, String> =
        fact.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    metadata.insert(REMEDY.to_owned(), remedy.to_owned());
    metadata.insert(DONE.to_owned(), "no".to_owned());
    build(code, reason, message, metadata, &[])
}

fn build(
    code: Code,
    reason: &str,
    message: &str,
    metadata: BTreeMap<String, String>,
    violations: &[Violation],
) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, metadata.into_iter().collect::<Metadata>());
    if !violations.is_empty() {
        let shown = violations.iter().take(VIOLATIONS_MAX).map(|violation| {
            FieldViolation::new(cut(&violation.field), cut(&violation.description))
        });
        details.set_bad_request(shown.collect::<Vec<_>>());
    }
    Status::with_error_details(code, message, details)
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(VIOLATION_BYTES_MAX)).unwrap_or(text)
}

/// The gRPC code of a class of refusals.
pub fn code_of(class: Class) -> Code {
    match class {
        Class::InvalidArgument => Code::InvalidArgument,
        Class::NotFound => Code::NotFound,
        Class::AlreadyExists => Code::AlreadyExists,
        Class::Aborted => Code::Aborted,
        Class::FailedPrecondition => Code::FailedPrecondition,
        Class::PermissionDenied => Code::PermissionDenied,
        Class::Unauthenticated => Code::Unauthenticated,
        Class::ResourceExhausted => Code::ResourceExhausted,
    }
}

/// The class of a gRPC code, where there is one.
pub fn class_of(code: Code) -> Option<Class> {
    Some(match code {
        Code::InvalidArgument => Class::InvalidArgument,
        Code::NotFound => Class::NotFound,
        Code::AlreadyExists => Class::AlreadyExists,
        Code::Aborted => Class::Aborted,
        Code::FailedPrecondition => Class::FailedPrecondition,
        Code::PermissionDenied => Class::PermissionDenied,
        Code::Unauthenticated => Class::Unauthenticated,
        Code::ResourceExhausted => Class::ResourceExhausted,
        _ => return None,
    })
}

/// What the other end said, or what kept it from saying anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientError {
    /// gRPC code.
    pub code: Code,
    /// Stable reason, such as `PARTITIONS_CHANGED`; empty when the error is not muster's: the
    /// connection broke, say.
    pub reason: String,
    /// The field to blame; empty if none.
    pub field: String,
    /// What happened.
    pub message: String,
    /// What to do about it; empty when nobody said.
    pub remedy: String,
    /// Facts for programs, without remedy and done.
    pub metadata: BTreeMap<String, String>,
    /// Every fault named, the first being that of `field`.
    pub violations: Vec<Violation>,
    /// Whether it is certain that nothing was done.
    pub certainly_not_done: bool,
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let (reason, mut metadata) = match details.error_info() {
            Some(info) if info.domain == DOMAIN => {
                let facts = info.metadata.iter().map(|(key, value)| (key.clone(), value.clone()));
                (info.reason.clone(), facts.collect())
            }
            _ => (String::new(), BTreeMap::new()),
        };
        let violations: Vec<Violation> = details
            .bad_request()
            .map(|bad| bad.field_violations.iter())
            .into_iter()
            .flatten()
            .map(|violation| Violation {
                field: violation.field.clone(),
                description: violation.description.clone(),
            })
            .collect();
        Self {
            code: status.code(),
            reason,
            field: violations.first().map(|first| first.field.clone()).unwrap_or_default(),
            message: status.message().to_owned(),
            remedy: metadata.remove(REMEDY).unwrap_or_default(),
            certainly_not_done: metadata.remove(DONE).is_some_and(|done| done == "no"),
            metadata,
            violations,
        }
    }
}

impl ClientError {
    /// Whether the same call, with the same request id, may well succeed soon, here or at another node.
    pub fn is_worth_repeating(&self) -> bool {
        let passing = [
            reason::NOT_LEADER,
            reason::NO_LEADER,
            reason::REVISION_NOT_REACHED,
            reason::OVERLOADED,
            reason::STOPPED,
            reason::STATE_DISPUTED,
            reason::UNKNOWN_OUTCOME,
        ];
        match self.reason.is_empty() {
            true => {
                matches!(self.code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
            }
            false => passing.contains(&self.reason.as_str()),
        }
    }

    /// The refusal, when it was one: an answer that will stay the same.
    pub fn rejection(&self) -> Option<Rejection> {
        if self.reason.is_empty() || self.is_worth_repeating() {
            return None;
        }
        Some(Rejection {
            class: class_of(self.code)?,
            code: self.reason.clone(),
            message: self.message.clone(),
            field: self.field.clone(),
            remedy: self.remedy.clone(),
            details: self.metadata.clone(),
        })
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason.is_empty() {
            true => write!(f, "{}: {}", self.code.description(), self.message),
            false => write!(f, "{}: {}", self.reason, self.message),
        }
    }
}

impl std::error::Error for ClientError {}

#[cfg(test)]
#[path = "status/tests.rs"]
mod tests;
