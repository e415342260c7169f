//! Wall clocks: tokio's paused time, with an offset of its own for each machine that may jump.

use model::{Clock, Timestamp};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use tokio::time::Instant;

/// What a clock without an offset shows when the world begins, in Unix ms.
pub(super) const EPOCH_MS: u64 = 1_700_000_000_000;

/// One machine's wall clock.
pub(super) struct WallClock {
    began: Instant,
    offset_ms: AtomicI64,
}

impl WallClock {
    /// A clock that is so far ahead, or behind.
    pub(super) fn new(began: Instant, offset_ms: i64) -> Arc<Self> {
        Arc::new(Self { began, offset_ms: AtomicI64::new(offset_ms) })
    }

    /// Somebody sets it.
    pub(super) fn set(&self, offset_ms: i64) {
        self.offset_ms.store(offset_ms, Ordering::Relaxed);
    }
}

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        let passed_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let offset_ms = self.offset_ms.load(Ordering::Relaxed);
        Timestamp((EPOCH_MS + passed_ms).saturating_add_signed(offset_ms))
    }
}
