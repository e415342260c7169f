//! Nodes of two builds: the rules level rises when all know it, and who does not know it is refused.

use super::world::{World, config, proposal, soon, tenant};
use crate::{Config, Ledger, Proposal, StartError, StopReason};
use model::{Caller, Command, NodeId};
use std::time::Duration;
use storage::disk::simulated::Loss;
use tokio::time::Instant;

/// What the older build knows.
const OLD: u32 = model::RULES_MAX;
/// What the newer one does.
const NEW: u32 = OLD + 1;

async fn announce(world: &World, id: NodeId, rules_max: u32) {
    let (peer_addr, client_addr) = (format!("p{id}:1"), format!("c{id}:1"));
    let command = Command::ApplyNode { id, peer_addr, client_addr, rules_max };
    let asked = Proposal { caller: Caller::Node(id), ..proposal(command) };
    let outcome = world.ledger(id).propose(asked).await.unwrap();
    assert!(outcome.result.is_ok(), "{outcome:?}");
}

fn level(world: &World, id: NodeId) -> u32 {
    world.ledger(id).read(|state| state.globals.rules)
}

/// Whether a name is taken that only the newer level takes.
async fn takes_long_names(world: &World, at: NodeId, name: &str) -> bool {
    let Command::ApplyTenant { draft, .. } = tenant(name) else { unreachable!("a tenant") };
    let display_name = "x".repeat(50);
    let asked = proposal(Command::ApplyTenant { draft, display_name });
    world.ledger(at).propose(asked).await.unwrap().result.is_ok()
}

async fn until_level(world: &World, wanted: u32) {
    let until = soon();
    while world.running().iter().any(|id| level(world, *id) != wanted) {
        assert!(Instant::now() < until, "level {wanted} is not in force in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Three nodes of the older build, which have said so.
async fn three(config: Config) -> World {
    let world = World::start(3, Config { rules_max: OLD, ..config }).await;
    for id in world.running() {
        announce(&world, id, OLD).await;
    }
    world
}

async fn upgrade(world: &mut World, id: NodeId) {
    world.config.rules_max = NEW;
    world.crash(id, Loss::Nothing).await;
    world.boot(id).await;
    world.wait_for_leader().await;
    announce(world, id, NEW).await;
}

#[tokio::test(start_paused = true)]
async fn the_level_rises_with_the_last_node_and_an_older_build_is_refused() {
    let mut world = three(config()).await;
    let ids = world.running();
    until_level(&world, OLD).await;
    for (number, id) in ids.iter().enumerate() {
        world.converge().await;
        assert_eq!(level(&world, *id), OLD);
        assert!(!takes_long_names(&world, *id, &format!("before-{number}")).await);
        upgrade(&mut world, *id).await;
        // The duty of the leader has its turn.
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    until_level(&world, NEW).await;
    for (number, id) in ids.iter().enumerate() {
        assert!(takes_long_names(&world, *id, &format!("after-{number}")).await);
    }
    let before = world.converge().await;
    // The older build on one folder: with the state as it was, and with one that it has to rebuild.
    let three = NodeId(3);
    world.config.rules_max = OLD;
    world.crash(three, Loss::Nothing).await;
    let refused = world.try_boot(three).await.unwrap_err();
    assert!(matches!(refused, StartError::Rules(_)), "{refused}");
    assert!(refused.to_string().contains(&format!("rules level {NEW} is in force")), "{refused}");
    world.machines[&three].home.wreck();
    let refused = world.try_boot(three).await.unwrap_err();
    assert!(matches!(refused, StartError::Rules(_)), "{refused}");
    // The newer one goes on there, and all of the log replays as it once did.
    world.config.rules_max = NEW;
    world.boot(three).await;
    let with_three = world.converge().await;
    assert_eq!(with_three.rows_hash(), before.rows_hash());
    for id in &ids {
        world.crash(*id, Loss::Nothing).await;
        world.machines[id].home.wreck();
    }
    for id in &ids {
        world.boot(*id).await;
    }
    assert_eq!(world.converge().await.rows_hash(), before.rows_hash());
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_brings_its_level_and_is_refused_by_an_older_build() {
    let mut world = three(Config { log_keep_entries: 2, ..config() }).await;
    let (ids, three) = (world.running(), NodeId(3));
    for id in &ids {
        upgrade(&mut world, *id).await;
    }
    until_level(&world, NEW).await;
    let four = NodeId(4);
    for id in &ids {
        takes_long_names(&world, *id, &format!("by-{id}")).await;
        world.ledger(*id).snapshot().await.unwrap();
        let until = soon();
        while world.ledger(*id).status().purged_index.is_none() {
            assert!(Instant::now() < until, "nothing was purged");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    world.config.rules_max = OLD;
    world.add_machine(four).await;
    world.boot(four).await;
    let stopped = world.ledger(four);
    let stopped = tokio::spawn(async move { stopped.stopped().await });
    let deadline = Instant::now() + Duration::from_secs(3);
    // Whether it is taken in before it has all of the snapshot or not: it ends.
    drop(world.ledger(three).add_node(four, super::world::peer(four), deadline).await);
    let reason = tokio::time::timeout_at(soon(), stopped).await.unwrap().unwrap();
    assert_eq!(reason, StopReason::RulesUnknown { level: NEW, known: OLD });
}

#[tokio::test(start_paused = true)]
async fn a_pinned_level_rises_when_the_operator_says_so() {
    let mut world = three(Config { raise_rules: false, ..config() }).await;
    let one = NodeId(1);
    let raise = |world: &World| {
        let operator = model::Name::new("admin").unwrap();
        let command = Command::RaiseRules { level: NEW };
        let asked = Proposal { caller: Caller::Operator(operator), ..proposal(command) };
        let ledger = world.ledger(one);
        async move { ledger.propose(asked).await.unwrap().result.is_ok() }
    };
    for id in world.running() {
        assert!(!raise(&world).await, "not everybody knows it");
        upgrade(&mut world, id).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(level(&world, one), 1, "nobody raised it");
    assert!(raise(&world).await);
    until_level(&world, NEW).await;
    assert!(world.converge().await.tenants.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_member_that_has_not_said_what_it_knows_keeps_the_level() {
    let world = World::start(3, Config { rules_max: 2, ..config() }).await;
    for id in [NodeId(1), NodeId(2)] {
        announce(&world, id, 2).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.converge().await.globals.rules, 1);
    announce(&world, NodeId(3), 2).await;
    until_level(&world, 2).await;
}
