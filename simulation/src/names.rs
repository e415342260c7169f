//! Names of the things in the simulated world.

use model::{Caller, Draft, Labels, Name};
use std::collections::BTreeMap;

/// A name known to be one.
pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap_or_else(|_| unreachable!("{text:?} is a name"))
}

/// An envelope without anything in it.
pub(crate) fn draft(text: &str) -> Draft {
    Draft {
        name: name(text),
        labels: Labels::new(),
        annotations: BTreeMap::new(),
        if_revision: None,
    }
}

/// The person who asks.
pub(crate) fn operator() -> Caller {
    Caller::Operator(name("ann"))
}
