//! Members come, are promoted, hand over and go: what is refused, what is ended by whoever leads next.

use super::world::{World, apply_tenant, config, has_tenant, peer, proposal, soon, tenant};
use crate::{Config, Error, Ledger, MemberChange, MemberRefusal, Method, Proposal, StopReason};
use model::{Caller, Command, NodeId, RULES_MAX};
use std::time::Duration;
use storage::disk::simulated::Loss;
use tokio::time::Instant;

const LOOK: Duration = Duration::from_millis(20);

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "not within time: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Nodes 1 to `nodes` with rows, all knowing the newest rules, which are in force.
async fn known(nodes: u64, config: Config) -> World {
    let world = World::start(nodes, config).await;
    for id in (1..=nodes).map(NodeId) {
        row(&world, id).await;
    }
    let leader = world.wait_for_leader().await;
    until("the rules level", || world.ledger(leader).read(|it| it.globals.rules) == RULES_MAX)
        .await;
    world
}

async fn row(world: &World, id: NodeId) {
    let (peer_addr, client_addr) = (format!("p{id}:1"), format!("c{id}:1"));
    let command = Command::ApplyNode { id, peer_addr, client_addr, rules_max: RULES_MAX };
    propose(world, Caller::Node(id), command).await.unwrap();
}

async fn propose(world: &World, caller: Caller, command: Command) -> Result<(), String> {
    let leader = world.wait_for_leader().await;
    let asked = Proposal { caller, ..proposal(command) };
    let outcome = world.ledger(leader).propose(asked).await.unwrap();
    outcome.result.map(drop).map_err(|refused| refused.code)
}

async fn change(world: &World, change: MemberChange) -> Result<(), Error> {
    let leader = world.wait_for_leader().await;
    world.ledger(leader).change_members(change, soon()).await
}

/// The three steps by which an operator's removal goes.
async fn remove(world: &World, id: NodeId) -> Result<(), Error> {
    change(world, MemberChange::Demote { id, force: false }).await?;
    propose(world, Caller::System, Command::RemoveNode { id }).await.unwrap();
    change(world, MemberChange::Remove { id }).await
}

fn others(world: &World, leader: NodeId) -> Vec<NodeId> {
    world.running().into_iter().filter(|id| *id != leader).collect()
}

fn refusal(answer: Result<(), Error>) -> MemberRefusal {
    let Err(Error::Members(refusal)) = answer else { panic!("{answer:?}") };
    refusal
}

fn voters(world: &World, at: NodeId) -> Vec<u64> {
    let members = world.ledger(at).members();
    members.iter().filter(|member| member.voter).map(|member| member.id.0).collect()
}

