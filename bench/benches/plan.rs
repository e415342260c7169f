//! Planning one cluster of 100, 1,000 and 10,000 hosts: hosts for a thousand new jobs, for one more
//! beside them, and the sweep that finds nothing to do. One element is one job.

use bench::{Fleet, Shape};
use criterion::{BenchmarkId, Criterion, Throughput};
use model::{Name, Timestamp};
use planner::{Plan, place, plan_cluster};
use std::{cell::LazyCell, hint::black_box, time::Duration};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let (sizes, jobs): (&[usize], u32) = match bench::is_quick() {
        true => (&[10], 20),
        false => (&[100, 1_000, 10_000], 1_000),
    };
    for hosts in sizes {
        measure(&mut criterion, *hosts, jobs);
    }
    criterion.final_summary();
}

/// One cluster, with jobs that have no host.
fn waiting(hosts: usize, jobs: u32) -> Fleet {
    let mut fleet = Fleet::new(Shape { clusters: 1, hosts, deployments: 1, partitions: jobs });
    fleet.deploy(0, jobs);
    fleet
}

/// The same, all jobs running and settled.
fn rested(hosts: usize, jobs: u32) -> Fleet {
    Fleet::at_rest(Shape { clusters: 1, hosts, deployments: 1, partitions: jobs })
}

fn only_cluster(fleet: &Fleet) -> Name {
    fleet.clusters().swap_remove(0)
}

fn placed(plan: Plan, jobs: u32) -> Plan {
    assert_eq!(plan.report.placed, jobs as usize, "{}", plan.report);
    plan
}

fn measure(criterion: &mut Criterion, hosts: usize, jobs: u32) {
    let waiting = LazyCell::new(|| waiting(hosts, jobs));
    let one_more = LazyCell::new(|| {
        let mut fleet = rested(hosts, jobs);
        fleet.deploy(1, 1);
        fleet
    });
    let rested = LazyCell::new(|| rested(hosts, jobs));
    let mut group = criterion.benchmark_group("plan");
    group.sample_size(20).measurement_time(Duration::from_secs(5));

    group.throughput(Throughput::Elements(u64::from(jobs)));
    group.bench_function(BenchmarkId::new(format!("place_{jobs}_jobs"), hosts), |b| {
        let cluster = only_cluster(&waiting);
        b.iter(|| placed(place(black_box(&waiting.state), &waiting.tenant, &cluster), jobs));
    });
    group.bench_function(BenchmarkId::new(format!("sweep_{jobs}_jobs_at_rest"), hosts), |b| {
        let cluster = only_cluster(&rested);
        b.iter(|| {
            let now = Timestamp(u64::MAX);
            let plan = plan_cluster(black_box(&rested.state), &rested.tenant, &cluster, now);
            assert!(plan.is_empty(), "{}", plan.report);
        });
    });

    group.throughput(Throughput::Elements(1));
    group.bench_function(BenchmarkId::new("place_one_more_job", hosts), |b| {
        let cluster = only_cluster(&one_more);
        b.iter(|| placed(place(black_box(&one_more.state), &one_more.tenant, &cluster), 1));
    });
    group.finish();
}
