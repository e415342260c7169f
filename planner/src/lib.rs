//! Planners: what is worth proposing, read off a state.
//!
//! Pure, synchronous and deterministic: a state and a time in, commands and an explanation out.
//! Nothing here decides: a command planned on a stale state is refused by `model::decide`, and its
//! owner plans again. Planning is *stable*: each step, once its commands are applied, yields nothing
//! more on the state it left, and a loop of plan and propose comes to rest within a few turns.
//!
//! A plan names only what can be decided on the state it was made from: a job whose lost copy it
//! evicts gets its new host by the next plan.
//!
//! Reading order: [`plan_tenant`] and [`plan_cluster`], the two entry points actors call; then the
//! steps they are made of: `actualize` (deployments to jobs), `rollout` (which running jobs may be
//! updated now), `evict` (lost hosts), `place` (a host for each job), `settle` (what time alone
//! changes), and `model::retry`, the backoff that agents use too.

mod actualize;
mod chunk;
mod evict;
mod place;
mod report;
mod rollout;
mod settle;

use std::collections::BTreeSet;

use model::{Command, JobKey, Name, State, Timestamp};

pub use actualize::actualize;
pub use evict::evict;
pub use model::retry;
pub use place::place;
pub use report::{Report, Unplaced};
pub use settle::{next_wake, settle};

/// What to propose, and why not more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// To be proposed in this order. Each is bounded well below a log entry's size.
    pub commands: Vec<Command>,
    /// What was done and what was not.
    pub report: Report,
}

impl Plan {
    /// Whether there is nothing to propose.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    fn join(&mut self, other: Self) {
        self.commands.extend(other.commands);
        self.report.join(other.report);
    }
}

/// Everything worth proposing for a tenant as a whole, at `now`: jobs of its deployments brought in
/// line, and what time has made due. Its owner calls this when anything of the tenant changed and
/// at [`next_wake`].
pub fn plan_tenant(state: &State, tenant: &Name, now: Timestamp) -> Plan {
    let mut plan = actualize(state, tenant, None);
    if let Some(command) = settle(state, tenant, now) {
        plan.commands.push(command);
        plan.report.settles = true;
    }
    plan
}

/// Everything worth proposing for the jobs on one cluster: copies that have to end, lost hosts
/// given up, and a host for each job that has none. Updates of running jobs are the tenant's
/// business, so that one planner alone spends a rollout's budget. Nothing here depends on `_now`
/// yet: what time alone changes comes in through `Settle`.
pub fn plan_cluster(state: &State, tenant: &Name, cluster: &Name, _now: Timestamp) -> Plan {
    let mut plan = actualize::on_cluster(state, tenant, cluster);
    plan.join(evict(state, tenant, cluster));
    let changed = changed(&plan.commands);
    let placed = place::place_others(state, tenant, cluster, &changed);
    plan.join(placed);
    plan
}

/// Jobs that syncing and evicting change.
fn changed(commands: &[Command]) -> BTreeSet<&JobKey> {
    let mut changed = BTreeSet::new();
    for command in commands {
        match command {
            Command::SyncJobs { keys } => changed.extend(keys),
            Command::EvictJobs { items } => changed.extend(items.iter().map(|(key, _)| key)),
            _ => {}
        }
    }
    changed
}
