//! Readers of what people type: pairs, sizes, spans of time.

use std::{collections::BTreeMap, time::Duration};

/// `key=value`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".into()),
    }
}

/// `a=b,c=d`.
pub(crate) fn pairs(text: &str) -> Result<BTreeMap<String, String>, String> {
    text.split(',').map(|part| pair(part.trim())).collect()
}

/// A whole number.
pub(crate) fn whole(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("write a whole number from 0 to {}", u32::MAX))
}

/// Bytes: `64MiB`, `512KiB`, `2G`; powers of 1,024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_end_matches('B').trim_end_matches('i') {
        "" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err("write it like 64MiB, 512KiB or 2GiB".into()),
    };
    let number: u64 = number.parse().map_err(|_| "it begins with a whole number".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "it is too large".into())
}

/// A span: `500ms`, `30s`, `5m`, `24h`, `7d`; a bare number is seconds.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor_ms = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("write it like 500ms, 30s, 5m, 24h or 7d".into()),
    };
    let number: u64 = number.parse().map_err(|_| "it begins with a whole number".to_owned())?;
    let ms = number.checked_mul(factor_ms).ok_or_else(|| "it is too long".to_owned())?;
    Ok(Duration::from_millis(ms))
}

/// CPU: `250m` is a quarter of one, `2` two.
pub(crate) fn cpu_millis(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.strip_suffix('m') {
        Some(number) => (number, 1),
        None => (text, 1_000),
    };
    let number: u64 = number.parse().map_err(|_| "write it like 250m or 2".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "it is too large".into())
}

/// Milliseconds of a span, as the API takes them.
pub(crate) fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_read() {
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("2G"), Ok(2 << 30));
        assert_eq!(bytes("17"), Ok(17));
        assert_eq!(span("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(span("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(cpu_millis("250m"), Ok(250));
        assert_eq!(cpu_millis("2"), Ok(2_000));
        assert_eq!(
            pairs("a=b, c="),
            Ok([("a", "b"), ("c", "")].map(|(k, v)| (k.into(), v.into())).into())
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["", "MiB", "1.5G", "-1", "9999999999999G", "1T"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        for text in ["", "s", "1w", "99999999999999999d"] {
            assert!(span(text).is_err(), "{text}");
        }
        assert!(pair("=x").is_err());
        assert!(cpu_millis("1.5").is_err());
    }
}
