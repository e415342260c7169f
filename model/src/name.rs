//! Names given by users: validated, cheap to clone, ordered.

use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// A resource name: 1 to 63 characters of `[a-z0-9-]`, starting and ending with a letter or digit
/// (a DNS label, as Kubernetes users expect).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name(Arc<str>);

/// Why a text is not a name. The text itself is not repeated: it may be long or hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name has 1 to 63 characters of a-z, 0-9 and '-', and starts and ends with a letter or digit"
)]
pub struct BadName;

impl Name {
    /// Longest name in bytes.
    pub const BYTES_MAX: usize = 63;

    /// Checks and wraps `text`.
    ///
    /// # Errors
    /// [`BadName`] when the text breaks the rule above.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let outer = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = text.as_bytes();
        match (bytes.first(), bytes.last()) {
            (Some(first), Some(last))
                if bytes.len() <= Self::BYTES_MAX
                    && outer(*first)
                    && outer(*last)
                    && bytes.iter().copied().all(inner) =>
            {
                Ok(Self(text.into()))
            }
            _ => Err(BadName),
        }
    }

    /// The first of all names in order: where ranges over keys begin.
    pub(crate) fn first() -> Self {
        Self("0".into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::new(text)
    }
}
