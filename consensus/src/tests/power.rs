//! Power cuts, and stores and logs that broke.

use super::world::{DIR, World, apply_tenant, config, has_tenant, log_config, soon};
use crate::{Config, Ledger, RaftLedger, StartError, StopReason};
use futures::{StreamExt, stream::FuturesUnordered};
use model::{NodeId, State};
use std::{path::Path, time::Duration};
use storage::{
    Dice,
    disk::simulated::{Loss, SimulatedDiskConfig},
};
use tokio::time::Instant;

/// Writes from all nodes at once until `until`; answers which were acknowledged.
async fn write_until(world: &World, round: u64, until: Instant) -> Vec<String> {
    let writers = FuturesUnordered::new();
    for id in world.running() {
        for lane in 0..4 {
            let ledger = world.ledger(id);
            writers.push(async move {
                let mut acknowledged = Vec::new();
                for n in 0.. {
                    let name = format!("r{round}-{id}-{lane}-{n}");
                    let proposed = super::world::proposal(super::world::tenant(&name));
                    match tokio::time::timeout_at(until, ledger.propose(proposed)).await {
                        Ok(Ok(_)) => acknowledged.push(name),
                        Ok(Err(_)) => {}
                        Err(_) => break,
                    }
                }
                acknowledged
            });
        }
    }
    writers.collect::<Vec<_>>().await.concat()
}

async fn all_lose_power(seed: u64, config: Config) {
    let mut dice = Dice::new(seed);
    let mut world = World::start(3, config).await;
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let time = Duration::from_millis(dice.between(20, 400));
        acknowledged.extend(write_until(&world, round, Instant::now() + time).await);
        for id in world.running() {
            let loss = Loss::any(&mut dice);
            world.crash(id, loss).await;
        }
        for id in (1..=3).map(NodeId) {
            world.boot(id).await;
        }
        let state = world.converge().await;
        for name in &acknowledged {
            assert!(has_tenant(&state, name), "seed {seed}: {name} was acknowledged and is gone");
        }
    }
    assert!(acknowledged.len() > 40, "seed {seed}: only {} writes", acknowledged.len());
}

#[tokio::test(start_paused = true)]
async fn no_power_cut_of_all_nodes_loses_an_acknowledged_write() {
    for seed in 0..20 {
        all_lose_power(seed, config()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_power_cut_between_snapshots_loses_an_acknowledged_write() {
    let snapshots =
        Config { snapshot_every_entries: 10, log_keep_entries: 2, duty_ms: 20, ..config() };
    for seed in 100..115 {
        all_lose_power(seed, snapshots.clone()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_open_is_rebuilt() {
    let small = Config { log_keep_entries: 2, ..config() };
    let mut world = World::start(1, small).await;
    let one = NodeId(1);
    for n in 0..30 {
        apply_tenant(&world.ledger(one), &format!("t-{n}")).await;
    }
    world.ledger(one).snapshot().await.unwrap();
    let until = soon();
    while world.ledger(one).status().purged_index.is_none() {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    apply_tenant(&world.ledger(one), "after-the-snapshot").await;
    let before = world.ledger(one).read(State::clone);
    world.crash(one, Loss::Unsynced).await;
    world.machines[&one].home.wreck();
    world.boot(one).await;
    world.wait_for_leader().await;
    let after = world.ledger(one).read(State::clone);
    assert_eq!(before.hash(), after.hash());
    assert!(has_tenant(&after, "t-0") && has_tenant(&after, "after-the-snapshot"));
}

#[tokio::test(start_paused = true)]
async fn a_state_ahead_of_its_log_is_not_relied_on() {
    let mut world = World::start(3, config()).await;
    let leader = world.wait_for_leader().await;
    let slow = world.running().into_iter().find(|id| *id != leader).unwrap();
    let usual = SimulatedDiskConfig { sync_us: (100, 2_000), ..SimulatedDiskConfig::default() };
    let stalling = SimulatedDiskConfig { sync_us: (900_000, 900_000), ..usual.clone() };
    world.machines[&slow].disk.configure(stalling);
    apply_tenant(&world.ledger(leader), "acme").await;
    let begun = Instant::now();
    while !world.ledger(slow).read(|state| has_tenant(state, "acme")) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(begun.elapsed() < Duration::from_millis(500), "it is applied before it is synced");
    world.crash_apart(slow, Loss::Unsynced, Loss::Nothing).await;
    world.machines[&slow].disk.configure(usual);
    world.boot(slow).await;
    assert!(has_tenant(&world.converge().await, "acme"));
    // The store is no truth: it may go.
    world.crash(slow, Loss::Nothing).await;
    world.machines[&slow].home.wreck();
    world.boot(slow).await;
    assert!(has_tenant(&world.converge().await, "acme"));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_cannot_sync_stops_its_node_only() {
    let mut world = World::start(3, config()).await;
    let leader = world.wait_for_leader().await;
    let ledger = world.ledger(leader);
    world.machines[&leader].disk.inject(storage::disk::simulated::Injection::FailNextSync);
    let other = world.running().into_iter().find(|id| *id != leader).unwrap();
    let proposed = super::world::proposal(super::world::tenant("during"));
    drop(world.ledger(other).propose(proposed).await);
    let reason = tokio::time::timeout_at(soon(), ledger.stopped()).await.unwrap();
    assert!(matches!(reason, StopReason::Fatal(_)), "{reason:?}");
    apply_tenant(&world.ledger(other), "after").await;
    world.crash(leader, Loss::Unsynced).await;
    world.boot(leader).await;
    assert!(has_tenant(&world.converge().await, "after"));
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_log_is_gone_does_not_vote_again() {
    let mut world = World::start(3, config()).await;
    apply_tenant(&world.ledger(NodeId(1)), "acme").await;
    world.converge().await;
    for id in world.running() {
        world.crash(id, Loss::Nothing).await;
    }
    let one = NodeId(1);
    world.remove_log(one).await;
    let refused = world.try_boot(one).await.unwrap_err();
    assert!(matches!(refused, StartError::LogLost { .. }), "{refused}");
    assert!(refused.to_string().contains("muster cluster add"), "{refused}");
    // Nor with an empty one in its place: state that it voted for is there.
    let disk = &world.machines[&one].disk;
    RaftLedger::make_log(disk, Path::new(DIR), &log_config()).await.unwrap();
    let refused = world.try_boot(one).await.unwrap_err();
    assert!(matches!(refused, StartError::LogLost { .. }), "{refused}");
    // The others are a majority without it.
    for id in [NodeId(2), NodeId(3)] {
        world.boot(id).await;
    }
    assert!(has_tenant(&world.converge().await, "acme"));
}

#[tokio::test(start_paused = true)]
async fn a_log_behind_its_snapshot_is_refused_when_the_store_is_gone_too() {
    let mut world = World::start(1, config()).await;
    let one = NodeId(1);
    apply_tenant(&world.ledger(one), "acme").await;
    world.ledger(one).snapshot().await.unwrap();
    let until = soon();
    while world.ledger(one).status().snapshot_index.is_none() {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.crash(one, Loss::Nothing).await;
    world.remove_log(one).await;
    world.machines[&one].home.wreck();
    let disk = &world.machines[&one].disk;
    RaftLedger::make_log(disk, Path::new(DIR), &log_config()).await.unwrap();
    let refused = world.try_boot(one).await.unwrap_err();
    assert!(matches!(refused, StartError::LogLost { .. }), "{refused}");
}
