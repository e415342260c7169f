//! Rules of the house that no compiler checks, as plain tests. Each rule keeps a list of the sinners
//! it found; a list may only shrink, and an entry that no longer sins fails too.
#![expect(clippy::unwrap_used, reason = "a test binary may panic")]

mod doors;
mod files;
mod floors;
mod licences;
mod rejections;
mod tree;
