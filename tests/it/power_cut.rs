//! Power cuts of the real process, replayed: what a node under load did to its files is recorded, and
//! at many moments of it the folder is made that a power cut would have left. A node started on it has
//! every write that was acknowledged before, and nothing that was never asked for.
//!
//! `MUSTER_POWER_CUT_IMAGES=1000 cargo it -- power_cut --nocapture` makes that many images of a lone
//! node and a fifth as many of three at once, and prints what became of them.

pub(crate) mod images;
mod trouble;

use crate::BINARY;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tests::{
    Cluster, Settings, Writers, now_ns,
    power::{Change, Recorder, Trace},
    until,
};

/// Longer than it takes for the end of a log to be marked.
const QUIET_NS: u64 = 300_000_000;

/// Bytes of a log segment: small, so that there are many.
const SEGMENT_BYTES: u64 = 64 << 10;

/// Small files and frequent snapshots, so that little load meets everything that can happen.
fn busy_files() -> BTreeMap<String, String> {
    let settings = [
        ("MUSTER_LOG__SEGMENT_BYTES", SEGMENT_BYTES.to_string()),
        ("MUSTER_RAFT__SNAPSHOT_EVERY_ENTRIES", "60".to_owned()),
        ("MUSTER_RAFT__LOG_KEEP_ENTRIES", "20".to_owned()),
        ("MUSTER_RAFT__DUTY_MS", "50".to_owned()),
        ("MUSTER_RAFT__JOURNAL_ROWS_MAX", "200".to_owned()),
    ];
    settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// How many images are made.
fn images_wanted(by_default: usize, share: usize) -> usize {
    let asked = std::env::var("MUSTER_POWER_CUT_IMAGES").ok();
    asked.map_or(by_default, |text| text.parse::<usize>().expect("a number of images") / share)
}

/// A cluster that was recorded under load; its processes are dead.
pub(crate) struct Recording {
    recorder: Recorder,
    cluster: Cluster,
    traces: Vec<Trace>,
    writers: Writers,
    /// Who may read the state.
    operator: PathBuf,
}

/// `None` where nothing can be recorded.
fn record(nodes: usize, size: (usize, usize)) -> Option<Recording> {
    record_of(BINARY, BTreeMap::new(), nodes, size)
}

/// The same of another binary, with settings of its own.
pub(crate) fn record_of(
    binary: &str,
    env: BTreeMap<String, String>,
    nodes: usize,
    size: (usize, usize),
) -> Option<Recording> {
    let recorder = Recorder::build()?;
    let mut settings = Settings::new(nodes);
    settings.env = busy_files();
    settings.env.extend(recorder.env());
    settings.env.extend(env);
    settings.place = Some(recorder.under().to_owned());
    let mut cluster = Cluster::start(binary, settings);
    let servers: Vec<_> = (0..nodes).map(|index| cluster.client_addr(index)).collect();
    let operator = recorder.under().join("operator");
    copy(&cluster.nodes[0].folder.join("admin"), &operator);
    let writers = Writers::run("w", &servers, &operator, size);
    assert_eq!(writers.acknowledged(), size.0 * size.1, "{:?}", writers.attempts.last());
    let pids = cluster.nodes.iter().map(|node| node.process.as_ref().expect("it runs").pid());
    let files: Vec<_> = pids.map(|pid| recorder.trace(pid)).collect();
    // The end of a log is marked when it has been quiet for a while.
    until("nothing was written for a while", 30, || {
        files.iter().all(|file| last_write_ns(&Trace::read(file)) + QUIET_NS < now_ns())
    });
    let mut traces = Vec::new();
    for (index, file) in files.iter().enumerate() {
        cluster.kill_node(index);
        traces.push(Trace::read(file));
    }
    cluster.set_env(busy_files());
    let writers = writers.at_the_sender(&traces);
    Some(Recording { recorder, cluster, traces, writers, operator })
}

fn last_write_ns(trace: &Trace) -> u64 {
    let writes = trace.events().filter(|event| matches!(event.change, Change::Write { .. }));
    writes.last().map_or(0, |event| event.time_ns)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
