//! Values to bytes and back: bincode behind a version byte. Nothing else in muster names bincode.
//!
//! ```text
//! +---------+------------------------------------------+
//! | 1       | bincode 2 "standard": little-endian,     |
//! | version | variable-length integers, fields in order |
//! +---------+------------------------------------------+
//! ```
//!
//! bincode writes positions, not names: never reorder fields or variants, only append variants, and
//! use none of serde's `flatten`, `skip*`, `tag`, `untagged` on a persisted type. A type that is
//! kept across releases is an enum of its versions (`V1(..) | V2(..)`, see [`Versioned`]), and the
//! golden bytes of each released version stay in a test.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fault::Fault;

/// The first byte of everything encoded.
const VERSION: u8 = 1;

/// Bytes that one value may claim while it is decoded, so that damaged lengths cannot exhaust
/// memory.
pub const DECODED_BYTES_MAX: usize = 256 << 20;

const fn config()
-> bincode::config::Configuration<bincode::config::LittleEndian, bincode::config::Varint> {
    bincode::config::standard()
}

/// The bytes of `value`.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::with_capacity(128);
    encode_into(&mut bytes, value)?;
    Ok(bytes)
}

/// Appends the bytes of `value`, with their version byte, to `bytes`. After a fault `bytes` holds
/// what it held before.
pub fn encode_into<T: Serialize + ?Sized>(bytes: &mut Vec<u8>, value: &T) -> Result<(), Fault> {
    let before = bytes.len();
    bytes.push(VERSION);
    let written = bincode::serde::encode_into_std_write(value, bytes, config());
    written.map(drop).map_err(|error| {
        bytes.truncate(before);
        Fault::Codec { attempted: "encode", detail: error.to_string() }
    })
}

/// The value in `bytes`, all of which must be used. Reads nothing that claims more than
/// [`DECODED_BYTES_MAX`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    let fault = |detail: String| Fault::Codec { attempted: "decode", detail };
    let (version, body) = match bytes.split_first() {
        Some((version, body)) => (*version, body),
        None => return Err(fault("no bytes".to_owned())),
    };
    if version != VERSION {
        let (found, known) = (u32::from(version), u32::from(VERSION));
        return Err(Fault::version("encoded value", Path::new(""), found, known));
    }
    let limited = config().with_limit::<DECODED_BYTES_MAX>();
    let (value, used) = bincode::serde::decode_from_slice(body, limited)
        .map_err(|error| fault(error.to_string()))?;
    match used == body.len() {
        true => Ok(value),
        false => Err(fault(format!("{} bytes are left over", body.len() - used))),
    }
}

/// An enum of all versions of one persisted type.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// #[derive(Serialize, Deserialize)]
/// enum StoredHost { V1(String), V2(Host) }
/// #[derive(Serialize, Deserialize, Debug, PartialEq)]
/// struct Host { name: String, site: Option<String> }
///
/// impl storage::codec::Versioned for StoredHost {
///     type Latest = Host;
///     fn upgrade(self) -> Host {
///         match self {
///             StoredHost::V1(name) => Host { name, site: None },
///             StoredHost::V2(host) => host,
///         }
///     }
/// }
///
/// let old = storage::codec::encode(&StoredHost::V1("edge-2".to_owned())).unwrap();
/// let host = storage::codec::decode_latest::<StoredHost>(&old).unwrap();
/// assert_eq!(host, Host { name: "edge-2".to_owned(), site: None });
/// ```
pub trait Versioned: Serialize + DeserializeOwned {
    /// What the code works with.
    type Latest;

    /// Turns whichever version was read into the latest.
    fn upgrade(self) -> Self::Latest;
}

/// Decodes any version of `V` and upgrades it.
pub fn decode_latest<V: Versioned>(bytes: &[u8]) -> Result<V::Latest, Fault> {
    decode::<V>(bytes).map(V::upgrade)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Stored {
        V1 { name: String, count: u64 },
        V2 { name: String, labels: Vec<(String, Option<i32>)>, ratio: f64 },
    }

    /// Golden: bytes that a release wrote. They may be added to, never changed.
    type Golden = (&'static str, fn() -> Stored);
    const GOLDEN: [Golden; 2] = [
        ("01000473686f70fb2c01", || Stored::V1 { name: "shop".to_owned(), count: 300 }),
        ("010106656467652d3202047369746501010472 61636b00000000000000f83f", || Stored::V2 {
            name: "edge-2".to_owned(),
            labels: vec![("site".to_owned(), Some(-1)), ("rack".to_owned(), None)],
            ratio: 1.5,
        }),
    ];

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
    }

    #[test]
    fn golden_bytes_stay_as_they_were_written() {
        for (golden, value) in GOLDEN {
            assert_eq!(hex(&encode(&value()).unwrap()), golden.replace(' ', ""));
            assert_eq!(decode::<Stored>(&unhex(golden)).unwrap(), value());
        }
    }

    #[test]
    fn a_newer_version_or_variant_is_refused_by_name() {
        let mut bytes = encode(&GOLDEN[0].1()).unwrap();
        bytes[1] = 2;
        assert!(matches!(decode::<Stored>(&bytes), Err(Fault::Codec { .. })));
        bytes[0] = 9;
        let fault = decode::<Stored>(&bytes).unwrap_err();
        assert!(matches!(fault, Fault::Version { found: 9, known: 1, .. }), "{fault}");
    }

    #[test]
    fn left_over_missing_and_absurd_bytes_are_refused() {
        let mut bytes = encode(&GOLDEN[1].1()).unwrap();
        for cut in 0..bytes.len() {
            assert!(decode::<Stored>(&bytes[..cut]).is_err(), "{cut} bytes");
        }
        bytes.push(0);
        assert!(decode::<Stored>(&bytes).is_err());
        // A list that claims 2^60 elements.
        let absurd = [&[VERSION, 253][..], &(1u64 << 60).to_le_bytes()[..]].concat();
        assert!(matches!(decode::<Vec<u64>>(&absurd), Err(Fault::Codec { .. })));
    }

    proptest::proptest! {
        #[test]
        fn whatever_bytes_decode_never_panics(bytes: Vec<u8>) {
            let _ = decode::<Stored>(&bytes);
        }
    }
}
