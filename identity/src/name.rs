//! Names that may stand in a certificate: clusters, tenants, hosts, operators.
//!
//! One rule for all: lower-case letters, digits and hyphens, beginning and ending with a letter or
//! digit, at most 63 bytes. So no name needs escaping in a URI, a path or a log line, and a name
//! that holds a separator cannot be mistaken for two.

use std::fmt;
use std::str::FromStr;

/// The longest name, in bytes (a DNS label's limit).
pub const NAME_BYTES_MAX: usize = 63;

/// A text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "name must be 1 to 63 lower-case letters, digits and hyphens, not beginning or ending with a \
     hyphen"
)]
pub struct NameError;

/// A validated name; compared exactly, byte by byte.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

impl Name {
    /// Takes the text if it is a name.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let ends_well = bytes.first().is_some_and(plain) && bytes.last().is_some_and(plain);
        let only_plain = bytes.iter().all(|b| plain(b) || *b == b'-');
        if bytes.len() <= NAME_BYTES_MAX && ends_well && only_plain {
            Ok(Self(text.into()))
        } else {
            Err(NameError)
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl TryFrom<&str> for Name {
    type Error = NameError;

    fn try_from(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label_in_lower_case() {
        let longest = "a".repeat(NAME_BYTES_MAX);
        for good in ["a", "0", "edge-1", "a--b", longest.as_str()] {
            assert_eq!(Name::new(good).as_ref().map(Name::as_str), Ok(good));
        }
        let too_long = "a".repeat(NAME_BYTES_MAX + 1);
        let bad = ["", "-", "-a", "a-", "A", "a.b", "a/b", "a_b", "a b", "ä", "a\n", "a\0"];
        for text in bad.into_iter().chain([too_long.as_str()]) {
            assert_eq!(Name::new(text), Err(NameError), "{text:?}");
        }
    }
}
