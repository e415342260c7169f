//! The dice this room throws itself: token ids, token secrets and certificate serials.
//!
//! The source is an argument, so that a simulation can hand in a seeded one.

use ring::rand::{SecureRandom, SystemRandom};

/// The operating system had no randomness to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot get randomness from the operating system")]
pub struct EntropyError;

/// A source of random bytes good enough for secrets.
pub trait Entropy: Send + Sync {
    /// Fills the whole buffer, or fails without promising anything about its content.
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError>;
}

/// The operating system's generator; the only one for production.
#[derive(Debug, Clone)]
pub struct SystemEntropy(SystemRandom);

impl SystemEntropy {
    /// Costs nothing; the first `fill` may wait for the system to gather randomness.
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Default for SystemEntropy {
    fn default() -> Self {
        Self::new()
    }
}

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        self.0.fill(buffer).map_err(|_unspecified| EntropyError)
    }
}

/// A certificate serial nobody can guess and no two voters will both choose; never zero.
pub fn random_serial(entropy: &dyn Entropy) -> Result<u128, EntropyError> {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes)?;
    Ok(u128::from_be_bytes(bytes).max(1))
}
