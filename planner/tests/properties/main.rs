//! Properties of planning, over states built by applying commands: those of users, hosts and time,
//! and those the planners themselves propose.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod placing;
mod world;

use std::collections::BTreeMap;

use model::{
    Command, Contact, Job, JobKey, Name, OnDisconnect, Reply, State, feasible, invariants,
    is_update,
};
use planner::{Plan, actualize, evict, place, plan_cluster, plan_tenant};
use proptest::prelude::*;
use world::{Happening, World, happening, name, tenant};

/// Applies what a plan proposes; every command, and every item of it, must be accepted.
fn carry_out(world: &mut World, plan: &Plan) -> Result<(), TestCaseError> {
    for command in &plan.commands {
        let applied = world.apply(command.clone());
        match applied.outcome.result {
            Ok(Reply::Items(answers)) => {
                for answer in answers {
                    prop_assert!(answer.is_ok(), "refused: {answer:?} of {command:?}");
                }
            }
            Ok(_) => {}
            Err(rejection) => prop_assert!(false, "refused: {rejection:?} of {command:?}"),
        }
    }
    let violations = invariants::check(&world.state);
    prop_assert!(violations.is_empty(), "{violations:?}");
    Ok(())
}

fn clusters(state: &State) -> Vec<Name> {
    state.clusters.iter().map(|((_, cluster), _)| cluster.clone()).collect()
}

/// Plans and carries out until nothing is left to propose.
fn come_to_rest(world: &mut World) -> Result<(), TestCaseError> {
    for _ in 0..8 {
        let mut quiet = true;
        let plan = plan_tenant(&world.state, &tenant(), world.now());
        quiet &= plan.is_empty();
        carry_out(world, &plan)?;
        for cluster in clusters(&world.state) {
            let plan = plan_cluster(&world.state, &tenant(), &cluster, world.now());
            quiet &= plan.is_empty();
            carry_out(world, &plan)?;
        }
        if quiet {
            return Ok(());
        }
    }
    let plan = plan_tenant(&world.state, &tenant(), world.now());
    prop_assert!(false, "does not come to rest: {plan:?}");
    Ok(())
}

/// Hosts of all active copies.
fn hosts_of(state: &State) -> BTreeMap<(JobKey, u64), Name> {
    let active = |job: &Job| {
        let copies = job.placements.iter().filter(|copy| copy.scheduled.active);
        copies.map(|copy| (copy.assignment.0, copy.host.clone())).collect::<Vec<_>>()
    };
    let jobs = state.jobs.iter().flat_map(|(key, job)| {
        active(job).into_iter().map(|(assignment, host)| ((key.clone(), assignment), host))
    });
    jobs.collect()
}

fn within_capacity(state: &State) -> Result<(), TestCaseError> {
    for ((of, host), row) in state.hosts.iter() {
        let usage = state.usage(of, host);
        prop_assert!(usage.cpu_millis <= row.capacity.cpu_millis, "{host} has too much on it");
        prop_assert!(usage.memory_bytes <= row.capacity.memory_bytes, "{host} is too full");
    }
    Ok(())
}

/// What is placed suits its host, judged here without the one function that judges it there.
fn suits(state: &State, plan: &Plan) -> Result<(), TestCaseError> {
    for command in &plan.commands {
        let Command::AssignJobs { items } = command else { continue };
        for item in items {
            let job = state.jobs.get(&item.key).unwrap();
            let host = state.host(&item.key.tenant, &item.host).unwrap();
            let workload = &job.workload;
            let connected = matches!(host.contact, Contact::Connected { .. });
            prop_assert!(connected);
            prop_assert!(!host.cordoned && host.drivers.contains(&workload.driver));
            prop_assert!(workload.on_disconnect != OnDisconnect::Stop || host.fenced);
            let in_zone = host.zone.as_ref().is_some_and(|zone| workload.zones.contains(zone));
            prop_assert!(workload.zones.is_empty() || in_zone);
            let cluster = state.cluster(&item.key.tenant, &item.key.cluster).unwrap();
            prop_assert!(cluster.spec.members.contains(&item.host));
        }
    }
    Ok(())
}

/// A job running as told, long enough, where control can see it.
fn is_up(state: &State, key: &JobKey, job: &Job) -> bool {
    job.placements.iter().any(|copy| {
        let host = state.host(&key.tenant, &copy.host).unwrap();
        matches!(host.contact, Contact::Connected { .. })
            && copy.scheduled.active
            && copy.current.as_ref().is_some_and(|current| {
                current.settled
                    && current.phase == model::Phase::Running
                    && current.spec_revision == copy.scheduled.workload.spec_revision
            })
    })
}

