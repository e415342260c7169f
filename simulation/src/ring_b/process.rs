//! Many seeds: one process each, because libraries count in statics what a second run would find.

use super::{Report, settings::Settings};
use anyhow::{Context as _, bail};
use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::sync_channel,
    },
    time::Duration,
};

/// The longest one seed may take in real time. One that takes longer stands still.
const SEED: Duration = Duration::from_secs(300);

/// Runs one seed in a process of its own, by the program that this is.
///
/// # Errors
/// When the process cannot be started, does not end, or says nothing.
pub fn run_apart(program: &Path, settings: &Settings) -> anyhow::Result<Report> {
    let mut command = Command::new(program);
    command.args(arguments(settings)).arg("--here").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("could not start a process for a seed")?;
    let (text, complaint) = output(&mut child)?;
    let status = child.wait().context("could not wait for the process of a seed")?;
    let seed = settings.seed;
    let Some(line) = text.lines().last().filter(|_| status.success()) else {
        bail!("the process of seed {seed} ended with {status}: {text}{complaint}");
    };
    serde_json::from_str(line).with_context(|| format!("seed {seed} says {line:?}"))
}

/// All that a child says, within [`SEED`].
fn output(child: &mut Child) -> anyhow::Result<(String, String)> {
    let (mut out, mut err) = match (child.stdout.take(), child.stderr.take()) {
        (Some(out), Some(err)) => (out, err),
        _ => bail!("the process of a seed has no output"),
    };
    let (sender, done) = sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut text, mut complaint) = (String::new(), String::new());
            // Little is written to either, so that neither blocks while the other is read.
            let read = out.read_to_string(&mut text).and(err.read_to_string(&mut complaint));
            drop(sender.send(read.map(|_| (text, complaint))));
        });
        match done.recv_timeout(SEED) {
            Ok(read) => read.context("could not read what the process of a seed says"),
            Err(_) => {
                child.kill().context("could not end the process of a seed")?;
                bail!("a seed stood still for {SEED:?}")
            }
        }
    })
}

/// The command line of a run.
pub fn arguments(settings: &Settings) -> Vec<String> {
    let Settings { seed, seconds, nodes, hosts, wire, faults, plant, trace } = settings;
    let mut arguments: Vec<String> = ["--ring", "b"].map(str::to_owned).into();
    let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    add("--seed", seed.to_string());
    let usual = Settings::of_seed(*seed);
    if *seconds != usual.seconds {
        add("--seconds", seconds.to_string());
    }
    if *nodes != usual.nodes {
        add("--nodes", nodes.to_string());
    }
    if *hosts != usual.hosts {
        add("--hosts", hosts.to_string());
    }
    if *wire != usual.wire {
        add("--wire", wire.as_str().to_owned());
    }
    if *faults != usual.faults {
        add("--faults", faults.to_string());
    }
    if let Some(plant) = plant {
        add("--plant", plant.to_string());
    }
    if let Some(trace) = trace {
        add("--trace", trace.display().to_string());
    }
    arguments
}

/// Two runs of one seed that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// The first line that differs, counted from 1.
    pub line: usize,
    /// What the first run has there.
    pub first: String,
    /// What the second has.
    pub second: String,
}

/// Runs a seed twice, in one process each, with all log lines in the trace; the first difference.
///
/// # Errors
/// Those of [`run_apart`], and of the files for the traces.
pub fn run_twice(program: &Path, settings: &Settings) -> anyhow::Result<(Report, Option<Leak>)> {
    let folder = tempfile::tempdir().context("no folder for two traces")?;
    let file = |name: &str| folder.path().join(format!("{}-{name}", settings.seed));
    let (one, other) = (file("first"), file("second"));
    let run = |trace: &PathBuf| {
        run_apart(program, &Settings { trace: Some(trace.clone()), ..settings.clone() })
    };
    let report = run(&one)?;
    run(&other)?;
    Ok((report, compare(&one, &other)?))
}

fn compare(one: &Path, other: &Path) -> anyhow::Result<Option<Leak>> {
    let lines = |path: &Path| {
        let file = File::open(path).with_context(|| format!("no trace in {}", path.display()));
        file.map(|file| BufReader::new(file).split(b'\n'))
    };
    let (mut ones, mut others) = (lines(one)?, lines(other)?);
    for line in 1.. {
        let (first, second) = (ones.next().transpose()?, others.next().transpose()?);
        if first.is_none() && second.is_none() {
            break;
        }
        if first != second {
            let text = |line: Option<Vec<u8>>| match line {
                Some(line) => String::from_utf8_lossy(&line).into_owned(),
                None => "(the end)".to_owned(),
            };
            return Ok(Some(Leak { line, first: text(first), second: text(second) }));
        }
    }
    Ok(None)
}

/// What came of one seed.
#[derive(Debug)]
pub struct Ran {
    /// The seed.
    pub seed: u64,
    /// Its report, or why there is none.
    pub report: anyhow::Result<Report>,
    /// Where two runs differed, if it was run twice.
    pub leak: Option<Leak>,
}

impl Ran {
    /// Whether anything is wrong.
    pub fn is_bad(&self) -> bool {
        let broken = |report: &Report| report.broken.is_some();
        self.leak.is_some() || self.report.as_ref().map_or(true, broken)
    }
}

/// How many seeds are run, and how.
#[derive(Clone, Copy, Debug)]
pub struct Many {
    /// The first seed.
    pub from: u64,
    /// Number of seeds.
    pub seeds: u64,
    /// Processes at a time.
    pub jobs: usize,
    /// Whether each is run twice and compared.
    pub twice: bool,
    /// Whether seeds go on after something was wrong.
    pub keep_going: bool,
}

/// Runs many seeds. Ends early after something was wrong, once all earlier seeds are done. `progress`
/// is told how many are done.
pub fn run_apart_many(
    program: &Path,
    settings: &Settings,
    many: Many,
    progress: impl Fn(u64) + Sync,
) -> Vec<Ran> {
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let stop_at = AtomicU64::new(many.seeds);
    let all = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..many.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= stop_at.load(Ordering::Relaxed) {
                        return;
                    }
                    let seed = many.from + number;
                    let settings = Settings { seed, ..settings.clone() };
                    let ran = one(program, &settings, many.twice);
                    if ran.is_bad() && !many.keep_going {
                        stop_at.fetch_min(number + 1, Ordering::Relaxed);
                    }
                    all.lock().unwrap_or_else(PoisonError::into_inner).push(ran);
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.sort_by_key(|ran| ran.seed);
    let first = all.iter().position(Ran::is_bad);
    if let Some(first) = first.filter(|_| !many.keep_going) {
        all.truncate(first + 1);
    }
    all
}

fn one(program: &Path, settings: &Settings, twice: bool) -> Ran {
    let seed = settings.seed;
    if !twice {
        return Ran { seed, report: run_apart(program, settings), leak: None };
    }
    match run_twice(program, settings) {
        Ok((report, leak)) => Ran { seed, report: Ok(report), leak },
        Err(error) => Ran { seed, report: Err(error), leak: None },
    }
}
