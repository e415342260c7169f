//! Tokens: one exact form, no secret in `Debug`, fair dice.

use proptest::prelude::*;

use super::*;
use crate::entropy::SystemEntropy;

/// Counts upwards from a start: the same start gives the same token.
struct Counting(std::sync::atomic::AtomicU8);

impl Entropy for Counting {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        for byte in buffer {
            *byte = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }
}

struct Stuck;

impl Entropy for Stuck {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        buffer.fill(u8::MAX);
        Ok(())
    }
}

#[test]
fn a_token_survives_printing_and_parsing() {
    let token = JoinToken::generate([0xab; 32], &SystemEntropy::new()).unwrap();
    let text = token.to_string();
    assert_eq!(text.len(), TOKEN_BYTES);
    let parsed: JoinToken = text.parse().unwrap();
    assert_eq!(parsed.to_string(), text);
    assert_eq!(parsed.authority_sha256(), [0xab; 32]);
    assert!(token.hash().verify(&parsed));
}

#[test]
fn the_same_dice_give_the_same_token() {
    let make = |start: u8| JoinToken::generate([1; 32], &Counting(start.into())).unwrap();
    assert_eq!(make(0).to_string(), make(0).to_string());
    assert_ne!(make(0).to_string(), make(1).to_string());
    let hash = "01".repeat(32);
    assert_eq!(make(0).to_string(), format!("MST10{hash}::abcdef.6789abcdefghijkl"));
}

#[test]
fn dice_that_never_give_a_fair_byte_are_an_error_not_a_weak_token() {
    assert_eq!(JoinToken::generate([1; 32], &Stuck).unwrap_err(), EntropyError);
}

#[test]
fn debug_never_prints_the_secret() {
    let token = JoinToken::generate([0; 32], &SystemEntropy::new()).unwrap();
    let printed = format!("{token:?} {:#?}", Some(&token));
    assert!(printed.contains(token.id()));
    assert!(!printed.contains(token.secret.expose().as_str()));
}

#[test]
fn a_hash_verifies_only_its_own_token() {
    let dice = SystemEntropy::new();
    let token = JoinToken::generate([0; 32], &dice).unwrap();
    let other = JoinToken::generate([0; 32], &dice).unwrap();
    assert!(token.hash().verify(&token));
    assert!(!token.hash().verify(&other));
    let stored: TokenHash = token.hash().to_string().parse().unwrap();
    assert!(stored.verify(&token));
    assert_eq!("AB".repeat(32).parse::<TokenHash>(), Err(TokenError::Hash));
    assert_eq!("ab".repeat(31).parse::<TokenHash>(), Err(TokenError::Hash));
}

#[test]
fn only_the_exact_form_parses() {
    let hash = "0a".repeat(32);
    let good = format!("MST10{hash}::abcdef.0123456789abcdef");
    assert!(good.parse::<JoinToken>().is_ok());
    for bad in [
        String::new(),
        good[1..].to_owned(),
        format!("{good} "),
        format!(" {}", &good[..good.len() - 1]),
        good.replace("MST10", "MST11"),
        good.replace("MST10", "mst10"),
        good.replace("0a0a", "0A0a"),
        good.replace("0a0a", "0g0a"),
        good.replace("::", ":."),
        good.replace("abcdef.", "abcde.f"),
        good.replace("abcdef.", "abcdeF."),
        good.replace("abcdef.", "abc.ef."),
        good.replace("9abc", "9ab-"),
        good.replace("9abc", "9aä"),
        "a".repeat(1 << 20),
    ] {
        assert_eq!(bad.parse::<JoinToken>().unwrap_err(), TokenError::Shape, "{bad:.120?}");
    }
}

proptest! {
    #[test]
    fn the_parser_never_panics_and_never_changes_what_it_accepts(text in "\\PC{0,120}") {
        if let Ok(token) = text.parse::<JoinToken>() {
            prop_assert_eq!(token.to_string(), text);
        }
    }

    #[test]
    fn one_changed_byte_never_yields_the_same_token(at in 0..TOKEN_BYTES, byte in 32u8..127) {
        let good = format!("MST10{}::abcdef.0123456789abcdef", "0a".repeat(32));
        let mut bytes = good.clone().into_bytes();
        bytes[at] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        if let Ok(token) = changed.parse::<JoinToken>() {
            prop_assert_eq!(token.to_string() == good, changed == good);
        }
    }
}