/// Jobs that are neither up nor on a host out of contact, by application and cluster.
fn down(state: &State) -> BTreeMap<(Name, Name, Name), u32> {
    let mut counts = BTreeMap::new();
    for (key, job) in state.jobs.iter().filter(|(_, job)| job.active) {
        let group = (key.deployment.clone(), key.cluster.clone(), key.application.clone());
        let away = job.placements.iter().any(|copy| {
            let host = state.host(&key.tenant, &copy.host).unwrap();
            copy.scheduled.active && !matches!(host.contact, Contact::Connected { .. })
        });
        *counts.entry(group).or_default() += u32::from(!is_up(state, key, job) && !away);
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn plans_are_accepted_come_to_rest_and_keep_the_constraints(
        life in prop::collection::vec(happening(), 1..60)
    ) {
        let mut world = World::new();
        for happening in &life {
            world.happen(happening);
            if let Happening::Plan = happening {
                for cluster in clusters(&world.state) {
                    let plan = place(&world.state, &tenant(), &cluster);
                    suits(&world.state, &plan)?;
                    // What fits nowhere fits nowhere.
                    carry_out(&mut world, &plan)?;
                    for unplaced in &plan.report.unplaced {
                        let job = world.state.jobs.get(&unplaced.key).unwrap();
                        for ((of, host), _) in world.state.hosts.iter() {
                            let usage = world.state.usage(of, host);
                            let fits = feasible(&world.state, &unplaced.key, &job.workload, host, usage);
                            let here = job.placements.iter().any(|copy| copy.host == *host);
                            prop_assert!(here || fits.is_err(), "{} fits on {host}", unplaced.key);
                        }
                    }
                    prop_assert!(place(&world.state, &tenant(), &cluster).is_empty());
                    let plan = evict(&world.state, &tenant(), &cluster);
                    carry_out(&mut world, &plan)?;
                    prop_assert!(evict(&world.state, &tenant(), &cluster).is_empty());
                }
                let plan = actualize(&world.state, &tenant(), None);
                carry_out(&mut world, &plan)?;
                prop_assert!(actualize(&world.state, &tenant(), None).is_empty());
                come_to_rest(&mut world)?;
            }
            within_capacity(&world.state)?;
        }
        come_to_rest(&mut world)?;
        within_capacity(&world.state)?;
    }

    #[test]
    fn an_update_takes_down_no_more_than_allowed(life in prop::collection::vec(happening(), 1..80)) {
        let mut world = World::new();
        for happening in &life {
            world.happen(happening);
            let Happening::Plan = happening else { continue };
            let before = world.state.clone();
            let plan = actualize(&world.state, &tenant(), None);
            carry_out(&mut world, &plan)?;
            let down = down(&world.state);
            for (key, job) in before.jobs.iter() {
                let Some(now) = world.state.jobs.get(key) else { continue };
                // A job with a copy that has to leave its host is not held back.
                let updated = now.active && now.workload != job.workload && is_update(&before, key);
                if !updated || !is_up(&before, key, job) || is_up(&world.state, key, now) {
                    continue;
                }
                // An update took it down: then no more are down than may be.
                let group = (key.deployment.clone(), key.cluster.clone(), key.application.clone());
                let row = world.state.deployment(&tenant(), &key.deployment).unwrap();
                let (down, max) = (down[&group], row.spec.strategy.max_unavailable);
                prop_assert!(down <= max, "{group:?}: {down} down, {max} allowed");
            }
            come_to_rest(&mut world)?;
        }
    }

    #[test]
    fn planning_is_deterministic_and_changes_nothing(life in prop::collection::vec(happening(), 1..60)) {
        let mut world = World::new();
        for happening in &life {
            world.happen(happening);
        }
        let hash = world.state.hash();
        let again = State::load(world.state.globals.clone(), world.state.rows());
        prop_assert_eq!(
            plan_tenant(&world.state, &tenant(), world.now()),
            plan_tenant(&again, &tenant(), world.now())
        );
        for cluster in clusters(&world.state) {
            prop_assert_eq!(
                plan_cluster(&world.state, &tenant(), &cluster, world.now()),
                plan_cluster(&again, &tenant(), &cluster, world.now())
            );
        }
        prop_assert_eq!(world.state.hash(), hash);
    }

    #[test]
    fn what_has_a_host_stays_when_hosts_and_other_deployments_come_and_change(
        life in prop::collection::vec(happening(), 1..50),
        version in 1..4_u8,
    ) {
        let mut world = World::new();
        for happening in &life {
            world.happen(happening);
        }
        world.happen(&Happening::Targets { deployment: 1, north: true, south: true });
        come_to_rest(&mut world)?;
        let before = hosts_of(&world.state);
        world.add_host("late", "north", "z1", 4_000);
        world.happen(&Happening::Deploy { deployment: 1, version });
        for _ in 0..4 {
            come_to_rest(&mut world)?;
            world.happen(&Happening::Obey { host: 0, failing: false });
            world.happen(&Happening::Tick { ms: 11_000 });
        }
        for ((key, assignment), host) in before {
            let job = world.state.jobs.get(&key);
            let other = key.deployment != name("app-1");
            let copies = job.into_iter().flat_map(|job| &job.placements);
            let kept = copies.filter(|copy| copy.assignment.0 == assignment).any(|copy| copy.host == host);
            let lost = world.state.host(&tenant(), &host).is_none_or(|row| {
                !matches!(row.contact, Contact::Connected { .. })
            });
            prop_assert!(kept || lost || !other, "{key} left {host}");
        }
    }
}
