//! `cargo sim -- --ring b`: a sweep over seeds of the whole house.

use crate::Arguments;
use anyhow::Context as _;
use simulation::{
    Faults,
    ring_b::{self, Figures, Many, Plant, Ran, Report, Settings, arguments},
};
use std::io::IsTerminal as _;

/// Seeds of a sweep.
const SEEDS: u64 = 200;

/// Runs what is asked, says what came of it, and ends with exit code 1 if anything was wrong.
pub(crate) fn run(asked: &Arguments, faults: Faults) -> anyhow::Result<()> {
    let plant = asked.plant.as_deref().map(str::parse::<Plant>).transpose();
    let usual = Settings::of_seed(asked.seed.unwrap_or(asked.from));
    let settings = Settings {
        seconds: asked.seconds.unwrap_or(usual.seconds),
        nodes: asked.nodes,
        wire: asked.wire.parse().map_err(anyhow::Error::msg)?,
        hosts: asked.hosts.unwrap_or(usual.hosts),
        faults,
        plant: plant.map_err(anyhow::Error::msg)?,
        trace: asked.trace.clone(),
        ..usual
    };
    if asked.here {
        let report = ring_b::run_here(settings).context("this seed did not run")?;
        println!("{}", serde_json::to_string(&report).context("could not encode the report")?);
        return Ok(());
    }
    let program = std::env::current_exe().context("where is this program?")?;
    #[expect(clippy::disallowed_methods, reason = "how fast the simulation is, not what it does")]
    let began = std::time::Instant::now();
    let seeds = if asked.seed.is_some() { 1 } else { asked.seeds.unwrap_or(SEEDS) };
    let many = Many {
        from: settings.seed,
        seeds,
        jobs: asked.threads(),
        twice: asked.twice,
        keep_going: asked.keep_going,
    };
    let every = if std::io::stderr().is_terminal() { 5 } else { 50 };
    let progress = |done: u64| {
        if done.is_multiple_of(every) && done < seeds {
            eprintln!("{done} of {seeds} seeds");
        }
    };
    let all = ring_b::run_apart_many(&program, &settings, many, progress);
    let seconds = began.elapsed().as_secs_f64();
    if let Some(path) = &asked.json {
        let reports: Vec<&Report> = all.iter().filter_map(|ran| ran.report.as_ref().ok()).collect();
        let text = serde_json::to_vec_pretty(&reports).context("could not encode the results")?;
        std::fs::write(path, text).context("could not write the results")?;
    }
    conclude(asked, &settings, &all, seconds);
    Ok(())
}

fn conclude(asked: &Arguments, settings: &Settings, all: &[Ran], seconds: f64) {
    let (mut sum, mut world_ms) = (Figures::default(), 0);
    for report in all.iter().filter_map(|ran| ran.report.as_ref().ok()) {
        sum.add(&report.figures);
        world_ms += report.world_ms;
    }
    println!("{sum}");
    let bad: Vec<&Ran> = all.iter().filter(|ran| ran.is_bad()).collect();
    for ran in &bad {
        show(settings, ran, asked.twice);
    }
    let seconds = seconds.max(0.001);
    let twice = if asked.twice { ", each twice" } else { "" };
    println!(
        "ring b: seeds {}{twice}, violations {}, seeds/minute {:.0}, simulated seconds per second {:.0}",
        all.len(),
        bad.len(),
        all.len() as f64 * 60.0 / seconds,
        world_ms as f64 / 1_000.0 / seconds,
    );
    if !bad.is_empty() {
        std::process::exit(1);
    }
}

/// What is wrong with a seed, and how to see it again.
fn show(settings: &Settings, ran: &Ran, twice: bool) {
    match &ran.report {
        Ok(Report { broken: Some(broken), .. }) => {
            println!("violation of {} at {} ms: {}", broken.oracle, broken.at_ms, broken.detail);
        }
        Ok(_) => {}
        Err(error) => println!("seed {} has no report: {error:#}", ran.seed),
    }
    if let Some(leak) = &ran.leak {
        println!("seed {} has two traces, which differ from line {} on:", ran.seed, leak.line);
        println!("  first  {}\n  second {}", leak.first, leak.second);
    }
    let settings = Settings { seed: ran.seed, trace: None, ..settings.clone() };
    let more = if twice { "--twice" } else { "--trace f" };
    println!("REPRODUCE: cargo sim -- {} {more}", arguments(&settings).join(" "));
}
