//! The life of a node's data: what a large quiet state costs, and what endless load leaves behind.
//!
//! `quiet`: a million jobs at rest, made by real commands through a real ledger (real log, real
//! store, real syncs, no network). Memory, restart until a linearizable read is answered, the latency
//! of a write with an empty state and with the large one, and the longest wait of a writer while a
//! checkpoint is made. `endless`: ten million entries, with checkpoints and purges; what the disk
//! holds at most meanwhile, and the restart after it.
//!
//! ```text
//! cargo bench -p muster-bench --bench life                      both; 16 GB of disk, half an hour
//! MUSTER_LIFE_JOBS=100000 cargo bench -p muster-bench --bench life -- quiet
//! MUSTER_LIFE_ENTRIES=1000000 cargo bench -p muster-bench --bench life -- endless
//! ```
//! Each step is a process of its own, so that memory is that of a node that did nothing else, and each
//! but the first starts on what the one before left when it was cut short. Times are also given as
//! processor time: on a busy machine the others mean little. With `MUSTER_LIFE_COMMANDS_PER_ENTRY` the
//! load is batched as clients batch it; by itself each entry holds one command.
#![expect(clippy::print_stdout, reason = "the figures are for whoever runs the bench")]
#![expect(clippy::print_stderr, reason = "a long run says that it lives")]
#![expect(clippy::unwrap_used, reason = "a bench whose ledger fails has nothing to measure")]

use bench::{
    Fleet, Hands, Local, Shape, bytes_below, cpu_time, host_name, must_name, on_disk, rss_bytes,
};
use consensus::{Config, Ledger};
use model::{Command, Draft, Name, Outcome, Reply, State};
use std::{
    collections::BTreeMap,
    path::Path,
    process::Stdio,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{runtime::Runtime, task::JoinSet, time::Instant};

/// How this program is told to be one step.
const STEP: &str = "--step";
/// Where the clock stands while nobody moves it.
const NOW: u64 = 1_000_000;
const MIB: f64 = (1 << 20) as f64;

/// What is asked by the environment, with what it is when it is only tried, and otherwise.
const SETTINGS: [(&str, u64, u64); 4] = [
    (JOBS, 200, 1_000_000),
    (ENTRIES, 2_000, 10_000_000),
    (COMMANDS_PER_ENTRY, 1, 1),
    (MILLISECONDS, 50, 10_000),
];
/// Quiet jobs.
const JOBS: &str = "MUSTER_LIFE_JOBS";
/// Entries of endless load.
const ENTRIES: &str = "MUSTER_LIFE_ENTRIES";
/// 1, or more for as many as fit.
const COMMANDS_PER_ENTRY: &str = "MUSTER_LIFE_COMMANDS_PER_ENTRY";
/// Milliseconds of each measurement of latencies.
const MILLISECONDS: &str = "MUSTER_LIFE_MS";

/// Figures by name.
type Figures = BTreeMap<String, f64>;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, step, place] = &arguments[..]
        && flag == STEP
    {
        run_step(step, Path::new(place));
        // As if it were killed: nothing is said good-bye to.
        std::process::exit(0);
    }
    if bench::is_selected("quiet") {
        quiet();
    }
    if bench::is_selected("endless") {
        endless();
    }
}

fn setting(name: &str, quick: u64, full: u64) -> u64 {
    let asked = std::env::var(name).ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(if bench::is_quick() { quick } else { full })
}

fn asked(name: &str) -> u64 {
    let setting = SETTINGS.iter().find(|(known, _, _)| *known == name).unwrap();
    self::setting(name, setting.1, setting.2)
}

/// Clusters, hosts and deployments in the proportions of a million jobs on 10,000 hosts.
fn shape() -> Shape {
    let jobs = asked(JOBS) as usize;
    let clusters = (jobs / 20_000).clamp(2, 50);
    let hosts = (jobs / 100 / clusters).clamp(2, 200);
    let deployments = (jobs / 10_000).clamp(2, 100);
    let partitions = (jobs / clusters / deployments).max(1) as u32;
    Shape { clusters, hosts, deployments, partitions }
}

