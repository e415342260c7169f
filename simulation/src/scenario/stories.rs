//! The stories.

use super::stage::{Stage, deployment, is, on, running, state};
use crate::world::World;
use crate::{
    names::name,
    settings::{Plant, Settings},
};
use anyhow::{Context, Result, ensure};
use model::{Command, Contact, DeploymentState, Name, Targets};

/// S2: a deployment waits for its selector; a host joins a cluster that matches, and it appears there
/// without anybody asking. The host is distrusted: its jobs go, the deployment has no target, nothing
/// is left.
///
/// # Errors
/// What went another way.
pub fn s2_a_host_appears() -> Result<()> {
    let mut stage = Stage::new()?;
    let blue = [("environment".to_owned(), "blue".to_owned())].into_iter().collect();
    stage.deploy("shop-1", "package-1", Targets::Selector(blue))?;
    stage.until("there is no target", 45_000, |world| {
        is(world, "shop-1", DeploymentState::NoTargetClusters)
    })?;
    stage.cluster("north", false, &["edge-2", "edge-4", "edge-6", "edge-8"])?;
    stage.cluster("azure", true, &["edge-0"])?;
    stage.until("it runs", 60_000, |world| is(world, "shop-1", DeploymentState::Running))?;
    let hosts = running(&mut stage.world, "shop-1");
    ensure!(hosts.len() == 3 && hosts.iter().all(|(_, host)| host.as_str() == "edge-0"));
    let (tenant, host) = (name("acme"), name("edge-0"));
    stage.ask(Command::DistrustHost { tenant, host, reason: "stolen".to_owned() })?;
    stage.pass(60_000)?;
    let left = running(&mut stage.world, "shop-1");
    ensure!(left.is_empty(), "the host is not trusted and still runs {left:?}");
    stage.ask(Command::DeleteCluster {
        tenant: name("acme"),
        cluster: name("azure"),
        force: false,
    })?;
    stage.until("there is no target again", 60_000, |world| {
        is(world, "shop-1", DeploymentState::NoTargetClusters)
    })?;
    // The host does not answer any more: its jobs go when its lease is surely over.
    stage.until("no job is left over", 60_000, |world| state(world).jobs.is_empty())?;
    Ok(())
}

/// S3: the host that runs some partitions dies. They run elsewhere within TTL + 8 s of its last
/// renewal, never twice, and do not move when it returns. Gives how long it took, in ms.
///
/// # Errors
/// What went another way.
pub fn s3_a_host_dies() -> Result<u64> {
    let mut stage = Stage::new()?;
    stage.deploy("shop-0", "package-0", on(&["north"]))?;
    stage.until("it runs", 60_000, |world| is(world, "shop-0", DeploymentState::Running))?;
    let before = running(&mut stage.world, "shop-0");
    ensure!(before.len() == 2, "two partitions run, here {before:?}");
    let Some((_, lost)) = before.first().cloned() else { return Ok(0) };
    let at = (name("acme"), lost.clone());
    let number = stage.world.host_numbers.get(&at).copied().unwrap_or_default();
    stage.cut(number);
    let cut_at = stage.world.now;
    let mut moved = before.clone();
    while moved.len() < 2 || moved.iter().any(|(_, host)| *host == lost) {
        stage.pass(100)?;
        ensure!(stage.world.now < cut_at + 60_000, "it does not run elsewhere: {moved:?}");
        moved = running(&mut stage.world, "shop-0");
    }
    let took = stage.world.now - cut_at;
    ensure!(took <= Settings::TTL_MS + 8_000, "it took {took} ms");
    stage.mend();
    stage.until("the host is back", 30_000, |world| {
        state(world)
            .host(&at.0, &at.1)
            .is_some_and(|row| matches!(row.contact, model::Contact::Connected { .. }))
    })?;
    stage.pass(60_000)?;
    let after = running(&mut stage.world, "shop-0");
    ensure!(after == moved, "{moved:?} became {after:?}");
    Ok(took)
}

