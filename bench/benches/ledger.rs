//! One control node by itself: proposals that are committed, applied and stored, with 1, 64 and 256
//! under way at a time. Real log, real store, real syncs; no network and no RPC. One element is one
//! answered proposal.
#![expect(clippy::unwrap_used, reason = "a bench whose ledger fails has nothing to measure")]

use bench::{Local, host_name, must_name};
use consensus::{Config, Ledger, Proposal, RaftLedger};
use criterion::{BenchmarkId, Criterion, Throughput};
use model::{Caller, Clock, Command, Draft, Name, Reply, State, Timestamp};
use std::{cell::OnceCell, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{task::JoinSet, time::Instant};

const HOSTS: usize = 1_024;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    // As the control node runs it: one thread, and those of disk and store.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (in_flight, hosts): (&[usize], usize) = match bench::is_quick() {
        true => (&[4], 8),
        false => (&[1, 64, 256], HOSTS),
    };
    let node = OnceCell::new();
    let mut group = criterion.benchmark_group("ledger");
    group.sample_size(20).measurement_time(Duration::from_secs(8));
    for clients in in_flight {
        group.throughput(Throughput::Elements(*clients as u64));
        group.bench_function(BenchmarkId::new("propose", clients), |b| {
            let node = node.get_or_init(|| runtime.block_on(Node::start(hosts)));
            b.iter_custom(|times| runtime.block_on(node.run(*clients, times)));
        });
    }
    group.finish();
    if let Some(Node { local, .. }) = node.get() {
        runtime.block_on(local.ledger.shutdown());
    }
    criterion.final_summary();
}

struct Node {
    local: Local,
    hosts: usize,
    _place: TempDir,
}

impl Node {
    async fn start(hosts: usize) -> Self {
        let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let clock = Arc::new(Counted(Instant::now()));
        let local = Local::start(place.path(), Config::default(), clock).await.unwrap();
        let ledger = &local.ledger;
        let display_name = "Acme".to_owned();
        propose(ledger, Command::ApplyTenant { draft: draft(tenant()), display_name }).await;
        for host in (0..hosts).map(host_name) {
            let (site, zone) = (None, None);
            let draft = draft(host);
            propose(ledger, Command::ApplyHost { tenant: tenant(), draft, site, zone }).await;
        }
        Self { local, hosts, _place: place }
    }

    /// Each client changes a row of its own, `times` times, one proposal after the other.
    async fn run(&self, clients: usize, times: u64) -> Duration {
        // The runtime stood still since the last sample.
        turn_over(&self.local.ledger, self.hosts - 1, 1).await;
        let mut tasks = JoinSet::new();
        let start = Instant::now();
        for client in 0..clients {
            let ledger = self.local.ledger.clone();
            tasks.spawn(async move { turn_over(&ledger, client, times).await });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        start.elapsed()
    }
}

/// Cordons a host or takes it back, `times` times.
async fn turn_over(ledger: &RaftLedger, host: usize, times: u64) {
    let (tenant, host) = (tenant(), host_name(host));
    let is_cordoned = |state: &State| state.host(&tenant, &host).is_some_and(|row| row.cordoned);
    let mut cordoned = ledger.read(is_cordoned);
    for _ in 0..times {
        cordoned = !cordoned;
        let (tenant, host) = (tenant.clone(), host.clone());
        propose(ledger, Command::CordonHost { tenant, host, cordoned }).await;
    }
}

async fn propose(ledger: &RaftLedger, command: Command) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let caller = Caller::System;
    let proposal = Proposal { command, caller, request_id: None, deadline };
    let outcome = ledger.propose(proposal).await.unwrap();
    let changed = matches!(outcome.result, Ok(Reply::Done { changed: true, .. }));
    assert!(changed, "{outcome:?}");
}

fn tenant() -> Name {
    must_name("acme")
}

fn draft(name: Name) -> Draft {
    let (labels, annotations) = Default::default();
    Draft { name, labels, annotations, if_revision: None }
}

/// Stamps with the time since the start.
struct Counted(Instant);

impl Clock for Counted {
    fn now(&self) -> Timestamp {
        Timestamp(1_000_000 + self.0.elapsed().as_millis() as u64)
    }
}
