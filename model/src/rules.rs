//! Rules levels: what is decided otherwise at one level than at the one before.
//!
//! Every entry of the log names the level it is decided by, and `decide` and `evolve` honour it. So all
//! replicas decide alike while binaries are replaced one by one, and an old log replays as it once did.
//! What changes in what is decided asks here which level is in force; [`RELEASED`] then rises by one.

use crate::limits::DISPLAY_NAME_MAX;

/// The newest level that a release knows.
const RELEASED: u32 = 2;
/// From this level on jobs are tried again on demand.
pub(crate) const RULES_RETRY: u32 = 2;
/// From this level on a control node that was removed is remembered, and refused when it comes back.
pub(crate) const RULES_REMOVED_NODES: u32 = 2;
/// The level that only builds with the feature `next-rules` know.
const REHEARSED: u32 = RELEASED + 1;
/// Most characters of a display name by the rehearsed level.
const DISPLAY_NAME_REHEARSED_MAX: usize = 60;

/// Rules levels this build can decide by: 1 to this.
///
/// The feature `next-rules` adds one level, to rehearse an upgrade with two builds of one source. By
/// it a display name may have 60 characters instead of 40, and nothing else differs. A release may
/// call another rule by the same number: a cluster that got there in a rehearsal is not kept.
pub const RULES_MAX: u32 = if cfg!(feature = "next-rules") { REHEARSED } else { RELEASED };

/// Most characters of a display name by the rules of `level`.
pub(crate) fn display_name_max(level: u32) -> usize {
    if level < REHEARSED { DISPLAY_NAME_MAX } else { DISPLAY_NAME_REHEARSED_MAX }
}
