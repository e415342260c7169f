//! JSON to messages.

use super::{Schema, TIMESTAMP, VALUE, time};
use crate::reason::bad_field;
use model::Rejection;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use serde_json::Value as Json;
use std::fmt::Display;

type Read<T> = Result<T, Rejection>;

impl Schema {
    /// The message at this place; errors name fields from here on down.
    pub(super) fn read_message(
        &self,
        descriptor: &MessageDescriptor,
        json: &Json,
        depth: usize,
    ) -> Read<DynamicMessage> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(refuse("messages stand too deep inside each other"));
        };
        let mut message = DynamicMessage::new(descriptor.clone());
        if descriptor.full_name() == TIMESTAMP {
            let (seconds, nanos) = json
                .as_str()
                .and_then(time::parse)
                .ok_or_else(|| refuse("this is no time such as 2026-01-31T12:00:00Z"))?;
            message.set_field_by_name("seconds", Value::I64(seconds));
            message.set_field_by_name("nanos", Value::I32(nanos));
            return Ok(message);
        }
        if descriptor.full_name() == VALUE
            && let Json::String(text) = json
        {
            message.set_field_by_name("literal", Value::String(text.clone()));
            return Ok(message);
        }
        if let Some(field) = self.inlined(descriptor) {
            let value = self.read_field(&field, json, depth)?;
            message.set_field(&field, value);
            return Ok(message);
        }
        let Json::Object(object) = json else { return Err(refuse("fields are expected here")) };
        for (name, json) in object {
            let field =
                descriptor.get_field_by_name(name).ok_or_else(|| unknown(descriptor, name))?;
            if json.is_null() {
                continue;
            }
            if let Some(other) = taken(&message, &field) {
                let message = format!("only one of {other} and {name} can be set");
                return Err(bad_field(name, message, format!("leave out {other} or {name}")));
            }
            let value = self.read_field(&field, json, depth).map_err(|error| below(name, error))?;
            message.set_field(&field, value);
        }
        Ok(message)
    }

    fn read_field(&self, field: &FieldDescriptor, json: &Json, depth: usize) -> Read<Value> {
        let kind = field.kind();
        if let (true, Kind::Message(entry)) = (field.is_map(), &kind) {
            let Json::Object(object) = json else {
                return Err(refuse("keys with values are expected here"));
            };
            let kind = entry.map_entry_value_field().kind();
            let item = |(key, json): (&String, &Json)| {
                let value = self.read_value(&kind, json, depth);
                let value = value.map_err(|error| below(&format!("[{key:?}]"), error))?;
                Ok((MapKey::String(key.clone()), value))
            };
            return object.iter().map(item).collect::<Read<_>>().map(Value::Map);
        }
        if field.is_list() {
            let Json::Array(items) = json else { return Err(refuse("a list is expected here")) };
            let item = |(at, json): (usize, &Json)| {
                let value = self.read_value(&kind, json, depth);
                value.map_err(|error| below(&format!("[{at}]"), error))
            };
            return items.iter().enumerate().map(item).collect::<Read<_>>().map(Value::List);
        }
        self.read_value(&kind, json, depth)
    }

    fn read_value(&self, kind: &Kind, json: &Json, depth: usize) -> Read<Value> {
        match kind {
            Kind::Message(descriptor) => {
                self.read_message(descriptor, json, depth).map(Value::Message)
            }
            Kind::Enum(words) => {
                let text = json.as_str().ok_or_else(|| refuse("a word is expected here"))?;
                let found = words.values().filter(|value| value.number() != 0).find(|value| {
                    value.name() == text
                        || self.word(words, value.name()).eq_ignore_ascii_case(text)
                });
                found.map(|value| Value::EnumNumber(value.number())).ok_or_else(|| {
                    let known = words.values().filter(|value| value.number() != 0);
                    let known: Vec<_> = known.map(|value| self.word(words, value.name())).collect();
                    bad_field(
                        "",
                        "the word is not known",
                        format!("use one of {}", known.join(", ")),
                    )
                })
            }
            Kind::Bool => json
                .as_bool()
                .map(Value::Bool)
                .ok_or_else(|| refuse("true or false is expected here")),
            Kind::String => match json {
                Json::String(text) => Ok(Value::String(text.clone())),
                _ => Err(bad_field("", "a text is expected here", "put it in quotes")),
            },
            Kind::Bytes => {
                let bytes = json.as_str().and_then(|text| hex::decode(text).ok());
                let bytes = bytes.ok_or_else(|| refuse("hexadecimal digits are expected here"))?;
                Ok(Value::Bytes(bytes.into()))
            }
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                signed(json)?.try_into().map(Value::I32).map_err(|_| range())
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => signed(json).map(Value::I64),
            Kind::Uint32 | Kind::Fixed32 => {
                unsigned(json)?.try_into().map(Value::U32).map_err(|_| range())
            }
            Kind::Uint64 | Kind::Fixed64 => unsigned(json).map(Value::U64),
            Kind::Double => {
                json.as_f64().map(Value::F64).ok_or_else(|| refuse("a number is expected here"))
            }
            Kind::Float => json
                .as_f64()
                .map(|value| Value::F32(value as f32))
                .ok_or_else(|| refuse("a number is expected here")),
        }
    }
}

/// A whole number, or its digits as a text.
fn signed(json: &Json) -> Read<i64> {
    let text = || json.as_str().and_then(|text| text.parse().ok());
    json.as_i64().or_else(text).ok_or_else(range)
}

fn unsigned(json: &Json) -> Read<u64> {
    let text = || json.as_str().and_then(|text| text.parse().ok());
    json.as_u64().or_else(text).ok_or_else(range)
}

/// The field of the same oneof that was read before.
fn taken(message: &DynamicMessage, field: &FieldDescriptor) -> Option<String> {
    let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic())?;
    let other = oneof.fields().find(|other| message.has_field(other))?;
    Some(other.name().to_owned())
}

fn unknown(descriptor: &MessageDescriptor, name: &str) -> Rejection {
    let known: Vec<String> = descriptor.fields().map(|field| field.name().to_owned()).collect();
    let remedy = match known.is_empty() {
        true => "leave it out".to_owned(),
        false => format!("use one of {}", known.join(", ")),
    };
    bad_field(name, format!("there is no field {name} here"), remedy)
}

fn range() -> Rejection {
    refuse("a whole number is expected here, and within range")
}

fn refuse(message: impl Display) -> Rejection {
    bad_field("", message, "correct it")
}

/// Puts the refused field below `outer`.
fn below(outer: &str, mut rejection: Rejection) -> Rejection {
    rejection.field = match rejection.field.as_str() {
        "" => outer.to_owned(),
        inner if inner.starts_with('[') => format!("{outer}{inner}"),
        inner => format!("{outer}.{inner}"),
    };
    rejection
}
