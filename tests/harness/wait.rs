//! Waiting for a condition, with a deadline.

use std::time::Duration;

/// Looks at `condition` until it holds.
///
/// # Panics
/// When it does not hold within `seconds`; `what` says what was waited for.
pub fn until(what: &str, seconds: u64, mut condition: impl FnMut() -> bool) {
    until_some(what, seconds, || condition().then_some(()));
}

/// Looks until there is something, and returns it.
///
/// # Panics
/// When there is nothing within `seconds`; `what` says what was waited for.
#[expect(
    clippy::disallowed_methods,
    reason = "real processes run on real time; the pause is between two looks, not instead of one"
)]
pub fn until_some<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
