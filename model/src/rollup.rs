//! From the jobs' standings to the state of a deployment and of its parts (APP-26, APP-27).
//!
//! The counts come from tallies that are kept as jobs change, so a change costs what it touches. The
//! state is one total function of what was counted; time enters only through rows that `Settle`
//! wrote.

use crate::{
    Counts, Deployment, DeploymentState, Indicator, JobKey, Name, Revision, State, Status, Summary,
    Timestamp, evolve,
    index::{Pair, Triple},
    limits::RETRY_ATTEMPTS,
    read::first_key,
    retry,
    tally::{failed_for_good, worst_error},
};

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
            counts.failed += tally.failed.get(&row.workload_revision).copied().unwrap_or(0);
        }
    }
    counts.pending = counts.total.saturating_sub(counts.running + counts.unknown + counts.failed);
    let going = terminating.then(|| "its jobs are going".to_owned());
    let worst = Worst::of(state, (tenant, row), Some(cluster));
    Some(summary(row, going, counts, worst))
}

/// The sum of a deployment whose partitions were counted.
pub(crate) fn deployment(state: &State, at: &Pair, row: &Deployment, counts: Counts) -> Summary {
    let going = evolve::deleting_text(&row.meta);
    summary(row, going, counts, Worst::of(state, (&at.0, row), None))
}

fn summary(row: &Deployment, going: Option<String>, counts: Counts, worst: Worst) -> Summary {
    let unreconciled = row.conditions.iter().find(|it| it.kind == "Reconciled" && !it.holds);
    let state = state_of(Inputs {
        terminating: going.is_some(),
        unreconciled: unreconciled.is_some(),
        troubled: worst.ends,
        counts,
        in_progress: row.in_progress,
        generation: row.meta.generation,
    });
    let running = || format!("{} of {} partitions running", counts.running, counts.total);
    let degraded = worst.attempt > RETRY_ATTEMPTS;
    let (indicator, text) = match state {
        DeploymentState::Running => (Indicator::Idle, running()),
        DeploymentState::Terminating => (Indicator::InProgress, going.unwrap_or_default()),
        DeploymentState::InternalError => {
            let text = unreconciled.map(|it| it.message.clone());
            (Indicator::Error, text.unwrap_or_default())
        }
        DeploymentState::Error => (Indicator::Error, worst.text),
        DeploymentState::Unknown => {
            let text = format!("{}, {} on hosts out of contact", running(), counts.unknown);
            (Indicator::Error, text)
        }
        DeploymentState::Deploying | DeploymentState::Updating if counts.total == 0 => {
            (Indicator::InProgress, "waits for a cluster that matches".into())
        }
        DeploymentState::Deploying | DeploymentState::Updating | DeploymentState::Down
            if degraded =>
        {
            (Indicator::Error, format!("DEGRADED, {}; {}", running(), worst.text))
        }
        DeploymentState::Deploying | DeploymentState::Updating => {
            (Indicator::InProgress, running())
        }
        DeploymentState::Down => (Indicator::Error, running()),
        DeploymentState::NoTargetClusters => (Indicator::Error, "no cluster matches".into()),
    };
    let tried = !matches!(state, DeploymentState::Running | DeploymentState::Terminating);
    let attempt = if tried { worst.attempt } else { 0 };
    Summary { state, counts, indicator, text, retryable: attempt > 0 && worst.retryable, attempt }
}

/// What is worst about the jobs of a deployment, or of its part on a cluster. Jobs count under the spec
/// in force only: what failed under an earlier one is no trouble of the one that may mend it.
#[derive(Debug, Default)]
struct Worst {
    /// Whether a job failed for good or made no progress, rather than being on its way.
    ends: bool,
    /// Which job, and what is wrong with it.
    text: String,
    /// Whether it is tried again without a person.
    retryable: bool,
    /// Attempts that failed; 0 if none did.
    attempt: u32,
}

