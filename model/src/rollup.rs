//! From the jobs' standings to the state of a deployment and of its parts (APP-26, APP-27).
//!
//! The counts come from tallies that are kept as jobs change, so a change costs what it touches. The
//! state is one total function of what was counted; time enters only through rows that `Settle`
//! wrote.

use crate::{
    Counts, Deployment, DeploymentState, Indicator, JobKey, Name, Slot, State, Status, Summary,
    evolve,
    index::{Pair, Triple},
    tally::failed_for_good,
};
use std::ops::Bound::{Included, Unbounded};

/// Everything the state of a deployment depends on, in the order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inputs {
    /// Deletion was asked for, or the cluster is no target any more.
    terminating: bool,
    /// A reconcile step of control failed.
    unreconciled: bool,
    /// Some application failed or made no progress within its deadline.
    troubled: bool,
    /// Partitions.
    counts: Counts,
    /// The generation in force has not been seen running.
    in_progress: bool,
    /// Generation.
    generation: u64,
}

/// The state, by the first rule that holds (APP-26).
fn state_of(inputs: Inputs) -> DeploymentState {
    let Inputs { terminating, unreconciled, troubled, counts, in_progress, generation } = inputs;
    if terminating {
        DeploymentState::Terminating
    } else if unreconciled {
        DeploymentState::InternalError
    } else if troubled {
        DeploymentState::Error
    } else if counts.unknown > 0 {
        DeploymentState::Unknown
    } else if counts.total == 0 {
        match in_progress {
            true => DeploymentState::Deploying,
            false => DeploymentState::NoTargetClusters,
        }
    } else if counts.running < counts.total {
        match (in_progress, generation) {
            (true, 0 | 1) => DeploymentState::Deploying,
            (true, _) => DeploymentState::Updating,
            (false, _) => DeploymentState::Down,
        }
    } else {
        DeploymentState::Running
    }
}

/// The sum of a part, from its tallies; `None` if its deployment is not there.
pub(crate) fn part(state: &State, at: &Triple) -> Option<Summary> {
    let (tenant, deployment, cluster) = at;
    let row = state.deployment(tenant, deployment)?;
    let part = state.deployment_clusters.get(at)?;
    let terminating = row.meta.deletion.is_some() || !part.targeted;
    let mut counts = Counts::default();
    for ((_, _, application), workload) in state.workloads_of(tenant, deployment) {
        if terminating {
            break;
        }
        counts.total += u64::from(workload.num_partitions);
        let at = (tenant.clone(), deployment.clone(), cluster.clone(), application.clone());
        if let Some(tally) = state.index.tallies.get(&at) {
            counts.running += tally.running.get(&row.workload_revision).copied().unwrap_or(0);
            counts.unknown += tally.unknown;
            counts.failed += tally.failed;
        }
    }
    counts.pending = counts.total.saturating_sub(counts.running + counts.unknown + counts.failed);
    let trouble = trouble(state, at.0.clone(), at.1.clone(), Some(cluster));
    let going = terminating.then(|| "its jobs are going".to_owned());
    Some(summary(row, going, counts, trouble))
}

/// The sum of a deployment whose partitions were counted.
pub(crate) fn deployment(state: &State, at: &Pair, row: &Deployment, counts: Counts) -> Summary {
    let going = evolve::deleting_text(&row.meta);
    summary(row, going, counts, trouble(state, at.0.clone(), at.1.clone(), None))
}

fn summary(
    row: &Deployment,
    going: Option<String>,
    counts: Counts,
    trouble: Option<String>,
) -> Summary {
    let unreconciled = row.conditions.iter().find(|it| it.kind == "Reconciled" && !it.holds);
    let state = state_of(Inputs {
        terminating: going.is_some(),
        unreconciled: unreconciled.is_some(),
        troubled: trouble.is_some(),
        counts,
        in_progress: row.in_progress,
        generation: row.meta.generation,
    });
    let running = || format!("{} of {} partitions running", counts.running, counts.total);
    let (indicator, text) = match state {
        DeploymentState::Running => (Indicator::Idle, running()),
        DeploymentState::Terminating => (Indicator::InProgress, going.unwrap_or_default()),
        DeploymentState::InternalError => {
            let text = unreconciled.map(|it| it.message.clone());
            (Indicator::Error, text.unwrap_or_default())
        }
        DeploymentState::Error => (Indicator::Error, trouble.unwrap_or_default()),
        DeploymentState::Unknown => {
            let text = format!("{}, {} on hosts out of contact", running(), counts.unknown);
            (Indicator::Error, text)
        }
        DeploymentState::Deploying | DeploymentState::Updating if counts.total == 0 => {
            (Indicator::InProgress, "waits for a cluster that matches".into())
        }
        DeploymentState::Deploying | DeploymentState::Updating => {
            (Indicator::InProgress, running())
        }
        DeploymentState::Down => (Indicator::Error, running()),
        DeploymentState::NoTargetClusters => (Indicator::Error, "no cluster matches".into()),
    };
    Summary { state, counts, indicator, text }
}

