//! A replica whose state was bent: who stops, who goes on, and what happens when nobody can tell.

use super::world::{World, apply_tenant, config, has_tenant, proposal, soon, tenant, with_id};
use crate::{Config, Error, Ledger, Proposal, StartError, StopReason, snapshot};
use model::{NodeId, Timestamp};
use std::time::Duration;
use storage::disk::simulated::Loss;
use tokio::{task::JoinHandle, time::Instant};

/// Ballots are exchanged often: what takes seconds of virtual time would be missed by quick writers.
fn busy() -> Config {
    Config { duty_ms: 20, ..config() }
}

fn stopping(world: &World, id: NodeId) -> JoinHandle<StopReason> {
    let ledger = world.ledger(id);
    tokio::spawn(async move { ledger.stopped().await })
}

async fn in_time<T>(what: &str, task: JoinHandle<T>) -> T {
    match tokio::time::timeout_at(soon(), task).await {
        Ok(done) => done.unwrap(),
        Err(_) => panic!("{what} did not happen in time"),
    }
}

/// Writes through `at` that may be refused for a while.
async fn write(world: &World, at: NodeId, round: &str, writes: usize) -> usize {
    let mut taken = 0;
    for n in 0..writes {
        let deadline = Instant::now() + Duration::from_millis(300);
        let asked = Proposal { deadline, ..proposal(tenant(&format!("{round}-{n}"))) };
        taken += usize::from(world.ledger(at).propose(asked).await.is_ok());
    }
    taken
}

/// The first lines of what a node wrote down of its rows, and whether tenant acme is among them.
async fn rows(world: &World, id: NodeId) -> (String, bool) {
    let text = world.note(id, snapshot::ROWS).await.unwrap();
    let head = text.lines().next().unwrap().to_owned();
    let index = head.split("log index ").nth(1).unwrap().split(',').next().unwrap();
    let has = text.lines().any(|line| line.starts_with("Tenant") && line.contains("acme"));
    (index.to_owned(), has)
}

async fn the_odd_one_stops(of_three: impl Fn(NodeId, &World) -> NodeId) {
    let mut world = World::start(3, busy()).await;
    let leader = world.wait_for_leader().await;
    let odd = of_three(leader, &world);
    let others: Vec<_> = world.running().into_iter().filter(|id| *id != odd).collect();
    apply_tenant(&world.ledger(leader), "acme").await;
    world.converge().await;
    world.ledger(odd).corrupt_for_test();
    let stopped = stopping(&world, odd);
    for n in 0..40 {
        // The leader may end before it answers: with an id the same is asked again.
        let asked = with_id(tenant(&format!("t-{n}")), Timestamp(1_000_000), n);
        let outcome = world.ledger(others[0]).propose(asked).await.unwrap();
        assert!(outcome.result.is_ok(), "{outcome:?}");
    }
    let reason = in_time("the end of the odd one", stopped).await;
    assert!(matches!(reason, StopReason::Diverged { .. }), "{reason:?}");
    assert!(reason.to_string().contains("state-hashes"), "{reason}");
    for id in &others {
        assert!(!world.ledger(*id).is_stopped_for_test(), "node {id} goes on");
    }
    // Both sides wrote down what they have at one index.
    let (odd_index, odd_has) = rows(&world, odd).await;
    let (index, has) = rows(&world, others[0]).await;
    assert_eq!((odd_has, has), (false, true));
    assert_eq!(odd_index, index);
    world.crash(odd, Loss::Nothing).await;
    apply_tenant(&world.ledger(others[0]), "while-it-is-away").await;
    world.boot(odd).await;
    let state = world.converge().await;
    assert!(has_tenant(&state, "acme") && has_tenant(&state, "t-39"));
    let before = world.note(odd, snapshot::REBUILT_NOTE).await.unwrap();
    assert!(before.starts_with("rebuilt from the log"), "{before}");
    // And it takes part again.
    write(&world, odd, "later", 20).await;
    world.converge().await;
}