/// S7: a link is down for an hour. Its `keep_running` copies go on, control shows UNKNOWN; the
/// deployment is deleted by force meanwhile and is gone. The link comes back: the host stops what it
/// runs, and control hears nothing old.
///
/// # Errors
/// What went another way.
pub fn s7_a_link_is_down() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.cluster("north", false, &["edge-2"])?;
    stage.deploy("shop-1", "package-1", on(&["north"]))?;
    stage.until("it runs", 60_000, |world| is(world, "shop-1", DeploymentState::Running))?;
    stage.cut(2);
    stage.until("control does not know", 40_000, |world| {
        is(world, "shop-1", DeploymentState::Unknown)
    })?;
    stage.pass(1_800_000)?;
    let alive = running(&mut stage.world, "shop-1");
    ensure!(alive.len() == 3, "it goes on without a link: {alive:?}");
    ensure!(is(&stage.world, "shop-1", DeploymentState::Unknown));
    let (tenant, shop) = (name("acme"), name("shop-1"));
    stage.ask(Command::DeleteDeployment { tenant, deployment: shop, force: true })?;
    stage.until("it is gone", 20_000, |world| deployment(world, "shop-1").is_none())?;
    stage.pass(1_700_000)?;
    ensure!(running(&mut stage.world, "shop-1").len() == 3, "nobody has told the host yet");
    stage.mend();
    stage.pass(30_000)?;
    let left = running(&mut stage.world, "shop-1");
    ensure!(left.is_empty(), "the host still runs {left:?}");
    let agent = stage.world.hosts[2].agent.as_ref();
    let told = agent.is_some_and(|agent| agent.memory.unsent().next().is_none());
    ensure!(told, "the host still has something to report");
    ensure!(deployment(&stage.world, "shop-1").is_none());
    Ok(())
}

/// Found by seed 28 and others: an update fails on one partition for good, so that the rollout stops;
/// then a host that runs another partition is deleted by force. The partition leaves it all the same.
///
/// # Errors
/// What went another way.
pub fn a_stopped_rollout_keeps_no_host() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.cluster("north", false, &["edge-0", "edge-2", "edge-4"])?;
    stage.deploy("shop-1", "package-1", on(&["north"]))?;
    stage.until("it runs", 60_000, |world| is(world, "shop-1", DeploymentState::Running))?;
    // Version 3 does not start anywhere.
    stage.deploy_version("shop-1", ("package-1", "3.0.0"), on(&["north"]))?;
    stage
        .until("the update failed", 120_000, |world| is(world, "shop-1", DeploymentState::Error))?;
    let jobs: Vec<_> = state(&stage.world).jobs.iter().collect();
    let newest = jobs.iter().map(|(_, job)| job.workload.spec_revision).max();
    let waiting = jobs.iter().find(|(_, job)| Some(job.workload.spec_revision) != newest);
    let host = waiting.and_then(|(_, job)| Some(job.placements.last()?.host.clone()));
    let host = host.context("no partition waits for the rollout")?;
    let tenant = name("acme");
    stage.ask(Command::DeleteHost { tenant: tenant.clone(), host: host.clone(), force: true })?;
    stage.until("the host is gone", 60_000, |world| state(world).host(&tenant, &host).is_none())?;
    Ok(())
}

/// Calls to a node that holds sessions do not arrive; its own calls do, as with a firewall or a disk that
/// hangs. It hears no more of the log and is lost to the leader, so it must not keep the leases of its
/// hosts alive by asking: their jobs run elsewhere, once.
///
/// # Errors
/// What went another way.
pub fn a_node_nobody_can_call_grants_no_lease(plant: Option<Plant>) -> Result<()> {
    let mut stage = Stage::with(plant)?;
    stage.deploy("shop-0", "package-0", on(&["north"]))?;
    stage.until("it runs", 60_000, |world| is(world, "shop-0", DeploymentState::Running))?;
    let before = running(&mut stage.world, "shop-0");
    let leader = stage.world.log.leader.context("nobody leads")?;
    let holder = |world: &World, host: &Name| {
        let row = world.nodes[leader].state.host(&name("acme"), host)?;
        let Contact::Connected { node, .. } = row.contact else { return None };
        world.nodes.iter().position(|it| it.id == node).filter(|node| *node != leader)
    };
    let held = before.iter().find_map(|(_, host)| holder(&stage.world, host));
    let deaf = held.context("the leader holds all sessions")?;
    stage.cut_calls_to(deaf);
    stage.pass(120_000)?;
    let now = running(&mut stage.world, "shop-0");
    ensure!(now.len() == before.len(), "{before:?} became {now:?}");
    for (_, host) in &now {
        ensure!(holder(&stage.world, host) != Some(deaf), "{host} is still held by a lost node");
    }
    stage.mend();
    stage.pass(60_000)
}
