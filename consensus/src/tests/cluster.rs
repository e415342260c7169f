//! Three nodes: forwarding, leader loss, nodes that were away, membership, duties.

use super::world::{
    World, apply_tenant, config, has_tenant, peer, proposal, soon, tenant, with_id,
};
use crate::{Config, Error, Ledger, Method, Proposal};
use model::{Caller, Command, NodeId, Timestamp};
use std::{sync::atomic::Ordering, time::Duration};
use storage::disk::simulated::Loss;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_single_node_starts_again_where_it_was() {
    let mut world = World::start(1, config()).await;
    let one = NodeId(1);
    let outcome = apply_tenant(&world.ledger(one), "acme").await;
    world.crash(one, Loss::Unsynced).await;
    world.boot(one).await;
    world.wait_for_leader().await;
    let ledger = world.ledger(one);
    assert!(ledger.linearize(soon()).await.unwrap() >= outcome.revision);
    assert!(ledger.read(|state| has_tenant(state, "acme")));
    assert!(ledger.is_initialized().await);
    ledger.bootstrap(peer(one)).await.unwrap();
    apply_tenant(&ledger, "beta").await;
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_the_leader_loses_no_acknowledged_write() {
    let mut world = World::start(3, config()).await;
    let leader = world.wait_for_leader().await;
    let follower = world.running().into_iter().find(|id| *id != leader).unwrap();
    apply_tenant(&world.ledger(follower), "before").await;
    world.crash(leader, Loss::Unsynced).await;
    let lost_at = Instant::now();
    apply_tenant(&world.ledger(follower), "after").await;
    assert!(lost_at.elapsed() < Duration::from_secs(2), "{:?}", lost_at.elapsed());
    let state = world.converge().await;
    assert!(has_tenant(&state, "before") && has_tenant(&state, "after"));
    world.boot(leader).await;
    let state = world.converge().await;
    assert!(has_tenant(&state, "before") && has_tenant(&state, "after"));
}

#[tokio::test(start_paused = true)]
async fn every_node_sees_its_own_write_and_that_of_others() {
    let world = World::start(3, config()).await;
    for writer in 1..=3 {
        let name = format!("by-{writer}");
        let outcome = apply_tenant(&world.ledger(NodeId(writer)), &name).await;
        for reader in 1..=3 {
            let ledger = world.ledger(NodeId(reader));
            assert!(ledger.linearize(soon()).await.unwrap() >= outcome.revision);
            assert!(ledger.read(|state| has_tenant(state, &name)), "{writer} by {reader}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_cut_off_serves_no_linearizable_read_and_no_write() {
    let world = World::start(3, config()).await;
    let leader = world.wait_for_leader().await;
    world.net.isolate(leader);
    let cut_off = world.ledger(leader);
    let quorum_at = cut_off.leadership().borrow().quorum_at.unwrap();
    let short = || Instant::now() + Duration::from_millis(800);
    assert!(matches!(cut_off.linearize(short()).await, Err(Error::NotLeader { .. })));
    let write = Proposal { deadline: short(), ..proposal(tenant("lost")) };
    let failed = cut_off.propose(write).await.unwrap_err();
    assert!(matches!(failed, Error::NotLeader { .. } | Error::Unknown), "{failed:?}");
    assert!(
        cut_off.leadership().borrow().quorum_at.unwrap() <= quorum_at + Duration::from_millis(100)
    );
    let other = world.wait_for_leader().await;
    assert_ne!(other, leader);
    apply_tenant(&world.ledger(other), "kept").await;
    world.net.heal();
    let state = world.converge().await;
    assert!(has_tenant(&state, "kept"));
    assert!(!has_tenant(&state, "lost"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_away_catches_up_by_log() {
    let mut world = World::start(3, config()).await;
    let away = NodeId(3);
    world.crash(away, Loss::Unsynced).await;
    let leader = world.wait_for_leader().await;
    for n in 0..20 {
        apply_tenant(&world.ledger(leader), &format!("t-{n}")).await;
    }
    world.boot(away).await;
    assert!(has_tenant(&world.converge().await, "t-19"));
    assert_eq!(world.ledger(away).status().snapshot_index, None);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_away_too_long_catches_up_by_snapshot() {
    let small = Config { log_keep_entries: 2, log_hold_bytes: 0, ..config() };
    let mut world = World::start(3, small).await;
    let away = NodeId(3);
    world.crash(away, Loss::Unsynced).await;
    let leader = world.wait_for_leader().await;
    for n in 0..30 {
        apply_tenant(&world.ledger(leader), &format!("t-{n}")).await;
    }
    for id in world.running() {
        world.ledger(id).snapshot().await.unwrap();
        let until = soon();
        while world.ledger(id).status().purged_index.is_none() {
            assert!(Instant::now() < until, "nothing was purged");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    world.boot(away).await;
    assert!(has_tenant(&world.converge().await, "t-29"));
    assert!(world.net.calls.lock().unwrap()[&Method::Snapshot] > 0);
    let until = soon();
    while world.ledger(away).status().snapshot_index.is_none() {
        assert!(Instant::now() < until, "no snapshot is kept");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // What it installed survives it.
    world.crash(away, Loss::Unsynced).await;
    world.boot(away).await;
    assert!(has_tenant(&world.converge().await, "t-29"));
}

#[tokio::test(start_paused = true)]
async fn a_request_id_is_answered_once_although_the_leader_changes() {
    let mut world = World::start(3, config()).await;
    let leader = world.wait_for_leader().await;
    let follower = world.running().into_iter().find(|id| *id != leader).unwrap();
    let ledger = world.ledger(follower);
    let at = Timestamp(1_000_000);
    // The leader carries it out, but its answers do not arrive; then it dies.
    world.net.lose_answers.store(true, Ordering::SeqCst);
    let asked = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.propose(with_id(tenant("once"), at, 42)).await }
    });
    let until = soon();
    while !world.ledger(follower).read(|state| has_tenant(state, "once")) {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let first = ledger.read(|state| state.tenants.iter().next().unwrap().1.meta.revision);
    world.crash(leader, Loss::Unsynced).await;
    world.net.lose_answers.store(false, Ordering::SeqCst);
    let outcome = asked.await.unwrap().unwrap();
    assert_eq!(outcome.revision, first, "the repeat got another answer");
    let again = ledger.propose(with_id(tenant("once"), at, 42)).await.unwrap();
    assert_eq!(again, outcome);
}

#[tokio::test(start_paused = true)]
async fn an_ambiguous_try_without_a_request_id_is_not_repeated() {
    let world = World::start(3, config()).await;
    let leader = world.wait_for_leader().await;
    let follower = world.running().into_iter().find(|id| *id != leader).unwrap();
    world.net.lose_answers.store(true, Ordering::SeqCst);
    let before = world.net.calls.lock().unwrap().get(&Method::Propose).copied();
    let outcome = world.ledger(follower).propose(proposal(tenant("maybe"))).await;
    assert_eq!(outcome, Err(Error::Unknown));
    let after = world.net.calls.lock().unwrap().get(&Method::Propose).copied();
    assert_eq!(after.unwrap_or(0), before.unwrap_or(0) + 1);
}

#[tokio::test(start_paused = true)]
async fn a_graceful_stop_hands_leadership_over_at_once() {
    let world = World::start(3, config()).await;
    let leader = world.wait_for_leader().await;
    let stopping = world.ledger(leader);
    let began = Instant::now();
    stopping.shutdown().await;
    assert_eq!(stopping.stopped().await, crate::StopReason::Shutdown);
    let follower = world.running().into_iter().find(|id| *id != leader).unwrap();
    apply_tenant(&world.ledger(follower), "after").await;
    assert!(began.elapsed() < Duration::from_millis(150), "{:?}", began.elapsed());
    assert_eq!(stopping.propose(proposal(tenant("late"))).await, Err(Error::Stopped));
}

#[tokio::test(start_paused = true)]
async fn members_come_and_go_through_any_node() {
    let mut world = World::start(3, config()).await;
    let leader = world.wait_for_leader().await;
    let follower = world.running().into_iter().find(|id| *id != leader).unwrap();
    let four = NodeId(4);
    world.add_machine(four).await;
    world.boot(four).await;
    world.ledger(follower).add_node(four, peer(four), soon()).await.unwrap();
    world.ledger(follower).add_node(four, peer(four), soon()).await.unwrap();
    apply_tenant(&world.ledger(four), "by-four").await;
    world.converge().await;
    let voters = |world: &World, at: NodeId| {
        let members = world.ledger(at).members();
        members.iter().filter(|member| member.voter).count()
    };
    assert_eq!(voters(&world, four), 4);
    world.ledger(four).remove_node(follower, soon()).await.unwrap();
    let leader = world.wait_for_leader().await;
    assert_eq!(voters(&world, leader), 3);
    apply_tenant(&world.ledger(four), "without").await;
}

#[tokio::test(start_paused = true)]
async fn the_leader_notes_which_nodes_are_out_of_contact() {
    let mut world = World::start(3, config()).await;
    let leader = world.wait_for_leader().await;
    for id in world.running() {
        let (peer_addr, client_addr) = (format!("p{id}:1"), format!("c{id}:1"));
        let command = Command::ApplyNode { id, peer_addr, client_addr, rules_max: 1 };
        let caller = Caller::Node(id);
        let outcome = Proposal { caller, ..proposal(command) };
        let outcome = world.ledger(leader).propose(outcome).await.unwrap();
        assert!(outcome.result.is_ok(), "{outcome:?}");
    }
    let away = world.running().into_iter().find(|id| *id != leader).unwrap();
    world.crash(away, Loss::Nothing).await;
    let alive = |world: &World| {
        world.ledger(leader).read(|state| state.nodes.get(&away).map(|node| node.alive))
    };
    let until = Instant::now() + Duration::from_secs(20);
    while alive(&world) != Some(false) {
        assert!(Instant::now() < until, "the loss was not noted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.boot(away).await;
    while alive(&world) != Some(true) {
        assert!(Instant::now() < until, "the return was not noted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_too_large_for_the_log_is_refused_in_its_own_words_at_every_node() {
    let max = 4 << 10;
    let world = World::start(3, Config { command_bytes_max: max, ..config() }).await;
    for id in (1..=3).map(NodeId) {
        let Command::ApplyTenant { mut draft, display_name } = tenant("large") else {
            unreachable!("a tenant is applied")
        };
        draft.annotations.insert("note".to_owned(), "x".repeat(max));
        let large = Command::ApplyTenant { draft, display_name };
        let began = Instant::now();
        let refused = world.ledger(id).propose(proposal(large)).await.unwrap_err();
        let Error::TooLarge { bytes, max: told } = refused else { panic!("{id}: {refused:?}") };
        assert!(bytes > told && told == max as u64, "{bytes} of {told}");
        assert!(refused.certainly_not_done());
        assert!(began.elapsed() < Duration::from_secs(1), "it is not tried again");
        apply_tenant(&world.ledger(id), &format!("after-{id}")).await;
    }
    assert!(!has_tenant(&world.converge().await, "large"));
}
