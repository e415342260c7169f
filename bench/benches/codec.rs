//! The codec on what goes through it most: commands on their way into the log, rows on their way
//! into the store. An entry of the log carries its commands as bytes made once, so the price of an
//! entry is that of its commands. One element of throughput is one byte of the encoded form.

use bench::{Fleet, Shape};
use criterion::{Criterion, Throughput};
use model::{Caller, Command, Key, Name, Phase, RequestId, Row, Timestamp};
use std::{fmt::Debug, hint::black_box};
use storage::codec;

/// A command as the log carries it: who asks, by which request, and what.
type Queued = (Caller, Option<RequestId>, Command);

fn queued(command: Command) -> Queued {
    let id = RequestId { at: Timestamp(1_700_000_000_000), unique: u128::MAX / 3 };
    (Caller::Operator(bench::must_name("alice")), Some(id), command)
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let fleet = Fleet::at_rest(Shape { clusters: 2, hosts: 2, deployments: 2, partitions: 64 });
    let mut reports = fleet.reports(1, Phase::Running);
    let report_one = reports.swap_remove(0);
    measure(&mut criterion, "report_one_job", &queued(report_one));
    measure(&mut criterion, "report_64_jobs", &queued(report_64(&fleet)));
    measure(&mut criterion, "assign_256_jobs", &queued(assign_256(&fleet)));
    measure(&mut criterion, "apply_deployment", &queued(fleet.deployment(0, "info")));
    if let Some(row) = fleet.state.rows().find(|(key, _)| matches!(key, Key::Job(_))) {
        measure::<(Key, Row)>(&mut criterion, "row_of_a_job", &row);
    }
    if let Some(row) = fleet.state.rows().find(|(key, _)| matches!(key, Key::Host(..))) {
        measure::<(Key, Row)>(&mut criterion, "row_of_a_host", &row);
    }
    criterion.final_summary();
}

fn report_64(fleet: &Fleet) -> Command {
    let host: Name = bench::host_name(0);
    let jobs = fleet.state.jobs_on(&fleet.tenant, &host).take(64);
    let items: Vec<_> =
        jobs.filter_map(|(key, job)| bench::report(key, job, Phase::Running)).collect();
    assert_eq!(items.len(), 64, "jobs are spread evenly");
    let first = fleet.state.next_report(&fleet.tenant, &host);
    Command::ReportJobs { tenant: fleet.tenant.clone(), host, first, items }
}

fn assign_256(fleet: &Fleet) -> Command {
    let assign = |(key, job): (&model::JobKey, &model::Job)| model::Assign {
        key: key.clone(),
        host: bench::host_name(1),
        seen: job.revision,
    };
    let items: Vec<_> = fleet.state.jobs.iter().take(256).map(assign).collect();
    assert_eq!(items.len(), 256, "the fleet has enough jobs");
    Command::AssignJobs { items }
}

fn measure<T>(criterion: &mut Criterion, name: &str, value: &T)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug,
{
    let decoded = |bytes: &[u8]| codec::decode::<T>(bytes);
    let bytes = match codec::encode(value) {
        Ok(bytes) => bytes,
        Err(fault) => panic!("{name}: {fault}"),
    };
    assert!(decoded(&bytes).is_ok_and(|again| again == *value), "{name} comes back as it was");
    let mut group = criterion.benchmark_group(format!("codec/{name}"));
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode", |b| b.iter(|| codec::encode(black_box(value))));
    group.bench_function("decode", |b| b.iter(|| decoded(black_box(&bytes))));
    group.finish();
}