#[tokio::test(start_paused = true)]
async fn an_odd_follower_stops_and_is_rebuilt() {
    the_odd_one_stops(|leader, world| {
        world.running().into_iter().find(|id| *id != leader).unwrap()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_odd_leader_stops_and_the_others_go_on() {
    the_odd_one_stops(|leader, _| leader).await;
}

#[tokio::test(start_paused = true)]
async fn with_one_against_one_nobody_stops_and_nothing_is_written() {
    let mut world = World::start(2, busy()).await;
    let leader = world.wait_for_leader().await;
    let other = world.running().into_iter().find(|id| *id != leader).unwrap();
    apply_tenant(&world.ledger(leader), "acme").await;
    world.converge().await;
    world.ledger(other).corrupt_for_test();
    let before = write(&world, leader, "before", 40).await;
    assert!(before < 40, "the dispute is noted");
    for at in [leader, other] {
        let deadline = Instant::now() + Duration::from_secs(2);
        let asked = Proposal { deadline, ..proposal(tenant("refused")) };
        assert_eq!(world.ledger(at).propose(asked).await, Err(Error::Disputed));
        assert!(!world.ledger(at).is_stopped_for_test(), "node {at} is not stopped by guess");
        assert!(world.ledger(at).linearize(soon()).await.is_ok(), "what there is can be read");
    }
    // The operator finds out which is wrong, and has its state rebuilt.
    world.crash(other, Loss::Nothing).await;
    world.machines[&other].home.wreck();
    world.boot(other).await;
    apply_tenant(&world.ledger(leader), "after").await;
    let state = world.converge().await;
    assert!(has_tenant(&state, "acme") && has_tenant(&state, "after"));
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_comes_back_settles_it() {
    let mut world = World::start(3, busy()).await;
    let leader = world.wait_for_leader().await;
    apply_tenant(&world.ledger(leader), "acme").await;
    world.converge().await;
    let away = world.running().into_iter().find(|id| *id != leader).unwrap();
    world.crash(away, Loss::Nothing).await;
    world.ledger(leader).corrupt_for_test();
    let rest = world.running().into_iter().find(|id| *id != leader).unwrap();
    assert!(write(&world, rest, "before", 40).await < 40, "the dispute is noted");
    let stopped = stopping(&world, leader);
    assert!(!stopped.is_finished(), "one against one");
    world.boot(away).await;
    let reason = in_time("the verdict", stopped).await;
    assert!(matches!(reason, StopReason::Diverged { .. }), "{reason:?}");
    apply_tenant(&world.ledger(rest), "after").await;
    world.crash(leader, Loss::Nothing).await;
    world.boot(leader).await;
    let state = world.converge().await;
    assert!(has_tenant(&state, "acme") && has_tenant(&state, "after"));
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_own_snapshot_is_wrong_does_not_start_for_ever() {
    let small = Config { log_keep_entries: 2, ..busy() };
    let mut world = World::start(3, small).await;
    let leader = world.wait_for_leader().await;
    let odd = world.running().into_iter().find(|id| *id != leader).unwrap();
    apply_tenant(&world.ledger(leader), "acme").await;
    world.converge().await;
    world.ledger(odd).corrupt_for_test();
    world.ledger(odd).snapshot().await.unwrap();
    let until = soon();
    while world.ledger(odd).status().purged_index.is_none() {
        assert!(Instant::now() < until, "nothing was purged");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for round in ["first", "second"] {
        let stopped = stopping(&world, odd);
        write(&world, leader, round, 40).await;
        let reason = in_time(round, stopped).await;
        assert!(matches!(reason, StopReason::Diverged { .. }), "{reason:?}");
        world.crash(odd, Loss::Nothing).await;
        if round == "first" {
            world.boot(odd).await;
        }
    }
    for _ in 0..2 {
        let refused = world.try_boot(odd).await.unwrap_err();
        assert!(matches!(refused, StartError::Diverged { .. }), "{refused}");
        assert!(refused.to_string().contains("join it anew"), "{refused}");
    }
    apply_tenant(&world.ledger(leader), "without-it").await;
}