/// The first job that failed or made no progress, in a line; `None` if there is none.
fn trouble(
    state: &State,
    tenant: Name,
    deployment: Name,
    cluster: Option<&Name>,
) -> Option<String> {
    let start = JobKey {
        tenant,
        deployment,
        cluster: cluster.cloned().unwrap_or_else(Name::first),
        application: Name::first(),
        slot: Slot::Partition(0),
    };
    let key = state.index.troubled.range((Included(start.clone()), Unbounded)).next()?;
    let of_it = key.tenant == start.tenant && key.deployment == start.deployment;
    if !of_it || cluster.is_some_and(|cluster| key.cluster != *cluster) {
        return None;
    }
    let job = state.jobs.get(key)?;
    let failed = job.placements.iter().find(|placement| failed_for_good(placement));
    let error = failed.and_then(|it| it.current.as_ref()?.error.as_ref());
    let what = match (error, &job.trouble) {
        (Some(error), _) => format!("{}: {}", error.reason, error.text),
        (None, Some(trouble)) => format!("{}: {}", trouble.reason, trouble.text),
        (None, None) => "failed".into(),
    };
    Some(format!("app {} partition {}: {what}", key.application, key.slot))
}

impl Summary {
    /// Whether a row says this already.
    pub(crate) fn is_of(&self, state: DeploymentState, counts: &Counts, status: &Status) -> bool {
        self.state == state
            && self.counts == *counts
            && self.indicator == status.indicator
            && self.text == status.text
    }
}

/// What is to be added to counts and taken from them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    plus: Counts,
    minus: Counts,
}

impl Change {
    /// One part's counts become others.
    pub(crate) fn add(&mut self, before: Counts, after: Counts) {
        self.plus = plus(self.plus, after);
        self.minus = plus(self.minus, before);
    }

    /// The sum over all parts after the change.
    pub(crate) fn applied_to(self, counts: Counts) -> Counts {
        let sum = plus(counts, self.plus);
        Counts {
            total: sum.total.saturating_sub(self.minus.total),
            running: sum.running.saturating_sub(self.minus.running),
            pending: sum.pending.saturating_sub(self.minus.pending),
            unknown: sum.unknown.saturating_sub(self.minus.unknown),
            failed: sum.failed.saturating_sub(self.minus.failed),
        }
    }
}

/// Sum of two counts.
pub(crate) fn plus(a: Counts, b: Counts) -> Counts {
    Counts {
        total: a.total + b.total,
        running: a.running + b.running,
        pending: a.pending + b.pending,
        unknown: a.unknown + b.unknown,
        failed: a.failed + b.failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> Inputs {
        Inputs {
            terminating: false,
            unreconciled: false,
            troubled: false,
            counts: Counts { total: 3, running: 3, pending: 0, unknown: 0, failed: 0 },
            in_progress: false,
            generation: 1,
        }
    }

    /// Each rule holds although all later ones would say something else.
    #[test]
    fn the_first_rule_that_holds_wins() {
        let mut inputs = Inputs {
            terminating: true,
            unreconciled: true,
            troubled: true,
            counts: Counts { total: 3, running: 1, pending: 0, unknown: 1, failed: 1 },
            in_progress: true,
            generation: 2,
        };
        assert_eq!(state_of(inputs), DeploymentState::Terminating);
        inputs.terminating = false;
        assert_eq!(state_of(inputs), DeploymentState::InternalError);
        inputs.unreconciled = false;
        assert_eq!(state_of(inputs), DeploymentState::Error);
        inputs.troubled = false;
        assert_eq!(state_of(inputs), DeploymentState::Unknown);
        inputs.counts.unknown = 0;
        assert_eq!(state_of(inputs), DeploymentState::Updating);
        inputs.generation = 1;
        assert_eq!(state_of(inputs), DeploymentState::Deploying);
        inputs.in_progress = false;
        assert_eq!(state_of(inputs), DeploymentState::Down);
        inputs.counts.running = 3;
        assert_eq!(state_of(inputs), DeploymentState::Running);
    }

    #[test]
    fn without_partitions_it_waits_for_a_target_or_has_none() {
        let none = Inputs { counts: Counts::default(), ..inputs() };
        assert_eq!(state_of(none), DeploymentState::NoTargetClusters);
        let waits = Inputs { in_progress: true, ..none };
        assert_eq!(state_of(waits), DeploymentState::Deploying);
    }

    #[test]
    fn running_needs_no_progress_to_end() {
        assert_eq!(state_of(Inputs { in_progress: true, ..inputs() }), DeploymentState::Running);
    }
}
