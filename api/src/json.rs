//! Messages as JSON for people (and, through JSON, as YAML), and back.
//!
//! Field names as in the protos; enums as their word without prefix (`RUNNING`, or `keep_running` where
//! the enum says lower case); times as `2026-01-31T12:00:00.000Z`; whole numbers as numbers; bytes as
//! hexadecimal digits; literals and lists of names without the message around them. Fields that are
//! unset, and words that are unspecified, are left out. Reading is strict: an unknown field or word is
//! refused with its path.

mod read;
mod time;
mod write;

use model::Rejection;
use prost_reflect::{DescriptorPool, DynamicMessage, ExtensionDescriptor, MessageDescriptor};
use serde_json::Value;

/// Levels of messages inside messages that are read, at most.
const DEPTH_MAX: usize = 64;

/// The compiled protos, as a `FileDescriptorSet` with all options.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Any message of [`v1`](crate::v1).
pub trait Message: prost::Message + prost::Name + Default {}

impl<M: prost::Message + prost::Name + Default> Message for M {}

/// The descriptors do not describe what was asked: a message of another package, say.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The compiled descriptors are broken.
    #[error("the descriptors are broken")]
    Descriptors(#[from] prost_reflect::DescriptorError),
    /// An option or message that is not in them.
    #[error("the descriptors lack {0}")]
    Missing(String),
    /// A message that its own descriptor does not decode.
    #[error("the message does not fit its descriptor")]
    Message(#[from] prost::DecodeError),
}

/// What messages look like. Made once (it costs milliseconds), then shared.
#[derive(Clone, Debug)]
pub struct Schema {
    pool: DescriptorPool,
    lower_case: ExtensionDescriptor,
    inline: ExtensionDescriptor,
}

impl Schema {
    /// The schema of this build.
    ///
    /// # Errors
    /// Only when the build is broken.
    pub fn load() -> Result<Self, SchemaError> {
        let pool = DescriptorPool::decode(DESCRIPTORS)?;
        let option = |name: &str| {
            let missing = || SchemaError::Missing(name.to_owned());
            pool.get_extension_by_name(name).ok_or_else(missing)
        };
        let (lower_case, inline) = (option("muster.v1.lower_case")?, option("muster.v1.inline")?);
        Ok(Self { pool, lower_case, inline })
    }

    /// `message` as JSON.
    ///
    /// # Errors
    /// When the message is not of this package.
    pub fn write<M: Message>(&self, message: &M) -> Result<Value, SchemaError> {
        let mut dynamic = DynamicMessage::new(self.descriptor(&M::full_name())?);
        dynamic.transcode_from(message)?;
        Ok(self.write_message(&dynamic))
    }

    /// The message that `json` says.
    ///
    /// # Errors
    /// `FIELD` at the first field that is unknown, of another type, or out of range.
    pub fn read<M: Message>(&self, json: &Value) -> Result<M, Rejection> {
        let broken = |error: &dyn std::fmt::Display| {
            crate::reason::bad_field("", error, "use a build that is not broken")
        };
        let descriptor = self.descriptor(&M::full_name()).map_err(|error| broken(&error))?;
        let message = self.read_message(&descriptor, json, DEPTH_MAX)?;
        message.transcode_to().map_err(|error| broken(&error))
    }

    /// Field names of the message `name`, such as `muster.v1.HostDraft`, for help texts.
    ///
    /// # Errors
    /// When there is no such message.
    pub fn fields(&self, name: &str) -> Result<Vec<String>, SchemaError> {
        let descriptor = self.descriptor(name)?;
        Ok(descriptor.fields().map(|field| field.name().to_owned()).collect())
    }

    fn descriptor(&self, name: &str) -> Result<MessageDescriptor, SchemaError> {
        let missing = || SchemaError::Missing(name.to_owned());
        self.pool.get_message_by_name(name).ok_or_else(missing)
    }

    /// The word of an enum value: without the prefix that repeats the enum's name.
    fn word(&self, kind: &prost_reflect::EnumDescriptor, name: &str) -> String {
        let mut prefix = String::new();
        for c in kind.name().chars() {
            if c.is_ascii_uppercase() && !prefix.is_empty() {
                prefix.push('_');
            }
            prefix.push(c.to_ascii_uppercase());
        }
        prefix.push('_');
        let word = name.strip_prefix(&prefix).unwrap_or(name);
        match kind.options().get_extension(&self.lower_case).as_bool() {
            Some(true) => word.to_ascii_lowercase(),
            _ => word.to_owned(),
        }
    }

    /// The one field of a message that is written as that field alone.
    fn inlined(&self, descriptor: &MessageDescriptor) -> Option<prost_reflect::FieldDescriptor> {
        let inline = descriptor.options().get_extension(&self.inline).as_bool();
        inline.filter(|inline| *inline).and_then(|_inline| descriptor.fields().next())
    }
}

/// Name of the message whose literal is written as its text alone.
const VALUE: &str = "muster.v1.Value";

/// Name of the message that is written as a time.
const TIMESTAMP: &str = "google.protobuf.Timestamp";

#[cfg(test)]
#[path = "json/tests.rs"]
mod tests;
