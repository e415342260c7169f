//! Request ids as text: `<unix ms>-<32 hex digits>`, such as
//! `1790000000000-0123456789abcdef0123456789abcdef`. Whoever asks makes one and sends it again with each
//! retry, so that what was asked is done once.

use crate::reason::bad_field;
use model::{Rejection, RequestId, Timestamp};

/// The text of a request id.
pub fn format(id: &RequestId) -> String {
    format!("{}-{:032x}", id.at.0, id.unique)
}

/// The request id in the field `request_id`; `None` if it is empty: such a request is not repeated
/// safely.
///
/// # Errors
/// `FIELD` when the text is not of the form above.
pub fn parse(text: &str) -> Result<Option<RequestId>, Rejection> {
    if text.is_empty() {
        return Ok(None);
    }
    read(text).map(Some).ok_or_else(|| {
        bad_field(
            "request_id",
            "request_id is not of the form <unix ms>-<32 hex digits>",
            "send the time in milliseconds, a dash and 32 random lower-case hexadecimal digits",
        )
    })
}

fn read(text: &str) -> Option<RequestId> {
    let (at, unique) = text.split_once('-')?;
    let digits = |text: &str, set: fn(u8) -> bool| text.bytes().all(set);
    let lower_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    if unique.len() != 32 || !digits(unique, lower_hex) {
        return None;
    }
    let at = Timestamp(crate::resource::number(at)?);
    Some(RequestId { at, unique: u128::from_str_radix(unique, 16).ok()? })
}

#[cfg(test)]
mod tests {

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_request_id_survives_its_text(at: u64, unique: u128) {
            let id = RequestId { at: Timestamp(at), unique };
            prop_assert_eq!(parse(&format(&id)), Ok(Some(id)));
        }

        #[test]
        fn a_text_that_parses_is_the_text_of_what_it_says(text in "[0-9]{0,3}-?[0-9a-fA-F]{30,33}") {
            if let Ok(Some(id)) = parse(&text) {
                prop_assert_eq!(format(&id), text);
            }
        }
    }

    #[test]
    fn nothing_is_no_request_id_and_anything_else_is_refused() {
        assert_eq!(parse(""), Ok(None));
        for text in ["1", "1-", "01-00000000000000000000000000000000", "x", "1-0", "é-é"] {
            let rejection = parse(text).unwrap_err();
            assert_eq!(rejection.field, "request_id", "{text}");
        }
    }
}
