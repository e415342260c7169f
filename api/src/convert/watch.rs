//! Changes of rows, as watchers are told.

use super::field;
use crate::{resource, v1};
use model::{Caller, Change, Revision, Timestamp};

/// What all events of one revision share.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// The revision.
    pub revision: Revision,
    /// When, on the leader's clock.
    pub time: Timestamp,
    /// Who changed it.
    pub caller: &'a Caller,
}

/// The event of one changed row; `None` for rows that are not resources. `last` is left false: only who
/// filters knows which event of a revision is the last.
pub fn event(
    moment: &Moment<'_>,
    change: &Change,
    include_previous: bool,
) -> Option<v1::WatchEvent> {
    let name = resource::format(&change.key)?;
    let kind = match (&change.before, &change.after) {
        (None, _) => v1::WatchType::Added,
        (Some(_), Some(_)) => v1::WatchType::Modified,
        (Some(_), None) => v1::WatchType::Deleted,
    };
    let read = |row: &Option<model::Row>| row.as_ref().and_then(|row| super::row(&change.key, row));
    Some(v1::WatchEvent {
        r#type: kind.into(),
        revision: moment.revision.0,
        time: Some(field::time(moment.time)),
        kind: resource::kind(&change.key).into(),
        name,
        resource: read(&change.after),
        previous: if include_previous { read(&change.before) } else { None },
        last: false,
        caller: moment.caller.to_string(),
    })
}

/// The event that says that everything up to `revision` was sent.
pub fn bookmark(revision: Revision, time: Timestamp) -> v1::WatchEvent {
    v1::WatchEvent {
        r#type: v1::WatchType::Bookmark.into(),
        revision: revision.0,
        time: Some(field::time(time)),
        last: true,
        ..v1::WatchEvent::default()
    }
}
