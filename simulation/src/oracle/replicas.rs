//! (3) All nodes have equal states at equal revisions, whether they applied live, again after a
//! restart, or loaded a snapshot; and the whole log replays to the same.

use super::{Found, Oracles};
use crate::ledger::Log;
use model::{Outcome, State};

/// One seed in so many replays its whole log at the end.
const REPLAY_EVERY: u64 = 8;

/// A node that applied an entry after another has what the first had.
pub(super) fn agrees(oracles: &Oracles, index: usize, hash: u128, outcome: &Outcome) -> Found {
    let (first, answer) = &oracles.seen[index];
    if *first != hash {
        return Err(format!("entry {index} gives hash {hash:x}, elsewhere {first:x}"));
    }
    match answer == outcome {
        true => Ok(()),
        false => Err(format!("entry {index} is answered {outcome:?}, elsewhere {answer:?}")),
    }
}

/// A loaded state is the one that was there at that point.
pub(super) fn loaded(oracles: &Oracles, applied: usize, hash: u128) -> Found {
    let first = match applied.checked_sub(1).and_then(|index| oracles.seen.get(index)) {
        Some((first, _)) => *first,
        None => State::default().hash(),
    };
    match first == hash {
        true => Ok(()),
        false => Err(format!("the state loaded at {applied} has hash {hash:x}, not {first:x}")),
    }
}

/// The log alone gives the same state.
pub(super) fn replayed(oracles: &Oracles, log: &Log, seed: u64) -> Found {
    if !seed.is_multiple_of(REPLAY_EVERY) {
        return Ok(());
    }
    let mut state = State::default();
    for (index, entry) in log.committed.iter().enumerate().take(oracles.seen.len()) {
        let applied = state.apply(&entry.stamp, &entry.command);
        agrees(oracles, index, state.hash(), &applied.outcome)?;
    }
    Ok(())
}
