//! Reading a json descriptor strictly: every field that is wrong, missing or unknown is listed.
//!
//! serde would stop at the first error and name no path; here each reader takes the fields it
//! knows out of the object, and what is left over is unknown. A field named twice is refused,
//! because two parsers would see two different descriptors.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};

use crate::app_image::violation::{Findings, ViolationCode, printable};

/// A json value whose objects keep their fields in order of name, each once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// A whole number from 0.
    Number(u64),
    /// Any other number.
    OtherNumber,
    Text(String),
    List(Vec<Value>),
    Object(BTreeMap<String, Value>),
}

impl Value {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) | Self::OtherNumber => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// What a duplicate field's error begins with; serde's errors carry text only.
const DUPLICATE: &str = "duplicate field ";

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a json value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(u64::try_from(value).map_or(Value::OtherNumber, Value::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::OtherNumber)
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = BTreeMap::new();
        while let Some((name, value)) = fields.next_entry::<String, Value>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format!("{DUPLICATE}`{}`", printable(&name))));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// One json object while it is being read.
#[derive(Debug)]
pub(crate) struct Fields<'p> {
    path: &'p str,
    /// What stands before a field's name in a violation, as `limits.`.
    prefix: String,
    object: BTreeMap<String, Value>,
}

impl<'p> Fields<'p> {
    /// Parses the file at `path`, noting what is wrong with its text.
    pub(crate) fn parse(path: &'p str, text: &[u8], findings: &mut Findings) -> Option<Self> {
        // Editors on some systems write a byte order mark; it says nothing.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        match serde_json::from_slice(text) {
            Ok(Value::Object(object)) => Some(Self { path, prefix: String::new(), object }),
            Ok(other) => {
                let detail = format!("the file is {}, not an object", other.kind());
                findings.add(ViolationCode::MalformedJson, path, detail);
                None
            }
            Err(error) => {
                let detail = error.to_string();
                let code = if detail.starts_with(DUPLICATE) {
                    ViolationCode::DuplicateField
                } else {
                    ViolationCode::MalformedJson
                };
                findings.add(code, path, detail);
                None
            }
        }
    }

    /// The path of the file.
    pub(crate) fn path(&self) -> &'p str {
        self.path
    }

    /// A field's name as violations show it.
    pub(crate) fn full_name(&self, field: &str) -> String {
        format!("{}{field}", self.prefix)
    }

    /// Notes a violation at a field.
    pub(crate) fn add(
        &self,
        code: ViolationCode,
        field: &str,
        detail: impl Into<String>,
        findings: &mut Findings,
    ) {
        findings.add_field(code, self.path, &self.full_name(field), detail);
    }

    /// Notes that a required field is missing, if `value` is; hands it on.
    fn require<T>(
        &self,
        field: &str,
        present: bool,
        value: Option<T>,
        f: &mut Findings,
    ) -> Option<T> {
        if !present {
            self.add(ViolationCode::MissingField, field, "the field is missing", f);
        }
        value
    }

    fn wrong_type(&self, field: &str, expected: &str, found: &Value, findings: &mut Findings) {
        let detail = format!("expected {expected}, found {}", found.kind());
        self.add(ViolationCode::WrongType, field, detail, findings);
    }

    /// A string that may be left out.
    pub(crate) fn optional_text(&mut self, field: &str, f: &mut Findings) -> Option<String> {
        match self.object.remove(field)? {
            Value::Text(text) => Some(text),
            other => {
                self.wrong_type(field, "a string", &other, f);
                None
            }
        }
    }

    /// A string that must be there.
    pub(crate) fn text(&mut self, field: &str, findings: &mut Findings) -> Option<String> {
        let present = self.object.contains_key(field);
        let value = self.optional_text(field, findings);
        self.require(field, present, value, findings)
    }

    /// A whole number from 0 that may be left out.
    pub(crate) fn optional_number(&mut self, field: &str, f: &mut Findings) -> Option<u64> {
        match self.object.remove(field)? {
            Value::Number(number) => Some(number),
            other => {
                self.wrong_type(field, "a whole number from 0", &other, f);
                None
            }
        }
    }

    /// A whole number from 0 that must be there.
    pub(crate) fn number(&mut self, field: &str, findings: &mut Findings) -> Option<u64> {
        let present = self.object.contains_key(field);
        let value = self.optional_number(field, findings);
        self.require(field, present, value, findings)
    }

    /// A boolean, false when left out.
    pub(crate) fn flag(&mut self, field: &str, findings: &mut Findings) -> bool {
        match self.object.remove(field) {
            None => false,
            Some(Value::Bool(value)) => value,
            Some(other) => {
                self.wrong_type(field, "a boolean", &other, findings);
                false
            }
        }
    }

    /// A list of strings, empty when left out.
    pub(crate) fn texts(&mut self, field: &str, findings: &mut Findings) -> Vec<String> {
        let items = match self.object.remove(field) {
            None => return Vec::new(),
            Some(Value::List(items)) => items,
            Some(other) => {
                self.wrong_type(field, "a list of strings", &other, findings);
                return Vec::new();
            }
        };
        let mut texts = Vec::new();
        for (position, item) in items.into_iter().enumerate() {
            match item {
                Value::Text(text) => texts.push(text),
                other => {
                    self.wrong_type(&format!("{field}[{position}]"), "a string", &other, findings);
                }
            }
        }
        texts
    }

    /// An object with fields of its own, if it is there.
    pub(crate) fn object(&mut self, field: &str, findings: &mut Findings) -> Option<Fields<'p>> {
        match self.object.remove(field)? {
            Value::Object(object) => {
                let prefix = format!("{}.", self.full_name(field));
                Some(Fields { path: self.path, prefix, object })
            }
            other => {
                self.wrong_type(field, "an object", &other, findings);
                None
            }
        }
    }

    /// An object of freely named strings, empty when left out.
    pub(crate) fn text_map(
        &mut self,
        field: &str,
        findings: &mut Findings,
    ) -> BTreeMap<String, String> {
        let Some(mut fields) = self.object(field, findings) else {
            return BTreeMap::new();
        };
        let mut map = BTreeMap::new();
        for name in fields.names() {
            if let Some(text) = fields.optional_text(&name, findings) {
                map.insert(name, text);
            }
        }
        map
    }

    /// The names of the fields not yet taken.
    pub(crate) fn names(&self) -> Vec<String> {
        self.object.keys().cloned().collect()
    }

    /// Notes every field that nobody took.
    pub(crate) fn finish(self, findings: &mut Findings) {
        for name in self.object.keys() {
            let detail = "no such field is known here";
            self.add(ViolationCode::UnknownField, name, detail, findings);
        }
    }
}

/// Whether `name` is a name: 1 to 63 of a-z, 0-9 and `-`, a letter first, no `-` last.
pub(crate) fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last() != Some(&b'-')
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// The field `name`, checked.
pub(crate) fn name(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<String> {
    let text = fields.text("name", findings)?;
    if is_name(&text) {
        return Some(text);
    }
    let detail = format!("`{}` is not a name", printable(&text));
    fields.add(ViolationCode::BadName, "name", detail, findings);
    None
}

/// The field `version`, checked.
pub(crate) fn version(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<semver::Version> {
    let text = fields.text("version", findings)?;
    match semver::Version::parse(&text) {
        Ok(version) => Some(version),
        Err(error) => {
            let detail = format!("`{}` is not a version: {error}", printable(&text));
            fields.add(ViolationCode::BadVersion, "version", detail, findings);
            None
        }
    }
}
