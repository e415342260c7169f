//! The Raft log on a real disk, against the least that any durable log has to do.
//!
//! Each measurement appends a batch of 256-byte entries and waits until it is durable. Beside it, in
//! turn, the same payload is written to a preallocated, zeroed file and synced by the plainest calls;
//! the ratio of the two medians is printed at the end, since absolute figures depend on the disk and
//! on who else uses it. One element is one entry.
#![expect(clippy::print_stdout, reason = "the ratio is for whoever runs the bench")]
#![expect(clippy::unwrap_used, reason = "a bench whose disk fails has nothing to measure")]

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use std::{cell::RefCell, fs::File, os::unix::fs::FileExt, path::Path, time::Duration};
use storage::{
    Fault,
    disk::real::{RealDisk, RealDiskConfig},
    log::{Log, LogConfig},
};
use tokio::{runtime::Runtime, task::JoinSet, time::Instant};

const ENTRY_BYTES: usize = 256;
const BATCHES: [usize; 3] = [1, 16, 256];
/// Entries after which those before are purged, so that files are used again as in a long life.
const PURGE_ENTRIES: u64 = 32_768;
const BARE_BYTES: u64 = 16 << 20;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    // On the disk of the checkout: a temporary directory elsewhere may be in memory.
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut lines = Vec::new();
    let mut group = criterion.benchmark_group("log_append");
    group.sample_size(40);
    for batch in BATCHES {
        let pair = RefCell::new(None);
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::new("durable", batch), |b| {
            let mut slot = pair.borrow_mut();
            let pair = slot.get_or_insert_with(|| {
                Pair::open(&runtime, &place.path().join(batch.to_string()), batch)
            });
            b.iter_custom(|times| runtime.block_on(pair.run(times)));
        });
        if let Some(pair) = pair.into_inner() {
            lines.push(pair.summary());
            runtime.block_on(pair.log.close()).unwrap();
        }
    }
    group.finish();
    for appenders in [16, 64, 256] {
        let place = place.path().join(format!("load-{appenders}"));
        lines.push(runtime.block_on(under_load(&place, appenders)));
    }
    if !bench::is_quick() {
        lines.iter().for_each(|line| println!("{line}"));
    }
    criterion.final_summary();
}

/// So many who each append an entry, wait until it is durable, and append the next.
async fn under_load(place: &Path, appenders: usize) -> String {
    let span = Duration::from_millis(if bench::is_quick() { 20 } else { 2_000 });
    let disk = RealDisk::start(&RealDiskConfig::new()).unwrap();
    Log::make(&disk, place, &LogConfig::new()).await.unwrap();
    let log = Log::open(disk, place, LogConfig::new()).await.unwrap();
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..appenders {
        let log = log.clone();
        tasks.spawn(async move {
            let entry = Bytes::from(vec![0xa5; ENTRY_BYTES]);
            while began.elapsed() < span {
                let next = log.next_index();
                match log.append_durably(vec![(next, entry.clone())]).await {
                    // Somebody else was first.
                    Err(Fault::Gap { .. }) => continue,
                    done => done.unwrap(),
                }
                if next - log.first_index() > PURGE_ENTRIES {
                    log.purge_upto(next - 1).unwrap();
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let (status, took) = (log.status(), began.elapsed().as_secs_f64());
    let (entries, syncs) = (status.next as f64, status.syncs as f64);
    log.close().await.unwrap();
    format!(
        "{appenders:>3} appenders: {:.0} entries/s, {:.0} syncs/s, {:.1} entries per sync",
        entries / took,
        syncs / took,
        entries / syncs
    )
}

/// The log and the bare file, written in turn.
struct Pair {
    batch: usize,
    log: Log<RealDisk>,
    bare: File,
    bare_at: u64,
    log_took: Vec<Duration>,
    bare_took: Vec<Duration>,
}

impl Pair {
    fn open(runtime: &Runtime, place: &Path, batch: usize) -> Self {
        std::fs::create_dir(place).unwrap();
        let disk = RealDisk::start(&RealDiskConfig::new()).unwrap();
        let dir = place.join("log");
        runtime.block_on(Log::make(&disk, &dir, &LogConfig::new())).unwrap();
        let log = runtime.block_on(Log::open(disk, &dir, LogConfig::new())).unwrap();
        let bare = File::create_new(place.join("bare")).unwrap();
        bare.write_all_at(&vec![0; BARE_BYTES as usize], 0).unwrap();
        bare.sync_all().unwrap();
        let (log_took, bare_took) = Default::default();
        Self { batch, log, bare, bare_at: 0, log_took, bare_took }
    }

    /// So many batches into each; what the log took in all.
    async fn run(&mut self, times: u64) -> Duration {
        let entry = Bytes::from(vec![0xa5; ENTRY_BYTES]);
        let payload = vec![0x5a; ENTRY_BYTES * self.batch];
        let mut sum = Duration::ZERO;
        for _ in 0..times {
            let took = self.write_bare(&payload);
            self.bare_took.push(took);
            let took = self.append(&entry).await;
            self.log_took.push(took);
            sum += took;
        }
        sum
    }

    fn write_bare(&mut self, payload: &[u8]) -> Duration {
        if self.bare_at + payload.len() as u64 > BARE_BYTES {
            self.bare_at = 0;
        }
        let start = Instant::now();
        self.bare.write_all_at(payload, self.bare_at).unwrap();
        self.bare.sync_data().unwrap();
        let took = start.elapsed();
        self.bare_at += payload.len() as u64;
        took
    }

    async fn append(&self, entry: &Bytes) -> Duration {
        let next = self.log.next_index();
        let entries = (next..).take(self.batch).map(|index| (index, entry.clone())).collect();
        let start = Instant::now();
        self.log.append_durably(entries).await.unwrap();
        let took = start.elapsed();
        if next - self.log.first_index() > PURGE_ENTRIES {
            self.log.purge_upto(next - 1).unwrap();
        }
        took
    }

    fn summary(&self) -> String {
        let (log, bare) = (Spread::of(&self.log_took), Spread::of(&self.bare_took));
        let ratio = log.p50.as_secs_f64() / bare.p50.as_secs_f64();
        let per_second = |spread: &Spread| self.batch as f64 / spread.p50.as_secs_f64();
        format!(
            "batch {:>3}: log {log}, {:.0} entries/s; bare write and fdatasync {bare}, {:.0} \
             entries/s; the log takes {ratio:.2} times as long",
            self.batch,
            per_second(&log),
            per_second(&bare),
        )
    }
}

struct Spread {
    p50: Duration,
    p99: Duration,
}

impl Spread {
    fn of(samples: &[Duration]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| sorted[(sorted.len() - 1) * percent / 100];
        Self { p50: at(50), p99: at(99) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p50 {} us, p99 {} us", self.p50.as_micros(), self.p99.as_micros())
    }
}
