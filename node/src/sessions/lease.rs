//! How much lease may be granted: never beyond what a majority stands behind.

use std::time::Duration;
use tokio::time::Instant;

/// What a renewal that arrives `now` is granted. The node grants up to its own last confirmation by a
/// quorum plus the TTL: one that is cut off cannot keep a lease alive, and by the time a majority without
/// it holds it for dead, all it granted is over.
pub(super) fn grant(quorum_at: Option<Instant>, now: Instant, ttl: Duration) -> Option<Duration> {
    let left = (quorum_at? + ttl).saturating_duration_since(now).min(ttl);
    // Leases are granted in whole milliseconds.
    (left >= Duration::from_millis(1)).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_with_the_quorum_it_was_granted_by() {
        let (now, ttl) = (Instant::now(), Duration::from_secs(20));
        let later = |s| now + Duration::from_secs(s);
        assert_eq!(grant(None, now, ttl), None);
        assert_eq!(grant(Some(now), now, ttl), Some(ttl));
        assert_eq!(grant(Some(now), later(15), ttl), Some(Duration::from_secs(5)));
        assert_eq!(grant(Some(now), later(20), ttl), None);
        assert_eq!(grant(Some(now), later(25), ttl), None);
        assert_eq!(grant(Some(later(3)), now, ttl), Some(ttl), "never more than the TTL");
    }
}
