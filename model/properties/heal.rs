//! The loop that heals a state when nobody disturbs it: what control and agents would do.

use crate::throw::{deployment, host, profile, system};
use model::{
    Assign, Assignment, Command, Contact, Digest, HostState, JobKey, Name, NodeId, Phase, Report,
    Stamp, State, Timestamp, expected_jobs, feasible, is_evictable, is_in_line, is_placeable,
};

/// One round of everything control and agents would do, undisturbed: hosts return, jobs are brought
/// in line and placed, agents carry out their orders, time passes. The number of events.
pub(crate) fn heal(
    state: &mut State,
    time: Timestamp,
    taken: &mut impl FnMut(&mut State, Stamp, Command) -> usize,
) -> usize {
    let mut events = 0;
    let mut apply = |state: &mut State, command: Command| {
        events += taken(state, system(time.0), command);
    };
    let tenants: Vec<Name> = state.tenants.iter().map(|(name, _)| name.clone()).collect();
    for tenant in tenants {
        apply(state, Command::Settle { tenant: tenant.clone() });
        let hosts: Vec<Name> = state
            .hosts
            .iter()
            .filter(|((of, _), row)| {
                let connected = matches!(row.contact, Contact::Connected { .. });
                *of == tenant && connected == (row.state == HostState::Untrusted)
            })
            .map(|((_, host), _)| host.clone())
            .collect();
        for host in hosts {
            if state.host(&tenant, &host).is_some_and(|row| row.state == HostState::Untrusted) {
                let session = state.host(&tenant, &host).unwrap().contact.session();
                let (tenant, host) = (tenant.clone(), host.clone());
                apply(state, Command::LoseHost { tenant, host, session });
                continue;
            }
            let known = state.host(&tenant, &host).and_then(|row| row.agent_key);
            let (node, agent_key) = (NodeId(1), known.unwrap_or(Digest([1; 32])));
            let (tenant, profile) = (tenant.clone(), Box::new(profile(0xffff)));
            apply(state, Command::ConnectHost { tenant, host, node, agent_key, profile });
        }
        for deployment in [deployment(0), deployment(1)] {
            let mut keys = expected_jobs(state, &tenant, &deployment);
            keys.retain(|key| !is_in_line(state, key));
            apply(state, Command::SyncJobs { keys });
        }
        for n in 0..4 {
            let (host, items) = (host(n), place_on(state, &tenant, &host(n)));
            apply(state, Command::AssignJobs { items });
            let items = carry_out(state, &tenant, &host);
            let first = state.next_report(&tenant, &host);
            let tenant = tenant.clone();
            apply(state, Command::ReportJobs { tenant, host, first, items });
        }
    }
    let lost: Vec<(JobKey, Assignment)> = state
        .jobs
        .iter()
        .flat_map(|(key, job)| job.placements.iter().map(move |it| (key.clone(), it)))
        .filter(|(key, it)| is_evictable(state, &key.tenant, it))
        .map(|(key, it)| (key, it.assignment))
        .collect();
    apply(state, Command::EvictJobs { items: lost });
    events
}

fn place_on(state: &State, tenant: &Name, host: &Name) -> Vec<Assign> {
    let jobs = state.jobs.iter().filter(|(key, _)| key.tenant == *tenant);
    let open = jobs.filter(|(key, _)| is_placeable(state, key));
    let fits = open.filter(|(key, job)| {
        feasible(state, key, &job.workload, host, state.usage(tenant, host)).is_ok()
            && !job.placements.iter().any(|it| it.host == *host)
    });
    fits.take(1)
        .map(|(key, job)| Assign { key: key.clone(), host: host.clone(), seen: job.revision })
        .collect()
}

/// What an agent does, and says: what it said before is not said again.
fn carry_out(state: &State, tenant: &Name, host: &Name) -> Vec<Report> {
    let orders = state.orders(tenant, host).into_iter();
    let news = |report: &Report| {
        let copies = state.jobs.get(&report.key).into_iter().flat_map(|job| &job.placements);
        let said = copies.filter(|copy| copy.assignment == report.assignment);
        !said.filter_map(|copy| copy.current.as_ref()).any(|said| {
            (said.order, said.phase, said.spec_revision, said.restarts)
                == (report.order, report.phase, report.spec_revision, report.restarts)
                && said.image == report.image
                && said.data_left_behind == report.data_left_behind
                && said.error.is_none()
        })
    };
    orders
        .map(|order| Report {
            key: order.key,
            assignment: order.assignment,
            order: order.scheduled.revision,
            phase: if order.scheduled.active { Phase::Running } else { Phase::Stopped },
            spec_revision: order.scheduled.workload.spec_revision,
            image: order.scheduled.workload.image,
            restarts: 0,
            data_left_behind: false,
            error: None,
        })
        .filter(news)
        .collect()
}

/// Whether nothing waits for time either.
pub(crate) fn is_at_rest(state: &State) -> bool {
    state.tenants.iter().all(|(tenant, _)| state.next_due(tenant).is_none())
}
