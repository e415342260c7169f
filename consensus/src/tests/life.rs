//! A long life: checkpoints while writes go on, bounded files, a bounded replay, a new node under load.

use super::world::{DIR, World, config, has_tenant, log_config, peer, proposal, soon, tenant};
use crate::{
    Config, Ledger, Method, RaftLedger,
    keep::{JournalLimits, Keep},
    snapshot::{self, SnapshotReader, SnapshotWriter, Stored, TURN_ROWS},
};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use model::{Command, NodeId, Revision, Stamp, State, Timestamp};
use std::{
    collections::{BTreeSet, VecDeque},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use storage::{
    Disk, DiskFile, Fault,
    disk::simulated::{Loss, SimulatedDisk},
    kv::{
        KvHome,
        simulated::{SimulatedHome, SimulatedKvConfig},
    },
    snapshot::SnapshotName,
};
use tokio::time::Instant;

const ONE: NodeId = NodeId(1);

/// A tenant that takes about so many bytes.
fn large_tenant(name: &str, bytes: usize) -> Command {
    let Command::ApplyTenant { mut draft, display_name } = tenant(name) else {
        unreachable!("a tenant is applied")
    };
    draft.annotations.insert("note".to_owned(), "x".repeat(bytes));
    Command::ApplyTenant { draft, display_name }
}

async fn write(ledger: &RaftLedger, name: &str, bytes: usize) {
    let outcome = ledger.propose(proposal(large_tenant(name, bytes))).await.unwrap();
    assert!(outcome.result.is_ok(), "{outcome:?}");
}

async fn bytes_in(disk: &SimulatedDisk, folder: &str) -> u64 {
    let dir = Path::new(DIR).join(folder);
    let mut bytes = 0;
    for name in disk.list(&dir).await.unwrap() {
        // A segment may go meanwhile.
        if let Ok(file) = disk.open(&dir.join(name)).await {
            bytes += file.len().await.unwrap();
        }
    }
    bytes
}

/// A checkpoint every dozen entries of a kilobyte.
fn frequent() -> Config {
    Config {
        snapshot_every_bytes: 16 << 10,
        snapshot_every_entries: 50,
        log_keep_bytes: 8 << 10,
        journal_bytes_max: 64 << 10,
        duty_ms: 20,
        ..config()
    }
}

#[tokio::test(start_paused = true)]
async fn files_stay_bounded_however_many_entries_come_and_a_restart_applies_few_again() {
    const ENTRIES: u64 = 1_000;
    let mut world = World::start(1, frequent()).await;
    let (ledger, disk) = (world.ledger(ONE), world.machines[&ONE].disk.clone());
    let (mut log_most, mut snapshots_most) = (0, 0);
    let mut checkpoints = BTreeSet::new();
    for n in 0..ENTRIES {
        write(&ledger, &format!("t-{}", n % 10), 1 << 10).await;
        log_most = log_most.max(bytes_in(&disk, "log").await);
        snapshots_most = snapshots_most.max(bytes_in(&disk, "snapshots").await);
        checkpoints.extend(ledger.status().snapshot_index);
    }
    let bound = frequent().log_bytes_bound(&log_config());
    assert!(log_most <= bound, "the log held {log_most} bytes, the bound is {bound}");
    assert!(bound < ENTRIES << 10, "the test writes more than the bound: {bound}");
    assert!(checkpoints.len() > 20, "{} checkpoints", checkpoints.len());
    // The last one and the next, of a state of ten tenants.
    assert!(snapshots_most < 40 << 10, "{snapshots_most} bytes of snapshots");
    drop(ledger);
    world.crash(ONE, Loss::Unsynced).await;
    let machine = &world.machines[&ONE];
    let kv = machine.home.open().unwrap();
    let report =
        crate::inspect(&machine.disk, Path::new(DIR), Some((&kv, Path::new("kv")))).await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let (log, store) = (report.log.unwrap(), report.store.unwrap());
    assert!(store.journal_bytes <= frequent().journal_bytes_max, "{}", store.journal_bytes);
    let (oldest, newest) = store.journal.unwrap();
    assert!(newest - oldest < 64, "revisions {oldest} to {newest} are in the journal");
    let again = log.next - 1 - store.applied.unwrap();
    let most = (frequent().snapshot_every_bytes >> 10) + 40;
    assert!(again <= most, "{again} entries are applied again, {most} at most");
    drop(kv);
    world.boot(ONE).await;
    assert_eq!(world.ledger(ONE).status().restored_index, store.applied);
    world.converge().await;
}

#[tokio::test(start_paused = true)]
async fn writes_are_acknowledged_while_a_checkpoint_is_made() {
    let mut world = World::start(1, config()).await;
    world.crash(ONE, Loss::Nothing).await;
    // Its store takes long to sync, as a large one does.
    let slow = SimulatedKvConfig { sync_us: (100_000, 100_000), ..SimulatedKvConfig::default() };
    world.machines.get_mut(&ONE).unwrap().home = SimulatedHome::new(slow);
    world.boot(ONE).await;
    world.wait_for_leader().await;
    let ledger = world.ledger(ONE);
    for n in 0..5 {
        let before = ledger.status().snapshot_index;
        write(&ledger, &format!("t-{n}"), 1 << 10).await;
        ledger.snapshot().await.unwrap();
        let until = soon();
        while ledger.since_checkpoint_for_test() > 0 {
            assert!(Instant::now() < until, "no checkpoint is begun");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut acknowledged = 0;
        while ledger.status().snapshot_index == before {
            write(&ledger, "other", acknowledged).await;
            acknowledged += 1;
        }
        assert!(acknowledged > 20, "{acknowledged} writes between its beginning and its end");
    }
}

async fn being_made(disk: &SimulatedDisk) -> bool {
    let names = disk.list(&Path::new(DIR).join("snapshots")).await.unwrap();
    names.iter().any(|name| name.ends_with(".new"))
}

/// A snapshot in memory: nothing about it ever waits.
#[derive(Clone, Default)]
struct InMemory(Arc<Mutex<VecDeque<Bytes>>>);

impl SnapshotWriter for InMemory {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), Fault>> {
        self.0.lock().unwrap().push_back(bytes);
        std::future::ready(Ok(())).boxed()
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<Stored, Fault>> {
        let name = SnapshotName { order: 0, id: "x".to_owned() };
        std::future::ready(Ok(Stored { name, meta: Default::default() })).boxed()
    }

    fn discard(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>> {
        std::future::ready(Ok(())).boxed()
    }
}

impl SnapshotReader for InMemory {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, Fault>> {
        std::future::ready(Ok(self.0.lock().unwrap().pop_front())).boxed()
    }
}

/// How often `work` gave way to others before it ended.
async fn turns<T>(work: impl Future<Output = T>) -> (usize, T) {
    let mut work = std::pin::pin!(work);
    let mut turns = 0;
    loop {
        match futures::poll!(&mut work) {
            std::task::Poll::Ready(result) => return (turns, result),
            std::task::Poll::Pending => turns += 1,
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn whatever_walks_the_state_gives_way_every_few_rows() {
    const ROWS: usize = 1_000;
    let mut state = State::default();
    let caller = model::Caller::System;
    let stamp = Stamp { time: Timestamp(1), rules: 1, caller, request_id: None };
    for n in 0..ROWS {
        state.apply(&stamp, &tenant(&format!("t-{n}")));
    }
    let position = crate::keep::Position {
        globals: state.globals.clone(),
        hash: state.hash(),
        ..Default::default()
    };
    let least = ROWS / TURN_ROWS;
    let file = InMemory::default();
    let (written, stored) = turns(snapshot::write(Box::new(file.clone()), &position, &state)).await;
    stored.unwrap();
    let (read, found) = turns(snapshot::read(Box::new(file))).await;
    assert_eq!(found.unwrap().1.hash(), state.hash());
    let kv = SimulatedHome::new(Default::default()).open().unwrap();
    let keep = Keep::open(Arc::new(kv), JournalLimits::none()).unwrap();
    let (replaced, done) = turns(keep.replace(&position, &state)).await;
    done.unwrap();
    let (cleared, done) = turns(keep.clear()).await;
    done.unwrap();
    for (what, turns) in
        [("written", written), ("read", read), ("replaced", replaced), ("cleared", cleared)]
    {
        assert!(turns >= least, "{what} with {turns} turns for others, not {least}");
    }
}

/// A cluster with a few megabytes of state whose log begins behind it, under load until it is told
/// to stop. Answers how many writes were acknowledged.
fn load(ledger: RaftLedger, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    tokio::spawn(async move {
        let mut acknowledged = 0;
        while !stop.load(Ordering::SeqCst) {
            write(&ledger, &format!("load-{}", acknowledged % 7), 10).await;
            acknowledged += 1;
        }
        acknowledged
    })
}

/// Three nodes with a snapshot of 64 tenants, and little of a log.
async fn grown(tenant_bytes: usize) -> (World, NodeId) {
    let small = Config {
        // Several checkpoints are made in the time that a transfer takes.
        log_keep_entries: 2,
        snapshot_every_entries: 5,
        duty_ms: 5,
        snapshot_idle_ms: 5_000,
        snapshot_chunk_ms: 500,
        ..config()
    };
    let world = World::start(3, small).await;
    let leader = world.wait_for_leader().await;
    let ledger = world.ledger(leader);
    for n in 0..64 {
        write(&ledger, &format!("t-{n}"), tenant_bytes).await;
    }
    ledger.snapshot().await.unwrap();
    let until = soon();
    while ledger.status().purged_index.is_none_or(|index| index < 50) {
        assert!(Instant::now() < until, "{:?}", ledger.status());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (world, leader)
}

fn chunks_sent(world: &World) -> u64 {
    world.net.calls.lock().unwrap().get(&Method::Snapshot).copied().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_new_node_gets_a_snapshot_while_writes_go_on() {
    let (mut world, leader) = grown(250 << 10).await;
    let four = NodeId(4);
    world.add_machine(four).await;
    world.boot(four).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = load(world.ledger(leader), stop.clone());
    world.ledger(leader).add_node(four, peer(four), soon()).await.unwrap();
    // It votes when it is near enough; it has to get all the way while the load goes on.
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::SeqCst);
    let acknowledged = writer.await.unwrap();
    assert!(acknowledged > 10, "{acknowledged} writes while it caught up");
    let state = world.converge().await;
    assert!(has_tenant(&state, "t-63") && has_tenant(&state, "load-6"));
    // One transfer: the log went on from there, although many more checkpoints were made.
    let sent = chunks_sent(&world);
    assert!((60..120).contains(&sent), "{sent} chunks");
    assert!(world.ledger(four).read(|state| state.globals.revision) > Revision(64));
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_was_cut_goes_on_where_it_stood_and_leaves_nothing_behind() {
    let (mut world, leader) = grown(64 << 10).await;
    let four = NodeId(4);
    world.add_machine(four).await;
    world.boot(four).await;
    let adding = tokio::spawn({
        let ledger = world.ledger(leader);
        async move { ledger.add_node(four, peer(four), soon() + Duration::from_secs(60)).await }
    });
    for upto in [6, 12] {
        let until = soon();
        while chunks_sent(&world) < upto {
            assert!(Instant::now() < until, "{} chunks", chunks_sent(&world));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        world.net.isolate(four);
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        world.net.heal();
    }
    adding.await.unwrap().unwrap();
    assert!(has_tenant(&world.converge().await, "t-63"));
    // 17 chunks, and for each cut those that were tried in vain and one to ask.
    let sent = chunks_sent(&world);
    assert!(sent < 17 + 12, "{sent} chunks were sent");
    assert!(!being_made(&world.machines[&four].disk).await, "a piece was left behind");
}
