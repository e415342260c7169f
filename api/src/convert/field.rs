//! Reading single fields of messages: what every conversion is made of. A field that is missing,
//! unknown or malformed is refused with its path; nothing is guessed.

use crate::{reason::bad_field, resource};
use model::{Digest, Name, Rejection, Revision, Timestamp, Uid, Version};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

/// Last moment that protobuf's JSON can say: the end of the year 9999, in ms.
pub(crate) const TIME_MAX: u64 = 253_402_300_799_999;

/// A value read from a message, or the refusal.
pub(crate) type Read<T> = Result<T, Rejection>;

/// Puts the field of a refusal below the field it was read in.
pub(crate) trait Within<T> {
    /// `outer` becomes the parent of the refused field.
    fn within(self, outer: impl Display) -> Read<T>;
}

impl<T> Within<T> for Read<T> {
    fn within(self, outer: impl Display) -> Self {
        self.map_err(|mut rejection| {
            let inner = std::mem::take(&mut rejection.field);
            rejection.field = match inner.is_empty() {
                true => outer.to_string(),
                false => format!("{outer}.{inner}"),
            };
            rejection
        })
    }
}

pub(crate) fn required<T>(field: &str, value: Option<T>) -> Read<T> {
    value.ok_or_else(|| bad_field(field, format!("{field} is missing"), format!("set {field}")))
}

pub(crate) fn name(field: &str, text: &str) -> Read<Name> {
    Name::new(text).map_err(|bad| {
        bad_field(field, format!("{field} is not a name: {bad}"), "write a name such as web-1")
    })
}

pub(crate) fn optional_name(field: &str, text: Option<&str>) -> Read<Option<Name>> {
    text.map(|text| name(field, text)).transpose()
}

pub(crate) fn names<C: FromIterator<Name>>(field: &str, texts: &[String]) -> Read<C> {
    let item = |(at, text): (usize, &String)| name(&format!("{field}[{at}]"), text);
    texts.iter().enumerate().map(item).collect()
}

/// Names of which each stands once.
pub(crate) fn name_set(field: &str, texts: &[String]) -> Read<BTreeSet<Name>> {
    let mut set = BTreeSet::new();
    for (at, text) in texts.iter().enumerate() {
        let field = format!("{field}[{at}]");
        if !set.insert(name(&field, text)?) {
            return Err(bad_field(&field, format!("{field} names one twice"), "name each once"));
        }
    }
    Ok(set)
}

/// A map by names, each value read by `read`.
pub(crate) fn name_map<V, T>(
    field: &str,
    map: BTreeMap<String, V>,
    read: impl Fn(V) -> Read<T>,
) -> Read<BTreeMap<Name, T>> {
    let item = |(key, value): (String, V)| {
        let value = read(value).within(format_args!("{field}[{key:?}]"))?;
        Ok((name(&format!("key of {field}"), &key).within(field)?, value))
    };
    map.into_iter().map(item).collect()
}

pub(crate) fn digest(field: &str, text: &str) -> Read<Digest> {
    text.parse().map_err(|bad| {
        bad_field(
            field,
            format!("{field} is no digest: {bad}"),
            "copy the digest as it was printed",
        )
    })
}

pub(crate) fn version(field: &str, text: String) -> Read<Version> {
    match resource::is_version(&text) {
        true => Ok(text),
        false => Err(bad_field(
            field,
            format!("{field} is no version"),
            "use 1 to 40 characters of A-Z, a-z, 0-9, '.', '+', '-', starting with a letter or digit",
        )),
    }
}

pub(crate) fn uid(field: &str, text: &str) -> Read<Uid> {
    let read = || {
        let (revision, ordinal) = text.split_once('-')?;
        let ordinal = u32::try_from(resource::number(ordinal)?).ok()?;
        Some(Uid { revision: Revision(resource::number(revision)?), ordinal })
    };
    read().ok_or_else(|| {
        bad_field(field, format!("{field} is no uid"), "copy the uid as it was printed")
    })
}

/// A moment as protobuf says it; those past the year 9999 stop there.
pub(crate) fn time(moment: Timestamp) -> prost_types::Timestamp {
    let ms = moment.0.min(TIME_MAX);
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(ms % 1_000).unwrap_or(0) * 1_000_000;
    prost_types::Timestamp { seconds, nanos }
}

pub(crate) fn read_time(field: &str, value: Option<prost_types::Timestamp>) -> Read<Timestamp> {
    read_optional_time(field, value).and_then(|moment| required(field, moment))
}

pub(crate) fn read_optional_time(
    field: &str,
    value: Option<prost_types::Timestamp>,
) -> Read<Option<Timestamp>> {
    let Some(value) = value else { return Ok(None) };
    let read = || {
        let seconds = u64::try_from(value.seconds).ok()?;
        let nanos = u64::try_from(value.nanos).ok().filter(|nanos| nanos % 1_000_000 == 0)?;
        let ms = seconds.checked_mul(1_000)?.checked_add(nanos / 1_000_000)?;
        (nanos < 1_000_000_000 && ms <= TIME_MAX).then_some(Timestamp(ms))
    };
    read().map(Some).ok_or_else(|| {
        bad_field(
            field,
            format!("{field} is no time in whole milliseconds from 1970 to 9999"),
            "write a time such as 2026-01-31T12:00:00Z",
        )
    })
}

/// Refuses an enum value that is not stated or not known here.
pub(crate) fn unknown_word<T>(field: &str, words: &str) -> Read<T> {
    Err(bad_field(
        field,
        format!("{field} is not stated, or not known to this version"),
        format!("use one of {words}"),
    ))
}
