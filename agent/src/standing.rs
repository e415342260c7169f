//! Whether a start that was decided a while ago may still happen.
//!
//! A start may wait for its turn and for a program to be compiled. Meanwhile the lease may run out and
//! another be granted, and control may have moved the job in between: that a lease lives now says
//! nothing about the decision. So each start is noted here with the order and the lease it was decided
//! under. The task that owns the memory notes what changes, at once; the step asks before each part of
//! its work.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::{JobKey, OnDisconnect};

use crate::memory::{Fence, Memory};

/// What is in force at this moment, as far as starts depend on it.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether orders were heard in the session in force.
    heard: bool,
    /// When the lease ends, `CLOCK_BOOTTIME`; `None` before the first.
    until_boot_ms: Option<u64>,
    /// How often a lease was granted after the one before had ended.
    gaps: u64,
    starts: BTreeMap<JobKey, Start>,
}

/// What a start was decided under.
#[derive(Debug)]
struct Start {
    fence: Fence,
    gaps: u64,
    withdrawn: bool,
}

/// Why a start may not happen any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// The order it was decided under is not in force.
    Order,
    /// The lease it was decided under has ended, or no orders were heard in the session in force.
    Lease,
}

impl Standing {
    /// A start was decided under this order and the lease of this moment.
    pub(crate) fn begun(&self, key: &JobKey, fence: Fence) {
        let mut state = self.state();
        let gaps = state.gaps;
        state.starts.insert(key.clone(), Start { fence, gaps, withdrawn: false });
    }

    /// The start is over.
    pub(crate) fn over(&self, key: &JobKey) {
        self.state().starts.remove(key);
    }

    /// Whether orders were heard in the session in force.
    pub(crate) fn session(&self, heard: bool) {
        self.state().heard = heard;
    }

    /// A lease was granted, at `now_boot_ms`.
    pub(crate) fn granted(&self, until_boot_ms: u64, now_boot_ms: u64) {
        let mut state = self.state();
        if state.until_boot_ms.is_some_and(|before| before <= now_boot_ms) {
            state.gaps += 1;
        }
        state.until_boot_ms = Some(until_boot_ms);
    }

    /// The orders remembered have changed.
    pub(crate) fn orders(&self, memory: &Memory) {
        for (key, start) in &mut self.state().starts {
            let order = memory.job(key).and_then(|job| job.order.as_ref());
            let stands =
                order.is_some_and(|order| order.scheduled.active && order.fence() == start.fence);
            start.withdrawn |= !stands;
        }
    }

    /// Whether the start noted for a job may go on.
    ///
    /// # Errors
    /// Why it may not.
    pub(crate) fn check(
        &self,
        key: &JobKey,
        policy: OnDisconnect,
        now_boot_ms: u64,
    ) -> Result<(), Stale> {
        let state = self.state();
        let start = state.starts.get(key).filter(|start| !start.withdrawn).ok_or(Stale::Order)?;
        let lives = state.until_boot_ms.is_some_and(|until| until > now_boot_ms);
        let same = start.gaps == state.gaps;
        match policy {
            OnDisconnect::Stop if !(lives && same && state.heard) => Err(Stale::Lease),
            OnDisconnect::Stop | OnDisconnect::KeepRunning | OnDisconnect::Replace => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
