//! Commands per second: deciding and applying them on a fleet at rest, small and large.
//!
//! One element is one command, or one item where the name says so. Times should hardly depend on
//! the number of jobs: that is what the two sizes are for.

use bench::{Fleet, Shape, host_name, must_name};
use criterion::{Bencher, Criterion, Throughput};
use model::{Command, Context, Phase, State, decide};
use std::{cell::LazyCell, hint::black_box};

/// Items of one report in `report_50_items`: all jobs of a host.
const HOST_JOBS: usize = 50;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let shapes = match bench::is_quick() {
        true => vec![Shape { clusters: 1, hosts: 1, deployments: 2, partitions: 25 }],
        false => vec![
            Shape { clusters: 2, hosts: 10, deployments: 10, partitions: 50 },
            Shape { clusters: 20, hosts: 100, deployments: 10, partitions: 500 },
        ],
    };
    for shape in shapes {
        measure(&mut criterion, shape);
    }
    criterion.final_summary();
}

fn measure(criterion: &mut Criterion, shape: Shape) {
    let fleet = LazyCell::new(|| Fleet::at_rest(shape));
    let mut group = criterion.benchmark_group(format!("apply/{}_jobs", shape.jobs()));
    group.throughput(Throughput::Elements(1));
    group.bench_function("report_one_job", |b| {
        cycle(b, &fleet, &alternating(&fleet));
    });
    group.bench_function("cordon_host", |b| {
        let hosts = shape.clusters * shape.hosts;
        let cordon = |cordoned| {
            let tenant = fleet.tenant.clone();
            move |host| Command::CordonHost {
                tenant: tenant.clone(),
                host: host_name(host),
                cordoned,
            }
        };
        let commands: Vec<_> =
            (0..hosts).map(cordon(true)).chain((0..hosts).map(cordon(false))).collect();
        cycle(b, &fleet, &commands);
    });
    group.bench_function("apply_deployment", |b| {
        let commands = ["debug", "info"].map(|level| fleet.deployment(0, level));
        cycle(b, &fleet, &commands);
    });
    group.bench_function("refused", |b| {
        let host = must_name("nowhere");
        let command = Command::CordonHost { tenant: fleet.tenant.clone(), host, cordoned: true };
        cycle(b, &fleet, &[command]);
    });
    group.bench_function("decide_report_one_job", |b| decide_only(b, &fleet));
    group.bench_function("fork", |b| b.iter(|| black_box(&fleet.state).clone()));
    group.throughput(Throughput::Elements(HOST_JOBS as u64));
    group.bench_function("report_50_items", |b| {
        cycle(b, &fleet, &whole_hosts(&fleet));
    });
    group.finish();
}

/// Applies the commands in turn, over and over, to one state.
fn cycle(bencher: &mut Bencher<'_>, fleet: &Fleet, commands: &[Command]) {
    let mut state = fleet.state.clone();
    let stamp = fleet.stamp();
    let mut turn = commands.iter().cycle();
    bencher.iter(|| {
        let command = turn.next();
        command.map(|command| state.apply(&stamp, black_box(command)))
    });
}

/// Jobs all over the fleet fail one after the other, then run again.
fn alternating(fleet: &Fleet) -> Vec<Command> {
    let mut commands = fleet.reports(4_096, Phase::Failing);
    commands.extend(fleet.reports(4_096, Phase::Running));
    commands
}

/// All jobs of a host fail at once, host by host; then they run again.
fn whole_hosts(fleet: &Fleet) -> Vec<Command> {
    let hosts: Vec<_> = fleet.state.hosts.iter().map(|((_, host), _)| host.clone()).collect();
    let report = |phase, later| {
        let hosts = hosts.iter();
        hosts.map(move |host| {
            let jobs = fleet.state.jobs_on(&fleet.tenant, host).take(HOST_JOBS);
            let items: Vec<_> =
                jobs.filter_map(|(key, job)| bench::report(key, job, phase)).collect();
            assert_eq!(items.len(), HOST_JOBS, "jobs are spread evenly");
            let mut first = fleet.state.next_report(&fleet.tenant, host);
            first.item += later;
            Command::ReportJobs { tenant: fleet.tenant.clone(), host: host.clone(), first, items }
        })
    };
    report(Phase::Failing, 0).chain(report(Phase::Running, HOST_JOBS as u32)).collect()
}

fn decide_only(bencher: &mut Bencher<'_>, fleet: &Fleet) {
    let State { globals, .. } = &fleet.state;
    let stamp = fleet.stamp();
    let context = Context {
        revision: globals.revision.next(),
        time: stamp.time,
        rules: stamp.rules,
        caller: stamp.caller,
        request_id: None,
    };
    let commands = fleet.reports(4_096, Phase::Failing);
    let mut turn = commands.iter().cycle();
    bencher.iter(|| {
        let command = turn.next();
        command.map(|command| decide(&fleet.state, &context, black_box(command)).ok())
    });
}
