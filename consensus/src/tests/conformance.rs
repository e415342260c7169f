//! What every ledger promises, asked of each implementation.

use super::world::{World, apply_tenant, config, has_tenant, proposal, soon, tenant, with_id};
use crate::{Ledger, MemoryLedger, tests::world::TestClock};
use model::{NodeId, Revision, Timestamp};

async fn suite<L: Ledger>(ledger: &L) {
    a_write_is_read_and_watched(ledger).await;
    a_refusal_is_an_answer_with_a_revision(ledger).await;
    a_request_id_is_answered_once(ledger).await;
    concurrent_proposals_have_revisions_of_their_own(ledger).await;
}

async fn a_write_is_read_and_watched<L: Ledger>(ledger: &L) {
    let before = ledger.linearize(soon()).await.unwrap();
    let mut watch = ledger.watch(before).unwrap();
    let outcome = apply_tenant(ledger, "acme").await;
    assert!(outcome.revision > before);
    let now = ledger.linearize(soon()).await.unwrap();
    assert!(now >= outcome.revision);
    ledger.wait_for(outcome.revision, soon()).await.unwrap();
    assert!(*ledger.applied().borrow() >= outcome.revision);
    assert!(ledger.read(|state| has_tenant(state, "acme")));
    let mut expected = before.next();
    loop {
        let event = watch.next().await.unwrap().unwrap();
        assert_eq!(event.revision, expected);
        expected = expected.next();
        if event.revision == outcome.revision {
            assert!(!event.changes.is_empty());
            assert!(event.changes.iter().all(|change| change.before.is_none()));
            break;
        }
    }
}

async fn a_refusal_is_an_answer_with_a_revision<L: Ledger>(ledger: &L) {
    let nobody = model::Name::new("nobody").unwrap();
    let delete = model::Command::DeleteTenant { tenant: nobody };
    let outcome = ledger.propose(proposal(delete)).await.unwrap();
    assert!(outcome.result.is_err(), "there is no such tenant");
    assert!(ledger.linearize(soon()).await.unwrap() >= outcome.revision);
}

async fn a_request_id_is_answered_once<L: Ledger>(ledger: &L) {
    let at = Timestamp(1_000_000);
    let first = ledger.propose(with_id(tenant("once"), at, 7)).await.unwrap();
    let again = ledger.propose(with_id(tenant("once"), at, 7)).await.unwrap();
    assert_eq!(first, again);
    let other = ledger.propose(with_id(tenant("once"), at, 8)).await.unwrap();
    assert!(other.revision > first.revision);
}

async fn concurrent_proposals_have_revisions_of_their_own<L: Ledger>(ledger: &L) {
    let names: Vec<String> = (0..50).map(|n| format!("many-{n}")).collect();
    let all = names.iter().map(|name| apply_tenant(ledger, name));
    let outcomes = futures::future::join_all(all).await;
    let mut revisions: Vec<Revision> = outcomes.iter().map(|outcome| outcome.revision).collect();
    revisions.sort();
    revisions.dedup();
    assert_eq!(revisions.len(), 50);
    ledger.linearize(soon()).await.unwrap();
    ledger.read(|state| assert!(names.iter().all(|name| has_tenant(state, name))));
}

#[tokio::test(start_paused = true)]
async fn a_memory_ledger_keeps_the_promises() {
    suite(&MemoryLedger::new(NodeId(1), TestClock::start())).await;
}

#[tokio::test(start_paused = true)]
async fn a_single_node_keeps_the_promises() {
    let world = World::start(1, config()).await;
    suite(&world.ledger(NodeId(1))).await;
}

#[tokio::test(start_paused = true)]
async fn each_of_three_nodes_keeps_the_promises() {
    for id in 1..=3 {
        let world = World::start(3, config()).await;
        suite(&world.ledger(NodeId(id))).await;
        world.converge().await;
    }
}