fn quiet() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let empty = child("empty", &place.path().join("empty"));
    let filled = child("fill", &place.path().join("node"));
    let held = child("hold", &place.path().join("node"));
    let again = child("again", &place.path().join("node"));
    let jobs = filled["jobs"];
    println!(
        "\n{jobs} quiet jobs, by {} commands in {:.0} s",
        filled["commands"], filled["took_s"]
    );
    row("resident after taking every command, MiB", filled["rss_mib"], "");
    row("resident after a restart, MiB", held["rss_mib"], "< 1229 (1.2 GB)");
    row("  the same per job, bytes", held["rss_mib"] * MIB / jobs, "");
    row("resident after a checkpoint and writes, MiB", held["rss_end_mib"], "< 1229 (1.2 GB)");
    row("restart after a crash until a read is answered, s", held["serving_s"], "< 10");
    row("  its processor time, s", held["cpu_s"], "");
    row("  until log, snapshot and store were read, s", held["open_s"], "");
    row("restart after a crash under load, s", again["serving_s"], "< 10");
    row("  its processor time, s", again["cpu_s"], "");
    println!("{:<56} {:>10} {:>10}", "one writer, one write after the other", "empty", "with jobs");
    for (figure, name) in [
        ("p50_ms", "write p50, ms"),
        ("p99_ms", "write p99, ms"),
        ("max_ms", "longest write, ms"),
        ("checkpoint_p50_ms", "write p50 during checkpoints, ms"),
        ("checkpoint_p99_ms", "write p99 during checkpoints, ms"),
        ("checkpoint_max_ms", "longest write during checkpoints, ms"),
        ("checkpoint_writes", "writes acknowledged during checkpoints"),
        ("checkpoint_s", "the checkpoints took, s"),
    ] {
        println!("  {name:<54} {:>10.2} {:>10.2}", empty[figure], held[figure]);
    }
    row("log, MiB on disk", held["log_mib"], "");
    row("snapshots, MiB on disk", held["snapshots_mib"], "");
    row("store, MiB on disk", held["kv_mib"], "");
}

fn endless() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let ran = child("endless", place.path());
    let again = child("again", place.path());
    println!(
        "\n{} entries, {} commands in {:.0} s",
        ran["entries"], ran["commands"], ran["took_s"]
    );
    row("commands per second", ran["commands"] / ran["took_s"], "");
    row("entries per sync of the log", ran["entries_per_sync"], "> 1");
    row("checkpoints", ran["checkpoints"], "");
    let bound = ran["log_bound_mib"];
    row("log, MiB on disk at most", ran["log_mib"], &format!("< {bound:.0} (by formula)"));
    row("snapshots, MiB on disk at most", ran["snapshots_mib"], "two of a state");
    for tenth in [1, 5, 10] {
        let name = format!("store, MiB on disk after {tenth} tenths");
        row(&name, ran[&format!("kv_mib_{tenth}")], "level");
    }
    row("resident at the end, MiB", ran["rss_mib"], "");
    row("restart until a read is answered, s", again["serving_s"], "< 10");
    row("  its processor time, s", again["cpu_s"], "");
    row("  entries it had to apply again", again["replayed"], "<= a checkpoint's");
}

fn row(name: &str, value: f64, goal: &str) {
    println!("{name:<56} {value:>10.2}   {goal}");
}

/// Runs one step as a process and answers its figures.
fn child(step: &str, place: &Path) -> Figures {
    std::fs::create_dir_all(place).unwrap();
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    // The step is not told whether it is only tried.
    for (name, quick, full) in SETTINGS {
        command.env(name, setting(name, quick, full).to_string());
    }
    let output = command.args([STEP, step]).arg(place).stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "step {step} failed: {text}");
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

fn tell(name: &str, value: f64) {
    println!("{name} {value}");
}

fn run_step(step: &str, place: &Path) {
    // As the control node runs it: one thread, and those of disk and store.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match step {
        "empty" => runtime.block_on(async { measure(&start(place).await).await }),
        "fill" => fill(runtime, place),
        "hold" => runtime.block_on(hold(place)),
        "again" => runtime.block_on(async { tell_start(&start(place).await) }),
        "endless" => runtime.block_on(load(place)),
        other => panic!("there is no step {other}"),
    }
}

