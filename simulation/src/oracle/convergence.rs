//! Without faults everything becomes as asked, or says why not: control and hosts agree on what runs.

use super::Found;
use crate::{settings::Settings, world::World};
use agent::reconcile::Lease;
use model::{Contact, HostState, Job, JobKey, Phase, State};

/// Whether nothing is left to do.
pub(super) fn reached(world: &World) -> Found {
    let state = caught_up(world)?;
    for (key, job) in state.jobs.iter() {
        one_job(state, key, job).map_err(|why| format!("job {key}: {why}"))?;
    }
    deletions(world, state)?;
    hosts(world, state)?;
    let wall = world.nodes[0].wall(world.now);
    for (tenant, _) in state.tenants.iter() {
        if let Some(command) = planner::plan_tenant(state, tenant, wall).commands.first() {
            return Err(format!("there is still {command:?} to do"));
        }
    }
    for ((tenant, cluster), _) in state.clusters.iter() {
        let plan = planner::plan_cluster(state, tenant, cluster, wall);
        if let Some(command) = plan.commands.first() {
            return Err(format!("there is still {command:?} to do"));
        }
    }
    Ok(())
}

/// The state that all nodes have.
fn caught_up(world: &World) -> Result<&State, String> {
    for node in &world.nodes {
        let alive = node.state.nodes.get(&node.id).is_some_and(|row| row.alive);
        if !node.up || node.applied != world.log.committed.len() || !alive {
            return Err(format!("node {} is not there yet", node.id));
        }
    }
    match world.log.pending.is_empty() {
        true => Ok(&world.nodes[0].state),
        false => Err("the leader has something to commit".to_owned()),
    }
}

/// A job runs as asked, is gone, or says why not.
pub(crate) fn one_job(state: &State, key: &JobKey, job: &Job) -> Found {
    let away = |host: &model::Name| {
        let row = state.host(&key.tenant, host);
        !row.is_some_and(|row| matches!(row.contact, Contact::Connected { .. }))
    };
    let out_of_reach = job.placements.iter().any(|it| away(&it.host));
    if !job.active {
        return match out_of_reach {
            true => Ok(()),
            false => Err("it is not to run and still there".to_owned()),
        };
    }
    let Some(placement) = job.placements.iter().rev().find(|it| it.scheduled.active) else {
        return match (&job.trouble, out_of_reach) {
            (_, true) => Ok(()),
            (Some(trouble), _) if !trouble.text.is_empty() => Ok(()),
            _ => Err("it has no host and no reason".to_owned()),
        };
    };
    if away(&placement.host) {
        return Ok(());
    }
    let Some(current) = &placement.current else {
        return Err("its host has not said anything".to_owned());
    };
    let answered = current.order == placement.scheduled.revision;
    let runs = current.phase == Phase::Running
        && current.settled
        && current.spec_revision == placement.scheduled.workload.spec_revision;
    let failed = current.phase == Phase::Failed && current.error.is_some();
    match answered && (runs || failed) {
        true => Ok(()),
        false => Err(format!("it is {current:?}")),
    }
}

/// Deletions wait at most for hosts out of contact.
fn deletions(world: &World, state: &State) -> Found {
    let dead = world.hosts.iter().any(|host| host.dead);
    let hosts = state.hosts.iter().map(|((_, name), row)| (name, &row.meta));
    let clusters = state.clusters.iter().map(|((_, name), row)| (name, &row.meta));
    let deployments = state.deployments.iter().map(|((_, name), row)| (name, &row.meta));
    let mut all = hosts.chain(clusters).chain(deployments);
    let stuck = all
        .find(|(_, meta)| meta.deletion.as_ref().is_some_and(|deletion| deletion.force || !dead));
    match stuck {
        Some((name, meta)) => Err(format!("{name} is still being deleted: {:?}", meta.deletion)),
        None => Ok(()),
    }
}

/// Hosts run what the state says, and nothing else.
fn hosts(world: &World, state: &State) -> Found {
    for (number, host) in world.hosts.iter().enumerate() {
        let (tenant, name) = &host.at;
        let row = state.host(tenant, name);
        let connected = row.is_some_and(|row| matches!(row.contact, Contact::Connected { .. }));
        let lost = |row: &model::Host| matches!(row.contact, Contact::Lost { .. });
        if row.is_some_and(|row| lost(row) && !row.replaceable) {
            return Err(format!("host {number} is lost and the grace is not over"));
        }
        if host.dead {
            match connected {
                true => return Err(format!("host {number} is gone and held for connected")),
                false => continue,
            }
        }
        let Some(agent) = &host.agent else { return Err(format!("host {number} has no agent")) };
        let trusted = row.is_some_and(|row| row.state != HostState::Untrusted);
        if !trusted && connected {
            return Err(format!("host {number} is not trusted and held for connected"));
        }
        if trusted && !(connected && agent.heard) {
            return Err(format!("host {number} is out of contact"));
        }
        // Guards stop jobs some time before a lease ends: one that is not renewed is as good as over.
        let now_boot_ms = host.machine.boot_ms(world.now);
        let left_ms = match agent.lease.at(now_boot_ms) {
            Lease::Alive { until_boot_ms } => until_boot_ms - now_boot_ms,
            Lease::Never | Lease::Expired => 0,
        };
        if trusted && left_ms < Settings::TTL_MS / 2 {
            return Err(format!("host {number} gets no lease"));
        }
        if trusted && agent.memory.unsent().next().is_some() {
            return Err(format!("host {number} has something to report"));
        }
        if !agent.busy.is_empty() {
            return Err(format!("host {number} is busy with {:?}", agent.busy));
        }
        let orders = state.orders(tenant, name);
        for (key, guard) in host.machine.guards.iter().filter(|(_, guard)| guard.is_up()) {
            let mut orders = orders.iter();
            let asked = orders.any(|it| it.key == *key && it.assignment == guard.assignment);
            if !asked {
                return Err(format!("host {number} runs {key}, which nobody asks for"));
            }
        }
        for order in orders.iter().filter(|order| order.scheduled.active) {
            let job = state.jobs.get(&order.key);
            let placement = job.and_then(|job| job.placements.iter().find(|it| it.host == *name));
            let current = placement.and_then(|placement| placement.current.as_ref());
            let says = current.is_some_and(|current| current.phase == Phase::Running);
            let runs = host.machine.guards.get(&order.key).is_some_and(|guard| guard.is_up());
            if says && !runs {
                return Err(format!("host {number} says that {} runs, and it does not", order.key));
            }
        }
    }
    Ok(())
}
