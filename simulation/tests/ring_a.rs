//! Ring A: equal seeds give equal traces, seeds hold, planted bugs are caught, and the stories go as
//! they are told.

use simulation::{Plant, Settings, run_many, run_one, scenario};

#[test]
fn equal_seeds_give_equal_traces() {
    for seed in 0..4 {
        let settings = Settings { trace: true, steps: 400, ..Settings::of_seed(seed) };
        let (first, second) = (run_one(settings), run_one(settings));
        assert!(first.trace.len() > 10_000, "something happened");
        assert!(first.trace == second.trace, "seed {seed} has two traces");
        assert_eq!(first.stats, second.stats);
    }
    let other = Settings { trace: true, steps: 400, ..Settings::of_seed(9) };
    let settings = Settings { trace: true, steps: 400, ..Settings::of_seed(8) };
    assert!(run_one(other).trace != run_one(settings).trace, "another seed, another world");
}

#[test]
fn forty_seeds_hold() {
    let reports = run_many(Settings::of_seed(0), (0, 40), 2, |_| {});
    assert_eq!(reports.len(), 40);
    for report in &reports {
        assert_eq!(report.violation, None, "seed {}", report.seed);
    }
    let sum =
        |of: fn(&simulation::Stats) -> u64| reports.iter().map(|it| of(&it.stats)).sum::<u64>();
    assert!(sum(|it| it.evictions) > 50, "hosts were lost with jobs on them");
    assert!(sum(|it| it.starts) > 1_000 && sum(|it| it.acknowledged) > 1_000);
}

#[test]
fn planted_bugs_are_caught() {
    for plant in Plant::ALL {
        let settings = Settings { plant: Some(plant), ..Settings::of_seed(0) };
        let reports = run_many(settings, (0, 500), 2, |_| {});
        assert!(
            reports.last().is_some_and(|report| report.violation.is_some()),
            "{plant} was not caught in 500 seeds"
        );
    }
}

#[test]
fn s2_a_host_appears_and_what_selects_it_runs_there() {
    assert_eq!(scenario::s2_a_host_appears().err().map(|it| it.to_string()), None);
}

#[test]
fn s3_partitions_of_a_dead_host_run_elsewhere_once_and_stay_there() {
    let took = scenario::s3_a_host_dies().map_err(|it| it.to_string());
    assert!(took.as_ref().is_ok_and(|took| *took >= 20_000), "{took:?}");
}

#[test]
fn s7_a_host_without_a_link_goes_on_and_obeys_when_it_is_back() {
    assert_eq!(scenario::s7_a_link_is_down().err().map(|it| it.to_string()), None);
}

#[test]
fn a_rollout_that_stopped_keeps_no_host_that_is_deleted() {
    let told = scenario::a_stopped_rollout_keeps_no_host();
    assert_eq!(told.err().map(|it| it.to_string()), None);
}

#[test]
fn a_node_nobody_can_call_grants_no_lease() {
    let told = scenario::a_node_nobody_can_call_grants_no_lease(None);
    assert_eq!(told.err().map(|it| it.to_string()), None);
    let planted = Some(Plant::ConfirmLostNode);
    let told = scenario::a_node_nobody_can_call_grants_no_lease(planted);
    let caught = told.err().map(|it| it.to_string());
    assert!(caught.as_ref().is_some_and(|it| it.starts_with("exclusive")), "{caught:?}");
}