async fn start(place: &Path) -> Local {
    Local::start(place, config(), Hands::new(NOW)).await.unwrap()
}

fn config() -> Config {
    match asked(COMMANDS_PER_ENTRY) {
        // Smaller than any command.
        1 => Config { batch_bytes_max: 1, entries_in_flight_max: 256, ..Config::default() },
        _ => Config::default(),
    }
}

fn tell_start(node: &Local) {
    tell("open_s", node.started.open.as_secs_f64());
    tell("serving_s", node.started.serving.as_secs_f64());
    tell("cpu_s", cpu_time().unwrap().as_secs_f64());
    tell("rss_mib", rss_bytes().unwrap() as f64 / MIB);
    tell("replayed", node.started.replayed as f64);
}

/// Makes the state through the ledger, one command after the other.
fn fill(runtime: Runtime, place: &Path) {
    let began = Instant::now();
    let clock = Hands::new(NOW);
    let started = Local::start(place, Config::default(), clock.clone());
    let node = runtime.block_on(started).unwrap();
    let (runtime, ledger) = (Rc::new(runtime), node.ledger.clone());
    let commands = Arc::new(AtomicU64::new(0));
    let (counted, inner) = (commands.clone(), runtime.clone());
    let taker = move |time, command| -> (State, Outcome) {
        clock.set(time);
        let done = counted.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(5_000) {
            eprintln!("life: {done} commands after {:.0} s", began.elapsed().as_secs_f64());
        }
        let outcome = inner.block_on(node.propose(command)).unwrap();
        (node.ledger.read(State::clone), outcome)
    };
    let shape = shape();
    let mut fleet = Fleet::through(shape, Box::new(taker));
    for number in 0..shape.deployments {
        fleet.deploy(number, shape.partitions);
        fleet.place_all();
    }
    fleet.obey_all();
    fleet.settle_all();
    tell("took_s", began.elapsed().as_secs_f64());
    tell("commands", commands.load(Ordering::Relaxed) as f64);
    tell("jobs", fleet.state.jobs.len() as f64);
    tell("rss_mib", rss_bytes().unwrap() as f64 / MIB);
    assert_eq!(fleet.state.jobs.len(), shape.jobs());
    runtime.block_on(ledger.kill());
}

/// A restarted node with the state.
async fn hold(place: &Path) {
    let node = start(place).await;
    tell_start(&node);
    measure(&node).await;
    tell("rss_end_mib", rss_bytes().unwrap() as f64 / MIB);
    for (name, bytes) in on_disk(place) {
        tell(&format!("{name}_mib"), bytes as f64 / MIB);
    }
}

/// Latencies of a lone writer, without checkpoints and with one after the other.
async fn measure(node: &Local) {
    let mut writer = Writer::new(node, 0).await;
    writer.checkpoint().await;
    let span = Duration::from_millis(asked(MILLISECONDS));
    // None falls due by itself meanwhile.
    let most = Config::default().snapshot_every_entries as usize / 2;
    let mut plain = Vec::new();
    let until = Instant::now() + span;
    while Instant::now() < until && plain.len() < most {
        plain.push(writer.write().await);
    }
    tell_latencies("", plain);
    let (mut during, mut took) = (Vec::new(), Duration::ZERO);
    let until = Instant::now() + span;
    while Instant::now() < until {
        let began = Instant::now();
        during.extend(writer.checkpoint().await);
        took += began.elapsed();
    }
    tell("checkpoint_writes", during.len() as f64);
    tell("checkpoint_s", took.as_secs_f64());
    tell_latencies("checkpoint_", during);
}

fn tell_latencies(kind: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    for (name, per_mille) in [("p50", 500), ("p99", 990), ("max", 1_000)] {
        let at = (took.len() - 1) * per_mille / 1_000;
        tell(&format!("{kind}{name}_ms"), took[at].as_secs_f64() * 1_000.);
    }
}

/// Writes to a host of its own.
struct Writer<'a> {
    node: &'a Local,
    host: Name,
    cordoned: bool,
}

