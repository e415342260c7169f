//! Ring B: a few seeds hold, equal seeds give equal traces, and planted bugs are caught.

use simulation::{
    Faults,
    ring_b::{Many, Plant, Ran, Settings, run_apart_many},
};
use std::path::Path;

fn run(settings: &Settings, many: Many) -> Vec<Ran> {
    run_apart_many(Path::new(env!("CARGO_BIN_EXE_muster-sim")), settings, many, |_| {})
}

const FEW: Many = Many { from: 0, seeds: 4, jobs: 2, twice: false, keep_going: true };

fn small() -> Settings {
    Settings { seconds: 10, hosts: 8, ..Settings::of_seed(0) }
}

#[test]
fn a_few_seeds_hold() {
    for ran in run(&small(), FEW) {
        let report = ran.report.unwrap();
        assert_eq!(report.broken, None, "seed {}", ran.seed);
        let figures = report.figures;
        assert!(figures.acknowledged > 20 && figures.faults > 3, "{figures}");
    }
}

#[test]
fn equal_seeds_give_equal_traces() {
    let twice = Many { seeds: 2, twice: true, ..FEW };
    let all = run(&Settings { seconds: 5, ..small() }, twice);
    for ran in &all {
        assert_eq!(ran.leak, None, "seed {}", ran.seed);
        assert!(ran.report.as_ref().unwrap().lines > 1_000, "something happened");
    }
    let traces: Vec<u64> = all.iter().map(|ran| ran.report.as_ref().unwrap().trace).collect();
    assert_ne!(traces[0], traces[1], "another seed, another world");
}

#[test]
fn planted_bugs_are_caught() {
    for plant in Plant::ALL {
        // Guards are needed where agents are away for long; other faults only get in the way of that.
        let faults = match plant {
            Plant::DeafGuards => Faults { hosts: true, ..Faults::NONE },
            Plant::StaleReads | Plant::OldDisks | Plant::LyingDisks => Faults::ALL,
        };
        let settings = Settings { plant: Some(plant), seconds: 60, faults, ..small() };
        let all = run(&settings, Many { seeds: 20, keep_going: false, ..FEW });
        let last = all.last().unwrap();
        let broken = last.report.as_ref().unwrap().broken.clone();
        assert!(broken.is_some(), "{plant} was not caught in 20 seeds");
    }
}
