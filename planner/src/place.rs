//! A host for each job that has none (PART-11).
//!
//! Hard constraints are `model::feasible`'s alone, asked with the usage as this plan leaves it.
//! Among feasible hosts: the one that holds the job's data; then the one with the fewest copies of
//! the application, in the zone with the fewest, with the least load, and by a hash of its name.
//! Jobs that have a host are not looked at, so nothing moves when a host appears.
//!
//! Cost: the hosts are put in order once per cluster, then each job takes the first that fits of
//! each class of like hosts (`field`). Jobs of one application share what was learnt about hosts
//! that do not fit.

mod explain;
mod field;

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Assign, Command, Job, JobKey, Name, Revision, State, Workload, expected_workload, feasible,
    is_placeable,
};

use crate::{
    Plan, Report, Unplaced,
    chunk::chunks,
    place::field::{Field, Spread},
    rollout::runs_as_asked,
};

/// `AssignJobs` for the jobs of a cluster that are to run and have no host, and `ExplainJobs` for
/// those that fit nowhere, where the reason is not noted yet.
/// Copies of `replace` jobs on hosts lost for longer than their grace do not count.
pub fn place(state: &State, tenant: &Name, cluster: &Name) -> Plan {
    place_others(state, tenant, cluster, &BTreeSet::new())
}

/// The same, leaving alone jobs that the plan changes already: what was `seen` of them is about to
/// be out of date.
pub(crate) fn place_others(
    state: &State,
    tenant: &Name,
    cluster: &Name,
    changed: &BTreeSet<&JobKey>,
) -> Plan {
    let mut waiting: BTreeMap<(&Name, &Name), Vec<(&JobKey, &Job)>> = BTreeMap::new();
    for (key, job) in state.jobs_in(tenant, cluster) {
        if job.active
            && !changed.contains(key)
            && is_placeable(state, key)
            && expected_workload(state, key).is_some()
        {
            waiting.entry((&key.deployment, &key.application)).or_default().push((key, job));
        }
    }
    if waiting.is_empty() {
        return Plan::default();
    }
    let mut field = Field::of(state, tenant, cluster);
    let mut turn =
        Turn { state, items: Vec::new(), explained: Vec::new(), report: Report::default() };
    for jobs in waiting.values() {
        turn.place_application(&mut field, jobs);
    }
    turn.into_plan()
}

/// A placement under way.
struct Turn<'a> {
    state: &'a State,
    items: Vec<Assign>,
    explained: Vec<(JobKey, Revision, String)>,
    report: Report,
}

impl<'a> Turn<'a> {
    /// Places the waiting jobs of one application, which run the same workload but for updates that
    /// are held back.
    fn place_application(&mut self, field: &mut Field<'a>, jobs: &[(&'a JobKey, &'a Job)]) {
        let Some((first, _)) = jobs.first() else { return };
        let mut spread = field.spread(self.state, first);
        let mut workload: Option<&Workload> = None;
        let mut reason: Option<String> = None;
        for (key, job) in jobs {
            if workload != Some(&job.workload) {
                workload = Some(&job.workload);
                reason = None;
                spread.forget_what_does_not_fit();
            }
            if let Some(host) = self.choose(field, &mut spread, key, job) {
                field.take(&mut spread, host, job.workload.limits);
                let host = field.name(host).clone();
                self.items.push(Assign { key: (*key).clone(), host, seen: job.revision });
                continue;
            }
            let text = reason.get_or_insert_with(|| explain::text(self.state, field, key, job));
            let noted = job.trouble.as_ref().is_some_and(|trouble| trouble.text == *text);
            if !noted && !runs_as_asked(job) {
                self.explained.push(((*key).clone(), job.revision, text.clone()));
            }
            self.report.unplaced.push(Unplaced { key: (*key).clone(), text: text.clone() });
        }
    }

    /// The host for one job, if any is feasible.
    fn choose(
        &self,
        field: &Field<'a>,
        spread: &mut Spread,
        key: &JobKey,
        job: &Job,
    ) -> Option<usize> {
        let fits = |host: usize| {
            let name = field.name(host);
            !job.placements.iter().any(|placement| placement.host == *name)
                && feasible(self.state, key, &job.workload, name, field.usage(host)).is_ok()
        };
        let home = job.data_on.as_ref().and_then(|name| field.find(name));
        home.filter(|home| fits(*home)).or_else(|| {
            let like = |host: usize| {
                feasible(self.state, key, &job.workload, field.name(host), field.usage(host))
            };
            // A job that still has a copy somewhere may not use that host: what it learns about
            // hosts is its own.
            match job.placements.is_empty() {
                true => field.best(spread, fits, like),
                false => field.best(&mut spread.clone(), fits, like),
            }
        })
    }

    fn into_plan(mut self) -> Plan {
        self.report.placed = self.items.len();
        let assign = chunks(self.items).into_iter().map(|items| Command::AssignJobs { items });
        let explain =
            chunks(self.explained).into_iter().map(|items| Command::ExplainJobs { items });
        Plan { commands: assign.chain(explain).collect(), report: self.report }
    }
}
