//! (6) A watcher that applies each revision's changes has the state: each change starts from the row
//! that the last one left.

use super::{Found, Oracles};
use model::{Change, Key, Row, State};
use std::collections::BTreeMap;

/// Follows one revision's changes.
pub(super) fn follow(oracles: &mut Oracles, changes: &[Change]) -> Found {
    let mut last: Option<&Key> = None;
    for change in changes {
        if last.is_some_and(|last| *last >= change.key) {
            return Err(format!("changes are not in key order at {:?}", change.key));
        }
        last = Some(&change.key);
        if oracles.shadow.get(&change.key) != change.before.as_ref() {
            return Err(format!("{:?} was something else than its change says", change.key));
        }
        match &change.after {
            Some(row) => oracles.shadow.insert(change.key.clone(), row.clone()),
            None => oracles.shadow.remove(&change.key),
        };
    }
    Ok(())
}

/// The rows that changes made are those of the state.
pub(super) fn make_the_state(oracles: &Oracles, state: &State) -> Found {
    let rows: BTreeMap<Key, Row> = state.rows().collect();
    if rows == oracles.shadow {
        return Ok(());
    }
    let differs = |key: &&Key| rows.get(key) != oracles.shadow.get(key);
    let first = rows.keys().chain(oracles.shadow.keys()).find(differs);
    Err(format!("changes and state differ first at {first:?}"))
}
