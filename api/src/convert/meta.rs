//! The envelope, status and conditions, to and from the wire.

use super::field::{self, Read, Within};
use crate::{reason::bad_field, resource, v1};
use model::{Condition, Deletion, Indicator, Key, Meta, OwnerRef, Revision, Status, Timestamp};

/// The envelope of the resource at `key`.
pub(crate) fn to_proto(key: &Key, meta: &Meta) -> v1::Meta {
    v1::Meta {
        resource: resource::format(key).unwrap_or_default(),
        name: meta.name.to_string(),
        uid: meta.uid.to_string(),
        labels: meta.labels.clone(),
        annotations: meta.annotations.clone(),
        generation: meta.generation,
        spec_revision: meta.spec_revision.0,
        revision: meta.revision.0,
        created_at: Some(field::time(meta.created_at)),
        updated_at: Some(field::time(meta.updated_at)),
        deletion: meta.deletion.as_deref().map(|deletion| v1::Deletion {
            requested_at: Some(field::time(deletion.requested_at)),
            waiting_on: deletion.waiting_on.clone(),
            force: deletion.force,
        }),
        owners: meta
            .owners
            .iter()
            .map(|owner| v1::OwnerRef {
                resource: owner.resource.clone(),
                uid: owner.uid.to_string(),
            })
            .collect(),
    }
}

/// The key that an envelope names, and the envelope.
pub(crate) fn from_proto(meta: Option<v1::Meta>) -> Read<(Key, Meta)> {
    let meta = field::required("meta", meta)?;
    read(meta).within("meta")
}

fn read(meta: v1::Meta) -> Read<(Key, Meta)> {
    let key = resource::parse("resource", &meta.resource)?;
    let name = field::name("name", &meta.name)?;
    if own_name(&key).is_some_and(|own| own != meta.name) {
        let message = "name is not the one that resource says";
        return Err(bad_field("name", message, "make name and resource agree"));
    }
    let owner = |(at, owner): (usize, v1::OwnerRef)| {
        Ok(OwnerRef {
            resource: owner.resource,
            uid: field::uid("uid", &owner.uid).within(format_args!("owners[{at}]"))?,
        })
    };
    let envelope = Meta {
        name,
        uid: field::uid("uid", &meta.uid)?,
        labels: meta.labels,
        annotations: meta.annotations,
        generation: meta.generation,
        spec_revision: Revision(meta.spec_revision),
        revision: Revision(meta.revision),
        created_at: field::read_time("created_at", meta.created_at)?,
        updated_at: field::read_time("updated_at", meta.updated_at)?,
        deletion: meta.deletion.map(|found| deletion(found).within("deletion")).transpose()?,
        owners: meta.owners.into_iter().enumerate().map(owner).collect::<Read<_>>()?,
    };
    Ok((key, envelope))
}

/// The name in the envelope of the resource at `key`; `None` where the key does not say it.
fn own_name(key: &Key) -> Option<String> {
    Some(match key {
        Key::Tenant(name)
        | Key::Host(_, name)
        | Key::Cluster(_, name)
        | Key::Package(_, name, _)
        | Key::Deployment(_, name)
        | Key::Binding(name, _)
        | Key::Token(name) => name.to_string(),
        Key::Node(id) => format!("node-{id}"),
        Key::Image(..)
        | Key::DeploymentCluster(..)
        | Key::Job(_)
        | Key::Tombstone(..)
        | Key::Request(_)
        | Key::RemovedNode(_) => return None,
    })
}

fn deletion(deletion: v1::Deletion) -> Read<Box<Deletion>> {
    Ok(Box::new(Deletion {
        requested_at: field::read_time("requested_at", deletion.requested_at)?,
        force: deletion.force,
        waiting_on: deletion.waiting_on,
    }))
}

pub(crate) fn status_to_proto(status: &Status) -> v1::Status {
    v1::Status {
        indicator: match status.indicator {
            Indicator::Unspecified => v1::Indicator::Unspecified,
            Indicator::Error => v1::Indicator::Error,
            Indicator::InProgress => v1::Indicator::InProgress,
            Indicator::Idle => v1::Indicator::Idle,
        }
        .into(),
        text: status.text.clone(),
        since: (status.since != Timestamp::default()).then(|| field::time(status.since)),
        retryable: status.retryable,
        attempt: status.attempt,
        next_retry_at: status.next_retry_at.map(field::time),
        last_error: status.last_error.clone(),
    }
}

pub(crate) fn status_from_proto(status: Option<v1::Status>) -> Read<Status> {
    let status = field::required("status", status)?;
    let read = || {
        Ok(Status {
            indicator: match v1::Indicator::try_from(status.indicator) {
                Ok(v1::Indicator::Unspecified) => Indicator::Unspecified,
                Ok(v1::Indicator::Error) => Indicator::Error,
                Ok(v1::Indicator::InProgress) => Indicator::InProgress,
                Ok(v1::Indicator::Idle) => Indicator::Idle,
                Err(_unknown) => {
                    return field::unknown_word("indicator", "ERROR, IN_PROGRESS, IDLE");
                }
            },
            text: status.text,
            since: field::read_optional_time("since", status.since)?.unwrap_or_default(),
            retryable: status.retryable,
            attempt: status.attempt,
            next_retry_at: field::read_optional_time("next_retry_at", status.next_retry_at)?,
            last_error: status.last_error,
        })
    };
    read().within("status")
}

pub(crate) fn condition_to_proto(condition: &Condition) -> v1::Condition {
    v1::Condition {
        kind: condition.kind.clone(),
        holds: condition.holds,
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        since: Some(field::time(condition.since)),
    }
}

pub(crate) fn condition_from_proto(condition: v1::Condition) -> Read<Condition> {
    Ok(Condition {
        kind: condition.kind,
        holds: condition.holds,
        reason: condition.reason,
        message: condition.message,
        since: field::read_time("since", condition.since)?,
    })
}
