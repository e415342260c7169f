//! Reasons that stand in errors of this room, beside the model's own codes: stable texts, each with a
//! paragraph in `docs/rejections.md`.

use model::{Class, Rejection};
use std::{collections::BTreeMap, fmt::Display};

/// INVALID_ARGUMENT: a field of the request is missing, unknown or malformed; `field` names it.
pub const FIELD: &str = "FIELD";
/// UNAVAILABLE: the node asked does not lead and could not reach the one that does. Certainly not done.
pub const NOT_LEADER: &str = "NOT_LEADER";
/// UNAVAILABLE: no leader answers for a majority of the control nodes. Certainly not done.
pub const NO_LEADER: &str = "NO_LEADER";
/// UNAVAILABLE: the node did not get to the revision that `at_least` names in time.
pub const REVISION_NOT_REACHED: &str = "REVISION_NOT_REACHED";
/// RESOURCE_EXHAUSTED: a queue of the control plane is full. Certainly not done.
pub const OVERLOADED: &str = "OVERLOADED";
/// INVALID_ARGUMENT: the request is larger than an entry of the log may be. Certainly not done.
pub const COMMAND_TOO_LARGE: &str = "COMMAND_TOO_LARGE";
/// UNAVAILABLE: the node is stopping. Certainly not done.
pub const STOPPED: &str = "STOPPED";
/// UNAVAILABLE: control nodes differ in their state and no majority agrees. Certainly not done.
pub const STATE_DISPUTED: &str = "STATE_DISPUTED";
/// UNAVAILABLE: no answer in time. It may have been done: repeat it with the same request id.
pub const UNKNOWN_OUTCOME: &str = "UNKNOWN_OUTCOME";
/// OUT_OF_RANGE: history before `oldest` is gone: list, then go on from the list's revision.
pub const COMPACTED: &str = "COMPACTED";
/// RESOURCE_EXHAUSTED: the watcher read too slowly: resume from `resume_revision`.
pub const LAGGED: &str = "LAGGED";
/// OUT_OF_RANGE: a chunk does not begin where the upload ends: go on at `offset`.
pub const UPLOAD_OFFSET: &str = "UPLOAD_OFFSET";
/// UNAVAILABLE: the host is out of contact, so nothing can be fetched from it.
pub const HOST_NOT_CONNECTED: &str = "HOST_NOT_CONNECTED";
/// INTERNAL: this node is broken; its log says how.
pub const FAULT: &str = "FAULT";
/// FAILED_PRECONDITION: a learner cannot lead.
pub const LEARNER: &str = "LEARNER";
/// FAILED_PRECONDITION: a control node is out of contact with the leader.
pub const NODE_SILENT: &str = "NODE_SILENT";
/// FAILED_PRECONDITION: a control node lacks more of the log than it may.
pub const NOT_CAUGHT_UP: &str = "NOT_CAUGHT_UP";
/// FAILED_PRECONDITION: the voters that remain would have no majority in contact.
pub const QUORUM_AT_RISK: &str = "QUORUM_AT_RISK";
/// FAILED_PRECONDITION: there is no other voter in contact that could lead.
pub const NO_SUCCESSOR: &str = "NO_SUCCESSOR";
/// ABORTED: the next leader did not take over in time; an election decides.
pub const NOT_TAKEN_OVER: &str = "NOT_TAKEN_OVER";

/// All of the above.
pub const REASONS: &[&str] = &[
    LEARNER,
    NODE_SILENT,
    NOT_CAUGHT_UP,
    QUORUM_AT_RISK,
    NO_SUCCESSOR,
    NOT_TAKEN_OVER,
    FIELD,
    NOT_LEADER,
    NO_LEADER,
    REVISION_NOT_REACHED,
    OVERLOADED,
    COMMAND_TOO_LARGE,
    STOPPED,
    STATE_DISPUTED,
    UNKNOWN_OUTCOME,
    COMPACTED,
    LAGGED,
    UPLOAD_OFFSET,
    HOST_NOT_CONNECTED,
    FAULT,
];

/// The refusal of a request whose `field` is wrong: `message` says how, `remedy` what to write.
pub fn bad_field(field: &str, message: impl Display, remedy: impl Into<String>) -> Rejection {
    Rejection {
        class: Class::InvalidArgument,
        code: FIELD.to_owned(),
        message: message.to_string(),
        field: field.to_owned(),
        remedy: remedy.into(),
        details: BTreeMap::new(),
    }
}
