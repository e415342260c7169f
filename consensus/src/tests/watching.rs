//! Watches: resumed from ring and journal, compacted, cut when slow.

use super::world::{World, apply_tenant, config, proposal, soon, tenant};
use crate::{
    Config, Ledger, MemoryLedger, WatchError, WatchStream, publish::RingLimits,
    tests::world::TestClock,
};
use futures::FutureExt;
use model::{Command, Key, NodeId, Revision, Row, State};
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
async fn a_watch_has_the_rows_before_and_after_whether_live_or_from_the_journal() {
    let mut world = World::start(1, config()).await;
    let one = NodeId(1);
    let ledger = world.ledger(one);
    let before = ledger.linearize(soon()).await.unwrap();
    let live = ledger.watch(before).unwrap();
    let made = apply_tenant(&ledger, "acme").await.revision;
    let changed = rename(&ledger, "acme").await;
    let kept = |row: &Option<Row>| row.as_ref().map(|row| format!("{row:?}"));
    let seen = |mut watch: WatchStream| async move {
        let mut seen = Vec::new();
        while watch.position() < changed {
            let event = watch.next().await.unwrap().unwrap();
            for change in event.changes.iter().filter(|it| matches!(it.key, Key::Tenant(_))) {
                seen.push((event.revision, kept(&change.before), kept(&change.after)));
            }
        }
        seen
    };
    let live = seen(live).await;
    assert_eq!(live.len(), 2);
    assert_eq!((live[0].0, live[0].1.as_ref()), (made, None), "it is new");
    assert_eq!(live[1].1, live[0].2, "what it was is what it became before");
    assert_ne!(live[1].1, live[1].2);
    world.crash(one, Loss::Nothing).await;
    world.boot(one).await;
    world.wait_for_leader().await;
    assert_eq!(seen(world.ledger(one).watch(before).unwrap()).await, live);
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_a_revision_yet_to_come_shows_nothing_older() {
    let world = World::start(1, config()).await;
    let ledger = world.ledger(NodeId(1));
    let now = apply_tenant(&ledger, "a").await.revision;
    // As after a change of nodes: this one is behind the one that was watched before.
    let ahead = Revision(now.0 + 3);
    let mut watch = ledger.watch(ahead).unwrap();
    for n in 0..4 {
        assert!(watch.next().now_or_never().is_none(), "nothing yet");
        apply_tenant(&ledger, &format!("t-{n}")).await;
    }
    assert_eq!(watch.next().await.unwrap().unwrap().revision, ahead.next());
}

/// Changes the text of a tenant.
async fn rename<L: Ledger>(ledger: &L, name: &str) -> Revision {
    let Command::ApplyTenant { draft, .. } = tenant(name) else {
        unreachable!("a tenant is applied")
    };
    let command = Command::ApplyTenant { draft, display_name: "another".to_owned() };
    ledger.propose(proposal(command)).await.unwrap().revision
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
