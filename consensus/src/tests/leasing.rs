//! What leases of hosts rest on: never more than the leader's last exchange with the node that grants them.

use super::world::{World, config, proposal, soon};
use crate::{Ledger, Proposal};
use model::{Caller, Command, NodeId};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const TTL: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);

/// Three nodes that the state knows, with leases of [`TTL`]; the leader and another.
async fn three() -> (World, NodeId, NodeId) {
    let world = World::start(3, config()).await;
    let leader = world.wait_for_leader().await;
    for id in world.running() {
        let (peer_addr, client_addr) = (format!("p{id}:1"), format!("c{id}:1"));
        let command = Command::ApplyNode { id, peer_addr, client_addr, rules_max: 1 };
        let asked = Proposal { caller: Caller::Node(id), ..proposal(command) };
        assert!(world.ledger(leader).propose(asked).await.unwrap().result.is_ok());
        world.ledger(id).leases().set_ttl(TTL);
    }
    let other = world.running().into_iter().find(|id| *id != leader).unwrap();
    (world, leader, other)
}

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not within time: {what}");
        sleep(LOOK).await;
    }
}

fn rests_on(world: &World, id: NodeId) -> Option<Instant> {
    world.ledger(id).leases().support().map(|support| support.at)
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_nothing_in_cannot_keep_leases_alive_by_asking() {
    let (world, leader, other) = three().await;
    until("leases rest on something", || rests_on(&world, other).is_some()).await;
    // It hears the leader and asks it, and its disk hangs: the leader gets no answers.
    world.net.mute(other);
    let counts = || world.ledger(leader).read(|state| state.counts_on(other));
    let lost_by = || (!counts()).then(|| world.ledger(leader).leases().silence(other)).flatten();
    until("the leader holds it for lost", || lost_by().is_some()).await;
    let begun = Instant::now();
    while begun.elapsed() < TTL {
        sleep(LOOK).await;
        let silence = lost_by().unwrap();
        let at = rests_on(&world, other).unwrap();
        assert!(
            at.elapsed() >= silence,
            "what it grants outlasts the leader's count by {silence:?}"
        );
    }
    assert!(lost_by().unwrap() >= TTL, "its questions count for nothing");
    // Reads go on.
    assert!(world.ledger(other).linearize(soon()).await.is_ok());
    world.net.heal();
    until("it is back", counts).await;
    until("it may grant again", || rests_on(&world, other).unwrap().elapsed() < TTL / 4).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_nobody_can_call_cannot_keep_leases_alive_by_asking() {
    let (world, leader, other) = three().await;
    until("leases rest on something", || rests_on(&world, other).is_some()).await;
    world.net.deafen(other);
    let counts = || world.ledger(leader).read(|state| state.counts_on(other));
    until("the leader holds it for lost", || !counts()).await;
    for _ in 0..100 {
        sleep(LOOK).await;
        let silence = world.ledger(leader).leases().silence(other).unwrap();
        let at = rests_on(&world, other).unwrap();
        assert!(at.elapsed() >= silence, "{:?} {silence:?}", at.elapsed());
    }
    assert!(rests_on(&world, other).unwrap().elapsed() > Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn nodes_that_differ_grant_the_shorter_ttl_and_wait_for_the_longer() {
    let (world, leader, other) = three().await;
    let leases = |id| world.ledger(id).leases().clone();
    leases(other).set_ttl(TTL * 3);
    until("the leader knows", || leases(leader).longest_ttl() == TTL * 3).await;
    assert_eq!(leases(other).support().map(|support| support.ttl), Some(TTL));
    leases(other).set_ttl(TTL / 2);
    assert_eq!(leases(other).support().map(|support| support.ttl), Some(TTL / 2));
}