impl Worst {
    fn of(state: &State, (tenant, row): (&Name, &Deployment), cluster: Option<&Name>) -> Self {
        let troubled = troubled(state, (tenant, row), cluster);
        let key = troubled.or_else(|| retried(state, (tenant, row), cluster));
        let Some((key, job)) = key.and_then(|key| Some((key, state.jobs.get(key)?))) else {
            return Self::default();
        };
        let failed = job.placements.iter().find(|placement| failed_for_good(placement));
        let failed = failed.and_then(|it| it.current.as_ref()?.error.as_deref());
        let error = worst_error(job);
        let what = match (failed, &job.trouble, error) {
            (Some(error), _, _) | (None, None, Some(error)) => {
                format!("{}: {}", error.reason, error.text)
            }
            (None, Some(trouble), _) => format!("{}: {}", trouble.reason, trouble.text),
            (None, None, None) => "failed".into(),
        };
        let (retryable, attempt) = match (failed.or(error), &job.trouble) {
            (Some(error), _) => (error.retryable, error.attempt),
            // No host takes it, and planners go on looking for one.
            (None, Some(trouble)) => (true, trouble.attempt),
            (None, None) => (false, 0),
        };
        let text = format!("app {} partition {}: {what}", key.application, key.slot);
        Self { ends: troubled.is_some(), text, retryable, attempt }
    }
}

/// The first job that failed or made no progress under the spec in force.
fn troubled<'a>(
    state: &'a State,
    (tenant, row): (&Name, &Deployment),
    cluster: Option<&Name>,
) -> Option<&'a JobKey> {
    let deployment = &row.meta.name;
    let cluster_from = cluster.cloned().unwrap_or_else(Name::first);
    let first = JobKey { cluster: cluster_from, ..first_of(tenant, deployment) };
    let start = (tenant.clone(), deployment.clone(), row.workload_revision, first);
    let (of, named, at, key) = state.index.troubled.range(start..).next()?;
    let of_it = of == tenant && named == deployment && *at == row.workload_revision;
    (of_it && cluster.is_none_or(|cluster| key.cluster == *cluster)).then_some(key)
}

/// The job that was tried most often under the spec in force and is tried again.
fn retried<'a>(
    state: &'a State,
    (tenant, row): (&Name, &Deployment),
    cluster: Option<&Name>,
) -> Option<&'a JobKey> {
    let deployment = &row.meta.name;
    let key = first_of(tenant, deployment);
    let at = row.workload_revision;
    let from = |at| (tenant.clone(), deployment.clone(), cluster.cloned(), at, 0, key.clone());
    let mut marks = state.index.retrying.range(from(at)..from(Revision(at.0 + 1)));
    marks.next_back().map(|(.., key)| key)
}

/// Jobs of a deployment that failed, made no progress or are tried again, whatever the spec.
pub(crate) fn troubled_or_retrying<'a>(
    state: &'a State,
    tenant: &Name,
    deployment: &Name,
) -> impl Iterator<Item = &'a JobKey> {
    let (first, of) = (first_of(tenant, deployment), (tenant.clone(), deployment.clone()));
    let start = (of.0.clone(), of.1.clone(), Revision(0), first.clone());
    let troubled = state.index.troubled.range(start..);
    let its_own = of.clone();
    let troubled = troubled.take_while(move |it| it.0 == its_own.0 && it.1 == its_own.1);
    // Those of all clusters come first, and hold every job once.
    let start = (of.0.clone(), of.1.clone(), None, Revision(0), 0, first);
    let retrying = state.index.retrying.range(start..);
    let retrying = retrying.take_while(move |it| it.0 == of.0 && it.1 == of.1 && it.2.is_none());
    troubled.map(|(.., key)| key).chain(retrying.map(|(.., key)| key))
}

/// When the job whose attempts the status of a deployment (or of its part) counts is tried again.
pub(crate) fn next_retry_at(
    state: &State,
    tenant: &Name,
    deployment: &Name,
    cluster: Option<&Name>,
) -> Option<Timestamp> {
    let row = state.deployment(tenant, deployment)?;
    if row.meta.deletion.is_some() || troubled(state, (tenant, row), cluster).is_some() {
        return None;
    }
    let key = retried(state, (tenant, row), cluster)?;
    let placements = state.jobs.get(key)?.placements.iter();
    let active = placements.filter(|it| it.scheduled.active).filter_map(|it| it.current.as_ref());
    active.filter_map(|current| retry::next_retry_at(key, current)).min()
}

/// The first job key of a deployment in order.
fn first_of(tenant: &Name, deployment: &Name) -> JobKey {
    JobKey { tenant: tenant.clone(), deployment: deployment.clone(), ..first_key() }
}

impl Summary {
    /// Whether a row says this already.
    pub(crate) fn is_of(&self, state: DeploymentState, counts: &Counts, status: &Status) -> bool {
        self.state == state
            && self.counts == *counts
            && self.indicator == status.indicator
            && self.text == status.text
            && self.retryable == status.retryable
            && self.attempt == status.attempt
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
