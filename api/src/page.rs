//! Pages of lists: how many items, from where, and at which revision.
//!
//! A page token says where the page before ended and which revision all pages show, and for which list
//! it was made: one that comes back with another list is refused, not misread. Clients treat it as
//! opaque.

use crate::reason::bad_field;
use model::{Rejection, Revision};

/// Items in a page when the request does not say.
pub const PAGE_SIZE_DEFAULT: usize = 50;

/// Items in a page, at most.
pub const PAGE_SIZE_MAX: usize = 500;

/// Longest page token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 2_048;

/// Which page is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Items, at most; 1 to [`PAGE_SIZE_MAX`].
    pub size: usize,
    /// Where to go on; `None` for the first page.
    pub after: Option<After>,
}

/// Where the page before ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    /// Revision that all pages show.
    pub revision: Revision,
    /// Resource name of the last item shown: go on after it.
    pub resource: String,
}

impl Page {
    /// Reads `page_size` and `page_token` of a list request. `list` is the text of everything else that
    /// decides what is listed: rpc, tenant, selector, filters.
    ///
    /// # Errors
    /// `FIELD` when the size is negative or above [`PAGE_SIZE_MAX`], or the token is none that was given
    /// out for this list.
    pub fn read(page_size: i32, page_token: &str, list: &str) -> Result<Self, Rejection> {
        let size = match usize::try_from(page_size) {
            Ok(0) => PAGE_SIZE_DEFAULT,
            Ok(size) if size <= PAGE_SIZE_MAX => size,
            _ => {
                return Err(bad_field(
                    "page_size",
                    format!("page_size is {page_size}, which is not within 0 to {PAGE_SIZE_MAX}"),
                    format!("ask for 1 to {PAGE_SIZE_MAX} items, or 0 for {PAGE_SIZE_DEFAULT}"),
                ));
            }
        };
        if page_token.is_empty() {
            return Ok(Self { size, after: None });
        }
        let after = decode(page_token, list).ok_or_else(|| {
            bad_field(
                "page_token",
                "page_token was not given out for this list",
                "send next_page_token of the page before, and the rest of the request unchanged",
            )
        })?;
        Ok(Self { size, after: Some(after) })
    }
}

/// The token of the page that goes on after `after`, for the same `list` as in [`Page::read`].
pub fn encode(after: &After, list: &str) -> String {
    let resource = hex::encode(&after.resource);
    format!("1.{}.{:016x}.{resource}", after.revision, mark(list))
}

fn decode(token: &str, list: &str) -> Option<After> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let parts: Vec<&str> = token.splitn(5, '.').collect();
    let ["1", revision, marked, resource] = parts[..] else { return None };
    if marked != format!("{:016x}", mark(list)) {
        return None;
    }
    let revision = Revision(crate::resource::number(revision)?);
    let resource = String::from_utf8(hex::decode(resource).ok()?).ok()?;
    Some(After { revision, resource })
}

/// FNV-1a: tells lists apart, protects nothing. A caller's rights are checked on every page.
fn mark(list: &str) -> u64 {
    list.bytes().fold(0xcbf2_9ce4_8422_2325, |mark, byte| {
        (mark ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_token_leads_back_to_where_it_was_made(revision: u64, resource in ".{0,200}", list in ".*") {
            let after = After { revision: Revision(revision), resource };
            let token = encode(&after, &list);
            let page = Page::read(7, &token, &list);
            prop_assert_eq!(page, Ok(Page { size: 7, after: Some(after.clone()) }));
            let other = Page::read(7, &token, &format!("{list}x"));
            prop_assert_eq!(other.unwrap_err().field, "page_token");
        }

        #[test]
        fn any_text_is_a_token_or_refused(text in ".*") {
            let _ = Page::read(0, &text, "hosts acme");
        }
    }

    #[test]
    fn sizes_have_a_default_and_a_bound() {
        assert_eq!(Page::read(0, "", "x").unwrap().size, 50);
        assert_eq!(Page::read(500, "", "x").unwrap().size, 500);
        for size in [-1, 501, i32::MIN, i32::MAX] {
            assert_eq!(Page::read(size, "", "x").unwrap_err().field, "page_size");
        }
    }

    #[test]
    fn a_token_too_long_is_refused() {
        let after = After { revision: Revision(1), resource: "r".repeat(TOKEN_BYTES_MAX) };
        assert!(Page::read(0, &encode(&after, "x"), "x").is_err());
    }
}
