//! Bytes of resident memory per quiet job, its indexes and its share of everything included; the
//! budget is 600.
//!
//! Two figures: on a node that took every command (each job was created, assigned, reported and
//! settled, so the heap has the holes this leaves), and on a node that was started again and loaded
//! the same rows. For the second this program runs itself, so that it starts with a clean heap.
//! Commands and rows go through the codec, so nothing is shared that a real node would not share.
#![expect(clippy::print_stdout, reason = "the figures are for whoever runs the bench")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot read its own memory measures nothing")]

use bench::{Fleet, Shape, rss_bytes};
use model::{Globals, Key, Row, State};
use std::{
    cell::Cell,
    fs::File,
    io::{BufReader, BufWriter, Read, Write},
    path::Path,
};
use storage::codec;
use tokio::time::Instant;

const BUDGET_BYTES: u64 = 600;
/// How this program is told to load rows from a file.
const LOAD: &str = "--load-rows";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, file] = &arguments[..]
        && flag == LOAD
    {
        return loaded(Path::new(file));
    }
    if !bench::is_selected("memory") {
        return;
    }
    let shape = match bench::is_quick() {
        true => Shape { clusters: 1, hosts: 2, deployments: 2, partitions: 5 },
        false => Shape { clusters: 10, hosts: 100, deployments: 20, partitions: 1_000 },
    };
    let state = taken(shape);
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = place.path().join("rows");
    write_rows(&state, &file);
    drop(state);
    let program = std::env::current_exe().unwrap();
    let status = std::process::Command::new(program).arg(LOAD).arg(&file).status().unwrap();
    assert!(status.success(), "the rows load");
}

/// A node that took every command.
fn taken(shape: Shape) -> State {
    let start = Instant::now();
    let mut fleet = Fleet::new(shape);
    let empty = rss_bytes().unwrap();
    for number in 0..shape.deployments {
        fleet.deploy_and_rest(number);
    }
    let full = rss_bytes().unwrap();
    assert_eq!(fleet.state.jobs.len(), shape.jobs());
    tell("after taking every command", shape.jobs(), full.saturating_sub(empty), start);
    fleet.state
}

/// A node that was started again.
fn loaded(file: &Path) {
    let start = Instant::now();
    let mut rows = BufReader::new(File::open(file).unwrap());
    let globals: Globals = codec::decode(&read_record(&mut rows).unwrap()).unwrap();
    let before_jobs = Cell::new(None);
    let rows = std::iter::from_fn(|| {
        let (key, row): (Key, Row) = codec::decode(&read_record(&mut rows)?).unwrap();
        if matches!(key, Key::Job(_)) && before_jobs.get().is_none() {
            before_jobs.set(Some(rss_bytes().unwrap()));
        }
        Some((key, row))
    });
    let state = State::load(globals, rows);
    let full = rss_bytes().unwrap();
    let empty = before_jobs.get().unwrap();
    tell("after loading the rows", state.jobs.len(), full.saturating_sub(empty), start);
}

fn tell(when: &str, jobs: usize, bytes: u64, start: Instant) {
    let per_job = bytes / jobs as u64;
    let took = start.elapsed().as_secs_f64();
    println!(
        "memory: {per_job} bytes per quiet job {when} ({jobs} jobs, {} MiB, {took:.1} s); \
         the budget is {BUDGET_BYTES}",
        bytes >> 20,
    );
}

fn write_rows(state: &State, file: &Path) {
    let mut out = BufWriter::new(File::create_new(file).unwrap());
    let mut record = |bytes: Vec<u8>| {
        out.write_all(&(bytes.len() as u32).to_le_bytes()).unwrap();
        out.write_all(&bytes).unwrap();
    };
    record(codec::encode(&state.globals).unwrap());
    for row in state.rows() {
        record(codec::encode::<(Key, Row)>(&row).unwrap());
    }
    out.flush().unwrap();
}

/// The next record; `None` at the end.
fn read_record(rows: &mut impl Read) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    rows.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    rows.read_exact(&mut bytes).unwrap();
    Some(bytes)
}
