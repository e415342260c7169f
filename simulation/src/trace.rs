//! The trace: one line per thing worth knowing, equal byte by byte for equal seeds.

use std::fmt::Write as _;

/// Lines, if anybody wants them, and a hash of them in any case that is traced.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    text: Option<String>,
}

impl Trace {
    pub(crate) fn new(kept: bool) -> Self {
        Self { text: kept.then(String::new) }
    }

    /// Adds a line; the text is made only if it is kept.
    pub(crate) fn line(&mut self, now: u64, text: impl FnOnce() -> String) {
        if let Some(kept) = &mut self.text {
            // Writing into a String cannot fail.
            let _ = writeln!(kept, "{now:>8} {}", text());
        }
    }

    /// The lines so far.
    pub(crate) fn into_text(self) -> String {
        self.text.unwrap_or_default()
    }
}
