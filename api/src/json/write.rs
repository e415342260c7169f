//! Messages to JSON.

use super::{Schema, TIMESTAMP, VALUE, time};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};
use serde_json::{Map, Value as Json};
use std::borrow::Cow;

impl Schema {
    pub(super) fn write_message(&self, message: &DynamicMessage) -> Json {
        let descriptor = message.descriptor();
        if descriptor.full_name() == TIMESTAMP {
            return write_time(message);
        }
        if descriptor.full_name() == VALUE
            && let Some(literal) = message.get_field_by_name("literal")
            && message.has_field_by_name("literal")
        {
            return literal.as_str().map_or(Json::Null, Json::from);
        }
        if let Some(field) = self.inlined(&descriptor) {
            return self.write_field(&field, &message.get_field(&field)).unwrap_or(Json::Null);
        }
        let mut object = Map::new();
        for field in descriptor.fields() {
            if field.supports_presence() && !message.has_field(&field) {
                continue;
            }
            if let Some(json) = self.write_field(&field, &message.get_field(&field)) {
                object.insert(field.name().to_owned(), json);
            }
        }
        Json::Object(object)
    }

    /// One field; `None` for an unspecified word.
    fn write_field(&self, field: &FieldDescriptor, value: &Value) -> Option<Json> {
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { return None };
            let kind = entry.map_entry_value_field().kind();
            let item = |(key, value): (&MapKey, &Value)| {
                Some((write_key(key), self.write_value(&kind, value)?))
            };
            return Some(Json::Object(value.as_map()?.iter().filter_map(item).collect()));
        }
        if field.is_list() {
            let item = |value| self.write_value(&field.kind(), value).unwrap_or(Json::Null);
            return Some(Json::Array(value.as_list()?.iter().map(item).collect()));
        }
        self.write_value(&field.kind(), value)
    }

    fn write_value(&self, kind: &Kind, value: &Value) -> Option<Json> {
        Some(match value {
            Value::Bool(value) => Json::from(*value),
            Value::I32(value) => Json::from(*value),
            Value::I64(value) => Json::from(*value),
            Value::U32(value) => Json::from(*value),
            Value::U64(value) => Json::from(*value),
            Value::F32(value) => Json::from(*value),
            Value::F64(value) => Json::from(*value),
            Value::String(value) => Json::from(value.as_str()),
            Value::Bytes(value) => Json::from(hex::encode(value)),
            Value::Message(message) => self.write_message(message),
            Value::EnumNumber(0) => return None,
            Value::EnumNumber(number) => {
                match kind.as_enum().and_then(|of| of.get_value(*number)) {
                    Some(found) => Json::from(self.word(found.parent_enum(), found.name())),
                    None => Json::from(*number),
                }
            }
            // Fields hold these, not values: see `write_field`.
            Value::List(_) | Value::Map(_) => return None,
        })
    }
}

fn write_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

fn write_time(message: &DynamicMessage) -> Json {
    let number = |name: &str| message.get_field_by_name(name).map(Cow::into_owned);
    let seconds = number("seconds").and_then(|value| value.as_i64()).unwrap_or(0);
    let nanos = number("nanos").and_then(|value| value.as_i32()).unwrap_or(0);
    Json::from(time::format(seconds, nanos))
}