#[tokio::test(start_paused = true)]
async fn a_learner_votes_when_it_is_promoted_and_has_caught_up() {
    let lag = Config { learner_lag_entries: 2, ..config() };
    let mut world = known(1, lag).await;
    let (one, two) = (NodeId(1), NodeId(2));
    let unknown = refusal(change(&world, MemberChange::Promote { id: two }).await);
    assert_eq!(unknown, MemberRefusal::Unknown { node: two });
    world.add_machine(two).await;
    world.boot(two).await;
    let learn = MemberChange::Learn { id: two, peer: peer(two) };
    change(&world, learn.clone()).await.unwrap();
    change(&world, learn).await.unwrap();
    row(&world, two).await;
    world.converge().await;
    assert_eq!(voters(&world, one), [1]);
    let transfer = MemberChange::Transfer { from: one, to: Some(two) };
    assert_eq!(refusal(change(&world, transfer).await), MemberRefusal::Learner { node: two });
    // It takes nothing from the log any more: first it lacks entries, then it is not heard.
    world.net.mute(two);
    for n in 0..5 {
        apply_tenant(&world.ledger(one), &format!("t-{n}")).await;
    }
    let refused = refusal(change(&world, MemberChange::Promote { id: two }).await);
    assert!(matches!(refused, MemberRefusal::Lagging { lag: 5.., max: 2, .. }), "{refused:?}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let refused = refusal(change(&world, MemberChange::Promote { id: two }).await);
    assert_eq!(refused, MemberRefusal::Silent { node: two });
    world.net.heal();
    world.converge().await;
    until("it has caught up", || world.ledger(one).inner_core().lag(two) == Ok(0)).await;
    change(&world, MemberChange::Promote { id: two }).await.unwrap();
    change(&world, MemberChange::Promote { id: two }).await.unwrap();
    assert_eq!(voters(&world, one), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn leadership_goes_to_whom_is_named_and_no_write_is_in_doubt() {
    let world = known(3, config()).await;
    for round in 0..6 {
        let from = world.wait_for_leader().await;
        let to = others(&world, from)[round % 2];
        // Writes without a request id: one whose fate is not known is not tried again.
        let writers: Vec<_> = (1..=3)
            .flat_map(|node| (0..4).map(move |lane| (node, lane)))
            .map(|(node, lane)| {
                let ledger = world.ledger(NodeId(node));
                tokio::spawn(async move {
                    for write in 0..10 {
                        apply_tenant(&ledger, &format!("r{round}-n{node}-l{lane}-w{write}")).await;
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let transfer = MemberChange::Transfer { from, to: Some(to) };
        change(&world, transfer.clone()).await.unwrap();
        change(&world, transfer).await.unwrap();
        for writer in writers {
            writer.await.unwrap();
        }
        assert_eq!(world.wait_for_leader().await, to);
    }
    let state = world.converge().await;
    assert_eq!(state.tenants.len(), 6 * 3 * 4 * 10);
}

#[tokio::test(start_paused = true)]
async fn leadership_does_not_go_to_a_node_that_could_not_lead() {
    let mut world = known(3, config()).await;
    let from = world.wait_for_leader().await;
    let away = others(&world, from)[0];
    world.crash(away, Loss::Unsynced).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let refused = refusal(change(&world, MemberChange::Transfer { from, to: Some(away) }).await);
    assert_eq!(refused, MemberRefusal::Silent { node: away });
    let refused =
        refusal(change(&world, MemberChange::Transfer { from, to: Some(NodeId(9)) }).await);
    assert_eq!(refused, MemberRefusal::Unknown { node: NodeId(9) });
    assert_eq!(world.wait_for_leader().await, from, "it still leads");
    apply_tenant(&world.ledger(from), "still").await;
    // With none named it goes to the one that is there.
    change(&world, MemberChange::Transfer { from, to: None }).await.unwrap();
    let leader = world.wait_for_leader().await;
    assert!(leader != from && leader != away);
    // It is done: asking again must not move it on.
    change(&world, MemberChange::Transfer { from, to: None }).await.unwrap();
    assert_eq!(world.wait_for_leader().await, leader);
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_would_cost_the_majority_is_refused() {
    let mut world = known(3, config()).await;
    let leader = world.wait_for_leader().await;
    let [away, here] = others(&world, leader)[..] else { panic!() };
    world.crash(away, Loss::Unsynced).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let demote = |id| MemberChange::Demote { id, force: false };
    let refused = refusal(change(&world, demote(here)).await);
    let expected = MemberRefusal::NoQuorum { node: here, voters: 2, up: 1, needed: 2 };
    assert_eq!(refused, expected);
    remove(&world, away).await.unwrap();
    assert_eq!(voters(&world, leader).len(), 2);
    // The leader goes too, by handing over; then one is left, and stays.
    remove(&world, leader).await.unwrap();
    assert_eq!(voters(&world, here), [here.0]);
    assert_eq!(world.ledger(leader).stopped().await, StopReason::Removed { node: leader });
    let last = world.ledger(here).change_members(demote(here), soon()).await;
    assert_eq!(refusal(last), MemberRefusal::LastVoter { node: here });
    apply_tenant(&world.ledger(here), "alone").await;
}

#[tokio::test(start_paused = true)]
async fn a_removed_node_stops_and_its_return_is_refused() {
    let mut world = known(3, config()).await;
    let leader = world.wait_for_leader().await;
    let [gone, dead] = others(&world, leader)[..] else { panic!() };
    // One runs when it is removed: the log tells it.
    remove(&world, gone).await.unwrap();
    let begun = Instant::now();
    assert_eq!(world.ledger(gone).stopped().await, StopReason::Removed { node: gone });
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    world.crash(gone, Loss::Nothing).await;
    // It may be started again: its own state says the same.
    world.boot(gone).await;
    assert_eq!(world.ledger(gone).stopped().await, StopReason::Removed { node: gone });
    let add = MemberChange::Add { id: gone, peer: peer(gone) };
    let refused = world.ledger(leader).change_members(add, soon()).await;
    assert_eq!(refusal(refused), MemberRefusal::Removed { node: gone });
    // One is away when it is removed: whoever it calls tells it.
    let four = NodeId(4);
    world.add_machine(four).await;
    world.boot(four).await;
    world.ledger(leader).add_node(four, peer(four), soon()).await.unwrap();
    row(&world, four).await;
    world.crash(dead, Loss::Unsynced).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let steps =
        [MemberChange::Demote { id: dead, force: false }, MemberChange::Remove { id: dead }];
    world.ledger(leader).change_members(steps[0].clone(), soon()).await.unwrap();
    propose_at(&world, leader, Command::RemoveNode { id: dead }).await;
    world.ledger(leader).change_members(steps[1].clone(), soon()).await.unwrap();
    world.net.bar(dead);
    world.boot(dead).await;
    assert_eq!(world.ledger(dead).stopped().await, StopReason::Removed { node: dead });
}

async fn propose_at(world: &World, at: NodeId, command: Command) {
    let outcome = world.ledger(at).propose(proposal(command)).await.unwrap();
    assert!(outcome.result.is_ok(), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_leads_ends_a_removal_that_was_begun() {
    let mut world = known(4, config()).await;
    let leader = world.wait_for_leader().await;
    let gone = others(&world, leader)[0];
    // The state says so, and then whoever asked for it died.
    propose(&world, Caller::System, Command::RemoveNode { id: gone }).await.unwrap();
    world.crash(leader, Loss::Unsynced).await;
    let next = others(&world, gone)[0];
    until("raft let it go", || world.ledger(next).members().iter().all(|member| member.id != gone))
        .await;
    world.boot(leader).await;
    assert_eq!(world.ledger(gone).stopped().await, StopReason::Removed { node: gone });
    world.crash(gone, Loss::Nothing).await;
    let ids = |world: &World| -> (Vec<u64>, Vec<u64>) {
        let rows = world.ledger(next).read(|it| it.nodes.iter().map(|(id, _)| id.0).collect());
        (voters(world, next), rows)
    };
    world.converge().await;
    let (group, rows) = ids(&world);
    assert_eq!(group, rows, "the group and the state agree");
    assert_eq!(group.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_dead_are_let_go_one_by_one_and_never_below_what_is_needed() {
    let policy = Config { dead_node_cleanup_ms: 20_000, min_voters: 3, ..config() };
    let mut world = known(5, policy).await;
    let leader = world.wait_for_leader().await;
    let away: Vec<_> = others(&world, leader).into_iter().take(2).collect();
    world.crash(away[0], Loss::Unsynced).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(voters(&world, leader).len(), 5, "not yet");
    until("the dead one is let go", || voters(&world, leader).len() == 4).await;
    world.crash(away[1], Loss::Unsynced).await;
    until("the next one too", || voters(&world, leader).len() == 3).await;
    let third = others(&world, leader)[0];
    world.crash(third, Loss::Unsynced).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(voters(&world, leader).len(), 3, "no fewer than three");
    apply_tenant(&world.ledger(leader), "alive").await;
    let rows = world.ledger(leader).read(|state| state.nodes.len());
    assert_eq!(rows, 3);
}

#[tokio::test(start_paused = true)]
async fn a_graceful_stop_leaves_no_write_in_doubt() {
    let mut world = known(3, config()).await;
    for round in 0..5 {
        let leader = world.wait_for_leader().await;
        let stopping = world.ledger(leader);
        let writers: Vec<_> = others(&world, leader)
            .into_iter()
            .flat_map(|node| (0..4).map(move |lane| (node, lane)))
            .map(|(node, lane)| {
                let ledger = world.ledger(node);
                tokio::spawn(async move {
                    for write in 0..20 {
                        apply_tenant(&ledger, &format!("r{round}-n{node}-l{lane}-w{write}")).await;
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(7)).await;
        stopping.shutdown().await;
        for writer in writers {
            writer.await.unwrap();
        }
        world.crash(leader, Loss::Nothing).await;
        world.boot(leader).await;
    }
    let state = world.converge().await;
    assert_eq!(state.tenants.len(), 5 * 2 * 4 * 20);
    assert!(has_tenant(&state, "r0-n1-l0-w0") || has_tenant(&state, "r0-n2-l0-w0"));
    assert!(world.net.calls.lock().unwrap()[&Method::TransferLeader] >= 5);
}

#[tokio::test(start_paused = true)]
async fn a_held_queue_lets_nothing_through_and_a_closed_one_refuses_what_waits() {
    let world = known(1, config()).await;
    let ledger = world.ledger(NodeId(1));
    let queue = &ledger.inner_core().queue;
    let ask = |name: &'static str| {
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.propose(proposal(tenant(name))).await })
    };
    assert!(queue.hold(soon()).await);
    let waits = ask("waits");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!ledger.read(|state| has_tenant(state, "waits")));
    queue.release();
    assert!(waits.await.unwrap().is_ok());
    assert!(queue.hold(soon()).await);
    let waits = ask("too-late");
    tokio::time::sleep(Duration::from_millis(500)).await;
    queue.close(soon()).await;
    assert_eq!(waits.await.unwrap(), Err(Error::Stopped), "certainly not done");
    assert_eq!(ask("later").await.unwrap(), Err(Error::Stopped));
    assert!(!ledger.read(|state| has_tenant(state, "too-late")));
}
