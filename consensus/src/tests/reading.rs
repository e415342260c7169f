//! Linearizable reads share rounds, and what is asked through a follower ends soon after its leader.

use super::world::{World, apply_tenant, config, has_tenant, proposal, soon, tenant, with_id};
use crate::{Error, Ledger, Method, Proposal, RaftLedger};
use futures::future::join_all;
use model::{NodeId, Timestamp};
use std::time::Duration;
use tokio::time::Instant;

/// Longest a request takes that was under way when the leader died.
const SOON: Duration = Duration::from_secs(2);

fn calls(world: &World, method: Method) -> u64 {
    world.net.calls.lock().unwrap().get(&method).copied().unwrap_or_default()
}

async fn leader_and_follower(world: &World) -> (NodeId, NodeId) {
    let leader = world.wait_for_leader().await;
    let follower = world.running().into_iter().find(|id| *id != leader).unwrap();
    (leader, follower)
}

/// A thousand reads at once, all of which see a write answered before.
async fn many_reads(ledger: &RaftLedger, name: &str) {
    let reads = (0..1_000).map(|_| async {
        ledger.linearize(soon()).await.unwrap();
        assert!(ledger.read(|state| has_tenant(state, name)));
    });
    join_all(reads).await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_reads_at_once_cost_a_few_rounds() {
    let world = World::start(3, config()).await;
    let (leader, follower) = leader_and_follower(&world).await;
    apply_tenant(&world.ledger(leader), "acme").await;
    let before = calls(&world, Method::Linearize);
    many_reads(&world.ledger(follower), "acme").await;
    let asked = calls(&world, Method::Linearize) - before;
    assert!((1..=5).contains(&asked), "a follower asked the leader {asked} times");
    let before = calls(&world, Method::Append);
    many_reads(&world.ledger(leader), "acme").await;
    let asked = calls(&world, Method::Append) - before;
    assert!((1..=20).contains(&asked), "the leader asked its followers {asked} times");
}

#[tokio::test(start_paused = true)]
async fn a_write_through_a_follower_goes_on_with_the_next_leader() {
    let world = World::start(3, config()).await;
    let (leader, follower) = leader_and_follower(&world).await;
    let ledger = world.ledger(follower);
    // The leader goes silent: no connection breaks, nothing is answered.
    world.net.isolate(leader);
    let began = Instant::now();
    let outcome = ledger.propose(with_id(tenant("acme"), Timestamp(1_000_000), 7)).await.unwrap();
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let again = ledger.propose(with_id(tenant("acme"), Timestamp(1_000_000), 7)).await.unwrap();
    assert_eq!(again, outcome, "it was done once");
}

#[tokio::test(start_paused = true)]
async fn a_write_without_a_request_id_through_a_follower_is_unknown_as_soon_as_another_leads() {
    let world = World::start(3, config()).await;
    let (leader, follower) = leader_and_follower(&world).await;
    world.net.isolate(leader);
    let began = Instant::now();
    let failed = world.ledger(follower).propose(proposal(tenant("acme"))).await;
    assert_eq!(failed, Err(Error::Unknown));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_read_through_a_follower_goes_on_with_the_next_leader() {
    let world = World::start(3, config()).await;
    let (leader, follower) = leader_and_follower(&world).await;
    let written = apply_tenant(&world.ledger(leader), "acme").await.revision;
    world.net.isolate(leader);
    let began = Instant::now();
    assert!(world.ledger(follower).linearize(soon()).await.unwrap() >= written);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_a_majority_no_node_blames_anything_else() {
    let world = World::start(3, config()).await;
    let leader = world.wait_for_leader().await;
    for id in world.running() {
        world.net.isolate(id);
    }
    tokio::time::sleep(SOON).await;
    // More than a line takes, and everything that may be under way.
    for id in world.running() {
        let ledger = world.ledger(id);
        let writes = (0..50).map(|n| {
            let write = proposal(tenant(&format!("t-{n}")));
            ledger.propose(Proposal { deadline: Instant::now() + SOON, ..write })
        });
        for failed in join_all(writes).await {
            assert_eq!(failed, Err(Error::NotLeader { hint: None }), "{id}, {leader} led");
        }
        let read = ledger.linearize(Instant::now() + SOON).await;
        assert_eq!(read, Err(Error::NotLeader { hint: None }), "{id}, {leader} led");
    }
}
