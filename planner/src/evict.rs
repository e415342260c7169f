//! Giving up copies on lost hosts, where the job's policy allows (PART-23).
//!
//! `stop`: at once, because nothing of it runs any more when control holds the host for lost.
//! `keep_running` and `replace`: when an operator declared the host lost. Before that a `replace` job
//! keeps its copy and gets a second one beside it after its grace, which is `place`'s business.
//! What may be given up is `model::is_evictable`'s to say.

use model::{Command, Name, State, is_evictable};

use crate::{Plan, Report, chunk::chunks};

/// `EvictJobs` for copies of jobs of a cluster whose hosts are lost and whose policy lets them run
/// elsewhere.
pub fn evict(state: &State, tenant: &Name, cluster: &Name) -> Plan {
    let mut items = Vec::new();
    for (key, job) in state.jobs_in(tenant, cluster) {
        let gone = job.placements.iter().filter(|copy| is_evictable(state, tenant, copy));
        items.extend(gone.map(|copy| (key.clone(), copy.assignment)));
    }
    let report = Report { evicted: items.len(), ..Report::default() };
    let commands = chunks(items).into_iter().map(|items| Command::EvictJobs { items }).collect();
    Plan { commands, report }
}