impl<'a> Writer<'a> {
    async fn new(node: &'a Local, number: usize) -> Self {
        let (tenant, host) = (must_name("load"), host_name(number));
        let display_name = "Load".to_owned();
        let draft = |name| {
            let (labels, annotations) = Default::default();
            Draft { name, labels, annotations, if_revision: None }
        };
        let command = Command::ApplyTenant { draft: draft(tenant.clone()), display_name };
        node.propose(command).await.unwrap();
        let (site, zone) = (None, None);
        let draft = draft(host.clone());
        let command = Command::ApplyHost { tenant: tenant.clone(), draft, site, zone };
        node.propose(command).await.unwrap();
        let is_cordoned =
            |state: &State| state.host(&tenant, &host).is_some_and(|row| row.cordoned);
        Self { node, cordoned: node.ledger.read(is_cordoned), host }
    }

    /// One write; how long its answer took.
    async fn write(&mut self) -> Duration {
        self.cordoned = !self.cordoned;
        let (tenant, host, cordoned) = (must_name("load"), self.host.clone(), self.cordoned);
        let began = Instant::now();
        let command = Command::CordonHost { tenant, host, cordoned };
        let outcome = self.node.propose(command).await.unwrap();
        let changed = matches!(outcome.result, Ok(Reply::Done { changed: true, .. }));
        assert!(changed, "{outcome:?}");
        began.elapsed()
    }

    /// Has a checkpoint made and writes until it is there.
    async fn checkpoint(&mut self) -> Vec<Duration> {
        let mut took = vec![self.write().await];
        let before = self.node.ledger.status().snapshot_index;
        self.node.ledger.snapshot().await.unwrap();
        while self.node.ledger.status().snapshot_index == before {
            took.push(self.write().await);
        }
        took
    }
}

/// Endless load, for a while.
async fn load(place: &Path) {
    const WRITERS: usize = 256;
    let entries = asked(ENTRIES);
    let node: &'static Local = Box::leak(Box::new(start(place).await));
    let mut most = Figures::new();
    let began = Instant::now();
    let commands = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for number in 0..WRITERS {
        let commands = commands.clone();
        tasks.spawn(async move {
            let mut writer = Writer::new(node, number).await;
            while node.ledger.status().last_log_index.unwrap_or(0) < entries {
                writer.write().await;
                commands.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut tenths = 0;
    let mut checkpoints = std::collections::BTreeSet::new();
    while !tasks.is_empty() {
        let ended = tokio::time::timeout(Duration::from_millis(200), tasks.join_next()).await;
        if let Ok(Some(ended)) = ended {
            ended.unwrap();
        }
        for name in ["log", "snapshots"] {
            let bytes = bytes_below(&place.join("ledger").join(name)) as f64;
            let before = most.get(name).copied().unwrap_or_default();
            most.insert(name.to_owned(), bytes.max(before));
        }
        let status = node.ledger.status();
        checkpoints.extend(status.snapshot_index);
        if status.last_log_index.unwrap_or(0) >= entries / 10 * (tenths + 1) && tenths < 10 {
            tenths += 1;
            let held = on_disk(place);
            tell(&format!("kv_mib_{tenths}"), held["kv"] as f64 / MIB);
            let seconds = began.elapsed().as_secs_f64();
            eprintln!("life: {tenths}0 % of {entries} entries after {seconds:.0} s: {held:?}");
        }
    }
    tell("took_s", began.elapsed().as_secs_f64());
    let status = node.ledger.status();
    let log = node.ledger.log_status();
    tell("entries", status.last_log_index.unwrap_or(0) as f64);
    tell("commands", commands.load(Ordering::Relaxed) as f64);
    tell("entries_per_sync", log.next as f64 / log.syncs as f64);
    tell("checkpoints", checkpoints.len() as f64);
    tell("rss_mib", rss_bytes().unwrap() as f64 / MIB);
    tell("log_mib", most["log"] / MIB);
    tell("snapshots_mib", most["snapshots"] / MIB);
    tell("log_bound_mib", config().log_bytes_bound(&storage::log::LogConfig::new()) as f64 / MIB);
}
