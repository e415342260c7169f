//! The envelope every resource carries: who it is, when it changed, how it is doing.

use crate::{Context, Name, Revision, Summary, Timestamp, Uid, event::Written};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Key/value pairs for selection. Keys: optional DNS prefix (at most 253) and `/`, then a name of at
/// most 63 of `[A-Za-z0-9._-]`; values at most 63 of the same, possibly empty. At most 64 pairs.
pub type Labels = BTreeMap<String, String>;

/// The envelope. `generation` counts spec changes; `spec_revision` is the revision of the last one,
/// `revision` that of any write.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Meta {
    /// Name, unique per kind within its parent.
    pub name: Name,
    /// Identity across deletion and re-creation.
    pub uid: Uid,
    /// For selection.
    pub labels: Labels,
    /// For people and tools; at most 256 KiB in all, never interpreted.
    pub annotations: BTreeMap<String, String>,
    /// Number of spec changes, from 1.
    pub generation: u64,
    /// Revision of the last spec change.
    pub spec_revision: Revision,
    /// Revision of the last write of any kind.
    pub revision: Revision,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
    /// Set once deletion was asked for; the row goes when nothing is waited for.
    pub deletion: Option<Box<Deletion>>,
    /// Resources this one belongs to; it is deleted with them.
    pub owners: Vec<OwnerRef>,
}

/// A deletion under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Deletion {
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// Whether it does not wait for hosts out of contact.
    pub force: bool,
    /// What has to go first, as resource names such as `clusters/north`; derived, at most 20 shown.
    pub waiting_on: Vec<String>,
}

/// A reference to an owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OwnerRef {
    /// Resource name, such as `tenants/acme/deployments/shop`.
    pub resource: String,
    /// Its uid.
    pub uid: Uid,
}

/// How a resource is doing, in three words a machine can sort by.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Indicator {
    /// Nothing is known yet.
    #[default]
    Unspecified,
    /// Wrong; see `retryable`.
    Error,
    /// On its way to what was asked.
    InProgress,
    /// As asked.
    Idle,
}

/// Status of a resource. Text, indicator and time always change together (INF-10).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Status {
    /// Machine-readable summary.
    pub indicator: Indicator,
    /// One line for a person.
    pub text: String,
    /// Since when it is so.
    pub since: Timestamp,
    /// Whether an error will be tried again without a person.
    pub retryable: bool,
    /// Number of the last attempt that failed, from 1; 0 when nothing is being tried.
    pub attempt: u32,
    /// When the next attempt is due.
    pub next_retry_at: Option<Timestamp>,
    /// The last error, kept after recovery until the next success.
    pub last_error: Option<String>,
}

/// A named yes/no fact about a resource (Kubernetes conditions).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Condition {
    /// Name, such as `Placed`.
    pub kind: String,
    /// Whether it holds.
    pub holds: bool,
    /// Reason in one CamelCase word.
    pub reason: String,
    /// One line for a person.
    pub message: String,
    /// When `holds` last changed.
    pub since: Timestamp,
}

impl Meta {
    /// The envelope of a resource that comes to be now.
    pub(crate) fn new(name: Name, uid: Uid, context: &Context) -> Self {
        Self {
            name,
            uid,
            labels: Labels::new(),
            annotations: BTreeMap::new(),
            generation: 1,
            spec_revision: context.revision,
            revision: context.revision,
            created_at: context.time,
            updated_at: context.time,
            deletion: None,
            owners: Vec::new(),
        }
    }

    /// Notes a write.
    pub(crate) fn touch(&mut self, context: &Context) {
        self.revision = context.revision;
        self.updated_at = context.time;
    }

    /// The envelope as a user wrote it now: new, or changed from `before`.
    pub(crate) fn written(before: Option<&Self>, written: &Written, context: &Context) -> Self {
        let mut meta = match before {
            Some(before) => before.clone(),
            None => Self::new(written.name.clone(), written.created.unwrap_or_default(), context),
        };
        meta.touch(context);
        if before.is_some() && written.respecified {
            meta.generation += 1;
            meta.spec_revision = context.revision;
        }
        meta.labels.clone_from(&written.labels);
        meta.annotations.clone_from(&written.annotations);
        meta
    }
}

impl Status {
    /// Says something else. Nothing happens if it is what is said already.
    pub(crate) fn say(&mut self, indicator: Indicator, text: &str, now: Timestamp) {
        if self.indicator == indicator && self.text == text {
            return;
        }
        if indicator == Indicator::Error {
            self.last_error = Some(text.into());
        } else if indicator == Indicator::Idle {
            self.last_error = None;
        }
        self.indicator = indicator;
        self.text = text.into();
        self.since = now;
    }

    /// Says what a deployment or its part came to be.
    pub(crate) fn sum_up(&mut self, summary: &Summary, now: Timestamp) {
        self.say(summary.indicator, &summary.text, now);
        self.retryable = summary.retryable;
        self.attempt = summary.attempt;
    }
}
