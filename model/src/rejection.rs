//! Rejections: deterministic refusals. Every replica gives the same one, and it is an answer, not a
//! fault. Each code has a paragraph in `docs/rejections.md`.

mod codes;

pub use codes::{CODES, Code};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What kind of refusal it is: decides the gRPC code and the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// The request is wrong whatever the state is.
    InvalidArgument,
    /// The named thing does not exist, or is another tenant's.
    NotFound,
    /// It exists already with other content.
    AlreadyExists,
    /// Somebody else was faster; read again and retry.
    Aborted,
    /// The state does not allow it; change the state first.
    FailedPrecondition,
    /// The caller may not.
    PermissionDenied,
    /// The caller is not known.
    Unauthenticated,
    /// A bound is reached.
    ResourceExhausted,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// Class.
    pub class: Class,
    /// Stable reason, `SCREAMING_SNAKE_CASE`, such as `PARTITIONS_CHANGED`.
    pub code: String,
    /// One sentence: what was refused and which rule says so.
    pub message: String,
    /// Path of the offending field, such as `spec.targets.clusters[2]`; empty if none.
    pub field: String,
    /// One sentence: what to do about it.
    pub remedy: String,
    /// Facts for programs, such as `was` and `now`.
    pub details: BTreeMap<String, String>,
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reply {
    /// Done. The resource name touched first and its revision, or `unchanged`.
    Done {
        /// Resource name such as `tenants/acme/deployments/shop`; empty for commands about none.
        resource: String,
        /// Whether anything changed.
        changed: bool,
    },
    /// Per-item answers, in the order of the items.
    Items(Vec<Result<(), Rejection>>),
    /// Answers of a batch, in order.
    Batch(Vec<Reply>),
    /// The number of the session that `ConnectHost` opened.
    Session(u64),
}

/// What came of a proposal, the same on every replica and for every repeat of its request id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Outcome {
    /// The revision the command has (or the first answer had, for a repeat).
    pub revision: crate::Revision,
    /// The answer.
    pub result: Result<Reply, Rejection>,
}
