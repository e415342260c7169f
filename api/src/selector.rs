//! Label selectors: `a=b,c==d`, the part of Kubernetes' grammar that says "all of these pairs". Other
//! operators are refused by name rather than misread.

use crate::reason::bad_field;
use model::{Labels, Rejection};

/// Pairs in one selector, at most.
pub const PAIRS_MAX: usize = 10;

/// Longest selector text, in bytes.
pub const SELECTOR_BYTES_MAX: usize = 4_096;

/// Pairs that a resource's labels must all contain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Labels);

impl Selector {
    /// Reads a selector from the field `selector`; an empty text selects everything.
    ///
    /// # Errors
    /// `FIELD` when the text is longer than [`SELECTOR_BYTES_MAX`], has more than [`PAIRS_MAX`] pairs,
    /// uses another operator, or a key or value is malformed or stands twice with different values.
    pub fn parse(text: &str) -> Result<Self, Rejection> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(refuse("the selector is too long".to_owned()));
        }
        let mut labels = Labels::new();
        if text.trim().is_empty() {
            return Ok(Self(labels));
        }
        for (at, pair) in text.split(',').enumerate() {
            let (key, value) = pair_of(pair)
                .map_err(|problem| refuse(format!("pair {} of the selector {problem}", at + 1)))?;
            let before = labels.insert(key.to_owned(), value.to_owned());
            if before.is_some_and(|before| before != value) {
                return Err(refuse(format!("the selector wants two values of one key: {key}")));
            }
        }
        if labels.len() > PAIRS_MAX {
            return Err(refuse(format!("the selector has more than {PAIRS_MAX} pairs")));
        }
        Ok(Self(labels))
    }

    /// Whether `labels` contain all pairs.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// The pairs.
    pub fn labels(&self) -> &Labels {
        &self.0
    }
}

fn pair_of(text: &str) -> Result<(&str, &str), &'static str> {
    let text = text.trim();
    if text.contains("!=") || text.starts_with('!') || text.contains(['(', ')', '<', '>']) {
        return Err("uses an operator that is not supported: only = and == are");
    }
    let (key, value) = text.split_once('=').ok_or("has no =")?;
    let value = value.strip_prefix('=').unwrap_or(value);
    let (key, value) = (key.trim(), value.trim());
    if !is_key(key) {
        return Err("has a malformed key");
    }
    if value.len() > 63 || !value.bytes().all(is_label_byte) {
        return Err("has a malformed value");
    }
    Ok((key, value))
}

/// `[prefix/]name`, the prefix a DNS name.
fn is_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_byte =
        |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
    let prefix = prefix
        .is_none_or(|prefix| (1..=253).contains(&prefix.len()) && prefix.bytes().all(prefix_byte));
    prefix && (1..=63).contains(&name.len()) && name.bytes().all(is_label_byte)
}

fn is_label_byte(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-')
}

fn refuse(message: String) -> Rejection {
    bad_field("selector", message, "write pairs such as environment=production,zone=north")
}

#[cfg(test)]
mod tests {

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn all_pairs_must_match() {
        let selector = Selector::parse(" a=1, example.com/b == two ,c=").unwrap();
        let all = labels(&[("a", "1"), ("example.com/b", "two"), ("c", ""), ("d", "4")]);
        assert!(selector.matches(&all));
        for key in ["a", "example.com/b", "c"] {
            let mut fewer = all.clone();
            fewer.remove(key);
            assert!(!selector.matches(&fewer), "{key}");
        }
        assert!(!selector.matches(&labels(&[("a", "11"), ("example.com/b", "two"), ("c", "")])));
    }

    #[test]
    fn nothing_selects_everything() {
        assert!(Selector::parse("  ").unwrap().is_everything());
        assert!(Selector::default().matches(&Labels::new()));
    }

    #[test]
    fn other_operators_and_malformed_pairs_are_refused_with_a_reason() {
        let long = "x".repeat(64);
        let cases = [
            ("a!=b", "operator"),
            ("!a", "operator"),
            ("a in (b)", "operator"),
            ("a>1", "operator"),
            ("a", "no ="),
            ("a=b,", "pair 2"),
            ("=b", "malformed key"),
            ("/a=b", "malformed key"),
            ("P/a=b", "malformed key"),
            ("a=b c", "malformed value"),
            ("a===b", "malformed value"),
            ("a=1,a=2", "two values"),
            ("a=b,c=d,e=f,g=h,i=j,k=l,m=n,o=p,q=r,s=t,u=v", "more than 10"),
        ];
        for (text, expected) in cases {
            let rejection = Selector::parse(text).unwrap_err();
            assert!(rejection.message.contains(expected), "{text}: {}", rejection.message);
            assert_eq!(rejection.field, "selector");
        }
        assert!(Selector::parse(&format!("{long}=a")).is_err());
        assert!(Selector::parse(&format!("a={long}")).is_err());
        assert!(Selector::parse(&"a=b,".repeat(2_000)).is_err());
    }
}
