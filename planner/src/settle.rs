//! What time alone changes: when to propose `Settle`, and when to look again.

use model::{Command, Name, State, Timestamp};

/// `Settle`, if anything of the tenant is due by `now`.
pub fn settle(state: &State, tenant: &Name, now: Timestamp) -> Option<Command> {
    let due = state.next_due(tenant)?;
    (due <= now).then(|| Command::Settle { tenant: tenant.clone() })
}

/// When [`settle`] will next have something to propose, if nothing else happens.
pub fn next_wake(state: &State, tenant: &Name) -> Option<Timestamp> {
    state.next_due(tenant)
}
