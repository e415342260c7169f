//! What time will bring to a deployment, worked out when somebody looks at it: when what failed is tried
//! again, and when copies that are up count as running.
//!
//! None of it is stored: it follows from the rows, and a row that told the time would change with it.

use crate::{Due, Name, State, Timestamp, due, limits::ANTI_FLAP_MS, read::first_key, rollup};
use std::{
    collections::BTreeMap,
    ops::Bound::{Included, Unbounded},
};

/// Most entries of what is due that are looked through; copies beyond them are not counted.
const LOOKED_AT_MAX: usize = 65_536;

/// Jobs that are up, but not for long enough to count as running (APP-27).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settling {
    /// How many.
    pub jobs: u64,
    /// When the last of them counts.
    pub until: Timestamp,
}

impl Settling {
    fn add(&mut self, other: Self) {
        self.jobs += other.jobs;
        self.until = self.until.max(other.until);
    }
}

/// The outlook of one deployment, or of its part on a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// When the job that was tried most often is tried again.
    pub next_retry_at: Option<Timestamp>,
    /// Jobs on their way to count as running.
    pub settling: Settling,
}

/// The outlooks of a tenant's deployments.
#[derive(Clone, Debug)]
pub struct Outlooks<'a> {
    state: &'a State,
    tenant: Name,
    /// By deployment and cluster.
    settling: BTreeMap<(Name, Name), Settling>,
}

impl State {
    /// Looks at what is due soon for a tenant, once for all its deployments.
    pub fn outlooks(&self, tenant: &Name) -> Outlooks<'_> {
        let start = (tenant.clone(), Timestamp::default(), Due::Job(first_key()));
        // Nothing that is up now can be due later than this.
        let end = self.globals.time.plus_ms(ANTI_FLAP_MS);
        let soon = self.index.due.range((Included(start), Unbounded));
        let soon = soon.take_while(|(of, at, _)| of == tenant && *at <= end).take(LOOKED_AT_MAX);
        let mut settling: BTreeMap<(Name, Name), Settling> = BTreeMap::new();
        for (_, _, due) in soon {
            let Due::Job(key) = due else { continue };
            let Some(job) = self.jobs.get(key) else { continue };
            if let Some(until) = job.placements.iter().filter_map(due::of_placement).max() {
                let at = (key.deployment.clone(), key.cluster.clone());
                settling.entry(at).or_default().add(Settling { jobs: 1, until });
            }
        }
        Outlooks { state: self, tenant: tenant.clone(), settling }
    }
}

impl Outlooks<'_> {
    /// The outlook of a deployment, or of its part on a cluster if one is named.
    pub fn of(&self, deployment: &Name, cluster: Option<&Name>) -> Outlook {
        let mut settling = Settling::default();
        let start = (deployment.clone(), cluster.cloned().unwrap_or_else(Name::first));
        let own = self.settling.range(start..).take_while(|((of, _), _)| of == deployment);
        for ((_, here), some) in own {
            if cluster.is_none_or(|cluster| cluster == here) {
                settling.add(*some);
            }
        }
        let next_retry_at = rollup::next_retry_at(self.state, &self.tenant, deployment, cluster);
        Outlook { next_retry_at, settling }
    }
}
