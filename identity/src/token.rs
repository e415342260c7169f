//! Join tokens: `MST10<sha256 of the authority's certificate>::<id>.<secret>`.
//!
//! The hash tells the newcomer whom to trust (it talks only to a server vouched for by exactly that
//! authority), the id finds the token in the replicated state, the secret proves it was given out.
//! The state stores `TokenHash`, never the secret; what a token is for (node, agent, operator),
//! its expiry and its uses are stored there too, not in the text.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use zeroize::Zeroize;

use crate::entropy::{Entropy, EntropyError};
use crate::secret::Secret;

const PREFIX: &str = "MST10";
const HASH_CHARS: usize = 64;
const ID_CHARS: usize = 6;
const SECRET_CHARS: usize = 16;
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// The length of every join token, in bytes; anything longer or shorter is refused unread.
pub const TOKEN_BYTES: usize = PREFIX.len() + HASH_CHARS + 2 + ID_CHARS + 1 + SECRET_CHARS;

/// A text is no join token or token hash. It never repeats the text, which may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not of the form `MST10<64 hex digits>::<6 characters>.<16 characters>`.
    #[error("join token must have the form MST10<hash>::<id>.<secret>")]
    Shape,
    /// Not 64 lower-case hex digits.
    #[error("token hash must be 64 lower-case hex digits")]
    Hash,
}

/// A token as its holder knows it. `Display` prints all of it (to show it once), `Debug` hides the
/// secret.
#[derive(Clone)]
pub struct JoinToken {
    authority_sha256: [u8; 32],
    id: String,
    secret: Secret<String>,
}

impl JoinToken {
    /// A new token for the authority whose certificate (DER) has this SHA-256.
    pub fn generate(
        authority_sha256: [u8; 32],
        entropy: &dyn Entropy,
    ) -> Result<Self, EntropyError> {
        let id = random_text(ID_CHARS, entropy)?;
        let secret = Secret::new(random_text(SECRET_CHARS, entropy)?);
        Ok(Self { authority_sha256, id, secret })
    }

    /// SHA-256 of the authority's certificate (DER) that a server must present.
    pub fn authority_sha256(&self) -> [u8; 32] {
        self.authority_sha256
    }

    /// The public half, under which the state keeps the token's record.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the state stores in place of the secret.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(self.secret.expose())
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = hex::encode(self.authority_sha256);
        write!(f, "{PREFIX}{hash}::{}.{}", self.id, self.secret.expose())
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        if text.len() != TOKEN_BYTES {
            return Err(TokenError::Shape);
        }
        let parts = || {
            let (hash, credential) = text.strip_prefix(PREFIX)?.split_once("::")?;
            let (id, secret) = credential.split_once('.')?;
            let well_formed = is_plain(id, ID_CHARS) && is_plain(secret, SECRET_CHARS);
            well_formed.then_some((hash, id, secret))
        };
        let (hash, id, secret) = parts().ok_or(TokenError::Shape)?;
        let authority_sha256 = parse_sha256(hash).ok_or(TokenError::Shape)?;
        Ok(Self { authority_sha256, id: id.to_owned(), secret: Secret::new(secret.to_owned()) })
    }
}

/// SHA-256 of a token's secret: safe to replicate, to back up and to print. Written as 64 hex
/// digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    fn of(secret: &str) -> Self {
        Self(sha256(secret.as_bytes()))
    }

    /// Whether this is the hash of the token's secret; takes the same time whatever the answer.
    pub fn verify(&self, token: &JoinToken) -> bool {
        let presented = token.hash();
        let differing = self
            .0
            .iter()
            .zip(presented.0)
            .fold(0, |bits, (a, b)| bits | std::hint::black_box(a ^ b));
        std::hint::black_box(differing) == 0
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for TokenHash {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        parse_sha256(text).map(Self).ok_or(TokenError::Hash)
    }
}

/// SHA-256 of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// Exactly 64 lower-case hex digits, so that one hash has one spelling.
fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    let lower = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (lower && hex::decode_to_slice(text, &mut hash).is_ok()).then_some(hash)
}

fn is_plain(text: &str, chars: usize) -> bool {
    text.len() == chars && text.bytes().all(|b| ALPHABET.contains(&b))
}

/// Every character equally likely: bytes that would favour the alphabet's start are thrown away.
fn random_text(chars: usize, entropy: &dyn Entropy) -> Result<String, EntropyError> {
    // A source that yields only thrown-away bytes is broken; 32 rounds are beyond bad luck.
    const ROUNDS_MAX: usize = 32;
    const FAIR_BELOW: u8 = 252; // the largest multiple of 36 in a byte
    let mut text = String::with_capacity(chars);
    let mut bytes = [0; 32];
    for _ in 0..ROUNDS_MAX {
        entropy.fill(&mut bytes)?;
        let fair = bytes.iter().filter(|b| **b < FAIR_BELOW);
        text.extend(
            fair.take(chars - text.len()).map(|b| char::from(ALPHABET[usize::from(b % 36)])),
        );
        bytes.zeroize();
        if text.len() == chars {
            return Ok(text);
        }
    }
    Err(EntropyError)
}

#[cfg(test)]
mod tests;
