//! Watches: resumed from ring and journal, compacted, cut when slow.

use super::world::{World, apply_tenant, config, soon};
use crate::{
    Config, Ledger, MemoryLedger, WatchError, publish::RingLimits, tests::world::TestClock,
};
use model::{NodeId, Revision, State};
use storage::disk::simulated::Loss;

async fn revisions<L: Ledger>(ledger: &L, after: Revision, upto: Revision) -> Vec<u64> {
    let mut watch = ledger.watch(after).unwrap();
    let mut seen = Vec::new();
    while watch.position() < upto {
        seen.push(watch.next().await.unwrap().unwrap().revision.0);
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn a_watch_resumes_from_the_journal_after_a_restart() {
    let mut world = World::start(1, config()).await;
    let one = NodeId(1);
    for n in 0..20 {
        apply_tenant(&world.ledger(one), &format!("t-{n}")).await;
    }
    world.crash(one, Loss::Nothing).await;
    world.boot(one).await;
    world.wait_for_leader().await;
    let ledger = world.ledger(one);
    let last = apply_tenant(&ledger, "last").await.revision;
    for after in [0, 1, 7, 20, last.0 - 1] {
        let expected: Vec<u64> = (after + 1..=last.0).collect();
        assert_eq!(revisions(&ledger, Revision(after), last).await, expected);
    }
    let rows = ledger.journal(Revision(4), 3).unwrap();
    let found: Vec<u64> = rows.iter().map(|row| row.revision.0).collect();
    assert_eq!(found, [5, 6, 7]);
    assert!(rows.iter().all(|row| row.outcome.result.is_ok() && !row.changes.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_left_the_journal_is_compacted() {
    let small = Config { journal_rows_max: 5, watch_events_max: 2, ..config() };
    let world = World::start(1, small).await;
    let ledger = world.ledger(NodeId(1));
    for n in 0..20 {
        apply_tenant(&ledger, &format!("t-{n}")).await;
    }
    let last = ledger.linearize(soon()).await.unwrap();
    let refused = ledger.watch(Revision(3)).err();
    let oldest = Revision(last.0 - 4);
    assert_eq!(refused, Some(WatchError::Compacted { oldest }));
    let expected: Vec<u64> = (oldest.0..=last.0).collect();
    assert_eq!(revisions(&ledger, Revision(oldest.0 - 1), last).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_is_cut_and_resumes_where_it_was() {
    let small = Config { watch_events_max: 4, ..config() };
    let world = World::start(1, small).await;
    let ledger = world.ledger(NodeId(1));
    let start = ledger.linearize(soon()).await.unwrap();
    let mut watch = ledger.watch(start).unwrap();
    let first = apply_tenant(&ledger, "first").await.revision;
    assert_eq!(watch.next().await.unwrap().unwrap().revision, first);
    for n in 0..10 {
        apply_tenant(&ledger, &format!("t-{n}")).await;
    }
    let cut = watch.next().await.unwrap().unwrap_err();
    assert_eq!(cut, WatchError::Lagged { resume_revision: first });
    assert!(watch.next().await.is_none());
    let last = ledger.linearize(soon()).await.unwrap();
    let expected: Vec<u64> = (first.0 + 1..=last.0).collect();
    assert_eq!(revisions(&ledger, first, last).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_memory_ledger_bounds_its_events_by_changes_too() {
    let limits = RingLimits { events_max: 100, changes_max: 3 };
    let ledger = MemoryLedger::with_limits(NodeId(1), TestClock::start(), State::default(), limits);
    for n in 0..10 {
        apply_tenant(&ledger, &format!("t-{n}")).await;
    }
    let refused = ledger.watch(Revision(2)).err();
    assert_eq!(refused, Some(WatchError::Compacted { oldest: Revision(8) }));
    assert_eq!(revisions(&ledger, Revision(7), Revision(10)).await, [8, 9, 10]);
    drop(ledger);
}

#[tokio::test(start_paused = true)]
async fn a_watch_waits_for_what_comes_and_ends_with_the_ledger() {
    let ledger = MemoryLedger::new(NodeId(1), TestClock::start());
    let mut watch = ledger.watch(Revision(0)).unwrap();
    let seen = tokio::spawn(async move {
        let first = watch.next().await.unwrap().unwrap().revision;
        (first, watch.next().await.is_none())
    });
    tokio::task::yield_now().await;
    apply_tenant(&ledger, "acme").await;
    tokio::task::yield_now().await;
    drop(ledger);
    assert_eq!(seen.await.unwrap(), (Revision(1), true));
}
