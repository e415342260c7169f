//! The model's own invariants, on the newest state: dear, so not at every entry.

use super::Found;
use model::State;

/// Entries between two looks.
pub(super) const EVERY: usize = 24;

/// Nothing is wrong with a state.
pub(super) fn hold(state: &State) -> Found {
    match model::invariants::check(state).first() {
        None => Ok(()),
        Some(violation) => Err(format!("{}: {}", violation.invariant, violation.detail)),
    }
}
