//! The hash of each row of a state, as a text to lay beside that of another replica.
//!
//! ```text
//! node 3, log index 2048, revision 5012, state hash 0f..
//! Tenant(Name("acme")) 77..
//! ```
//! Rows are in key order, so `diff` of two nodes' texts of one index names the rows that differ.

use crate::jury::Applied;
use model::{NodeId, State};
use std::fmt::Write as _;

/// Rows written out; what comes after them is counted.
const ROWS_MAX: usize = 200_000;
/// Rows after which other work has its turn.
const PAGE_ROWS: usize = 256;

/// Writes it.
pub(crate) async fn text(node: NodeId, at: Applied, state: &State) -> String {
    let Applied { index, revision, hash } = at;
    let mut text =
        format!("node {node}, log index {index}, revision {revision}, state hash {hash:032x}\n");
    let mut left_out = 0;
    for (number, (key, hash)) in state.row_hashes().enumerate() {
        if number < ROWS_MAX {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{key:?} {hash:032x}");
        } else {
            left_out += 1;
        }
        if number % PAGE_ROWS == PAGE_ROWS - 1 {
            tokio::task::yield_now().await;
        }
    }
    if left_out > 0 {
        let _ = writeln!(text, "{left_out} rows more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::world::tenant;
    use model::{Caller, Stamp, Timestamp};

    #[tokio::test]
    async fn two_texts_differ_in_the_row_that_differs() {
        let mut state = State::default();
        for name in ["acme", "beta"] {
            let (time, caller) = (Timestamp(1), Caller::System);
            let stamp = Stamp { time, rules: 1, caller, request_id: None };
            state.apply(&stamp, &tenant(name));
        }
        let mut bent = state.clone();
        bent.tenants.remove(&model::Name::new("acme").unwrap());
        let at = |state: &State| {
            let (revision, hash) = (state.globals.revision, state.hash());
            Applied { index: 7, revision, hash }
        };
        let whole = text(NodeId(1), at(&state), &state).await;
        let bent = text(NodeId(2), at(&bent), &bent).await;
        let missing: Vec<_> = whole.lines().filter(|line| !bent.contains(line)).collect();
        assert_eq!(missing.len(), 2, "the head and one row: {whole}\n{bent}");
        assert!(missing[1].contains("acme"), "{missing:?}");
    }
}
