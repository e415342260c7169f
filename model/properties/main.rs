//! Properties of the domain under random commands, sensible ones and garbage.
//!
//! A case is a list of dice. Each throw is turned into a command with the state in view, so that most
//! of them get somewhere; shrinking leaves out throws.

#![expect(clippy::unwrap_used, reason = "a case that cannot be built is a failed test")]

mod heal;
mod throw;

use model::{
    Applied, Change, Command, Context, Event, Globals, Key, Row, Stamp, State, Timestamp, decide,
    evolve, invariants,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use throw::{Dice, Throw};

/// A start at which things happen soon: one tenant with hosts, a cluster, packages.
fn stage() -> (State, Vec<(Stamp, Command)>) {
    let mut state = State::default();
    let script = throw::stage();
    for (stamp, command) in &script {
        let applied = state.apply(stamp, command);
        assert!(applied.outcome.result.is_ok(), "{command:?}: {:?}", applied.outcome);
    }
    (state, script)
}

fn throws(max: usize) -> impl Strategy<Value = Vec<Dice>> {
    proptest::collection::vec(any::<Dice>(), 1..max)
}

/// All rows of a state, without remembered answers.
fn rows(state: &State) -> BTreeMap<Key, Row> {
    state.rows().filter(|(key, _)| !matches!(key, Key::Request(_))).collect()
}

fn context(before: &State, stamp: &Stamp) -> Context {
    Context {
        revision: before.globals.revision.next(),
        time: stamp.time.max(before.globals.time),
        rules: stamp.rules,
        caller: stamp.caller.clone(),
        request_id: stamp.request_id.clone(),
    }
}

/// What must hold of one step.
fn check_step(before: &State, after: &State, stamp: &Stamp, command: &Command, applied: &Applied) {
    let violations = invariants::check(after);
    assert!(violations.is_empty(), "{command:?}\n{violations:#?}");
    assert_eq!(after.globals.revision, before.globals.revision.next());
    let (was, is) = (rows(before), rows(after));
    if applied.outcome.result.is_err() {
        assert!(applied.events.is_empty(), "a refusal has no events");
        assert_eq!(was, is, "a refused command changed rows: {command:?}");
    }
    if applied.events.is_empty() {
        assert_eq!(was, is, "rows changed without an event: {command:?}");
    }
    check_changes(was, &is, &applied.changes);
    check_evolve(before, after, stamp, command, applied);
}

/// The changes are exactly the difference, in key order, with what was before.
fn check_changes(mut rows: BTreeMap<Key, Row>, is: &BTreeMap<Key, Row>, changes: &[Change]) {
    assert!(changes.is_sorted_by(|a, b| a.key < b.key), "changes come in key order");
    for Change { key, before, after } in changes {
        if matches!(key, Key::Request(_)) {
            continue;
        }
        assert_ne!(before, after, "a change that is none");
        let was = match after {
            Some(row) => rows.insert(key.clone(), row.clone()),
            None => rows.remove(key),
        };
        assert_eq!(was, *before, "the row before the change");
    }
    assert_eq!(&rows, is, "the rows after the changes");
}

/// `decide` alone says the same events, and `evolve` alone makes the same state of them.
fn check_evolve(
    before: &State,
    after: &State,
    stamp: &Stamp,
    command: &Command,
    applied: &Applied,
) {
    let repeat = stamp.request_id.as_ref().is_some_and(|id| before.requests.contains(id));
    let expired = applied.outcome.result.as_ref().is_err_and(|it| it.code == "REQUEST_EXPIRED");
    if repeat || expired {
        return;
    }
    let context = context(before, stamp);
    let mut at_time = before.clone();
    at_time.globals.time = context.time;
    at_time.globals.revision = context.revision;
    let events: Vec<Event> = decide(&at_time, &context, command).unwrap_or_default();
    assert_eq!(events, applied.events, "decide and apply differ on {command:?}");
    for event in &events {
        evolve(&mut at_time, &context, event);
    }
    assert_eq!(rows(&at_time), rows(after), "evolve and apply differ on {command:?}");
}

/// Plays throws; gives the end and the log. Now and then control and agents get a round undisturbed.
fn play(dice: &[Dice], checked: bool) -> (State, Vec<(Stamp, Command)>) {
    let (mut state, mut log) = stage();
    let mut time = state.globals.time;
    let mut take = |state: &mut State, stamp: Stamp, command: Command| {
        let before = state.clone();
        let applied = state.apply(&stamp, &command);
        if checked {
            check_step(&before, state, &stamp, &command, &applied);
        }
        log.push((stamp, command));
        applied.events.len()
    };
    for dice in dice {
        if dice[0] % 7 == 0 {
            time = time.plus_ms(u64::from(dice[1] % 12_000));
            heal::heal(&mut state, time, &mut take);
        } else {
            let Throw { stamp, command } = throw::throw(&state, &mut time, *dice);
            take(&mut state, stamp, command);
        }
    }
    (state, log)
}

/// Applies a command that is not looked at.
fn apply(state: &mut State, stamp: Stamp, command: Command) -> usize {
    state.apply(&stamp, &command).events.len()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_step_keeps_the_invariants_and_says_what_it_changed(dice in throws(120)) {
        play(&dice, true);
    }

    #[test]
    fn a_replay_of_the_log_gives_the_same_state_and_hash(dice in throws(150)) {
        let (state, log) = play(&dice, false);
        let mut again = State::default();
        for (stamp, command) in &log {
            again.apply(stamp, command);
        }
        prop_assert_eq!(again.hash(), state.hash());
        prop_assert_eq!(rows(&again), rows(&state));
    }

    #[test]
    fn a_state_loaded_from_its_rows_has_the_same_hash_and_goes_on_alike(
        dice in throws(100),
        more in throws(30),
    ) {
        let (mut state, _) = play(&dice, false);
        let globals: Globals = state.globals.clone();
        let mut loaded = State::load(globals, state.rows());
        prop_assert_eq!(loaded.hash(), state.hash());
        let mut time = state.globals.time;
        for dice in &more {
            let Throw { stamp, command } = throw::throw(&state, &mut time, *dice);
            prop_assert_eq!(loaded.apply(&stamp, &command), state.apply(&stamp, &command));
        }
        prop_assert_eq!(loaded.hash(), state.hash());
    }

    #[test]
    fn left_alone_everything_comes_to_rest(dice in throws(120)) {
        let (mut state, _) = play(&dice, false);
        let mut time = state.globals.time;
        for round in 0.. {
            time = time.plus_ms(10_000);
            let events = heal::heal(&mut state, time, &mut apply);
            prop_assert!(invariants::check(&state).is_empty());
            if events == 0 && heal::is_at_rest(&state) {
                break;
            }
            prop_assert!(round < 200, "still {events} events after {round} rounds");
        }
        let rested = rows(&state);
        let events = heal::heal(&mut state, time.plus_ms(10_000), &mut apply);
        prop_assert_eq!(events, 0, "rest is not lasting");
        prop_assert_eq!(rested, rows(&state));
    }
}

#[test]
fn a_repeat_is_answered_as_before_and_changes_nothing() {
    let (mut state, _) = stage();
    let mut time = state.globals.time;
    for seed in 0..400_u32 {
        let dice = [seed.wrapping_mul(2_654_435_761), seed, seed >> 3, seed ^ 7, 11, seed % 13];
        let Throw { mut stamp, command } = throw::throw(&state, &mut time, dice);
        let unique = u128::from(seed) + 1_000_000;
        stamp.request_id = Some(model::RequestId { at: stamp.time, unique });
        let first = state.apply(&stamp, &command);
        let was = rows(&state);
        let second = state.apply(&stamp, &command);
        if first.outcome.result.as_ref().is_err_and(|it| it.code == "REQUEST_EXPIRED") {
            continue;
        }
        assert_eq!(second.outcome, first.outcome);
        assert!(second.events.is_empty() && second.changes.is_empty());
        assert_eq!(rows(&state), was);
    }
    assert!(state.globals.time > Timestamp(0));
}

/// The properties say something only about what the dice reach.
#[test]
fn the_dice_reach_every_kind_of_event() {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut refused: BTreeMap<String, u32> = BTreeMap::new();
    let mut seed = 1_u32;
    let mut die = || {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        seed
    };
    for _ in 0..200 {
        let dice: Vec<Dice> = (0..120).map(|_| std::array::from_fn(|_| die())).collect();
        let (_, log) = play(&dice, false);
        let mut state = State::default();
        for (stamp, command) in &log {
            let applied = state.apply(stamp, command);
            for event in &applied.events {
                let text = format!("{event:?}");
                let kind = text.split(' ').next().unwrap();
                *seen.entry(kind.to_owned()).or_default() += 1;
            }
            let items = match &applied.outcome.result {
                Ok(model::Reply::Items(items)) => items.clone(),
                Ok(_) => Vec::new(),
                Err(rejection) => vec![Err(rejection.clone())],
            };
            for rejection in items.into_iter().filter_map(Result::err) {
                *refused.entry(rejection.code).or_default() += 1;
            }
        }
    }
    println!("{seen:#?}\n{refused:#?}");
    assert!(seen.len() >= 46, "only {} kinds of events: {seen:#?}", seen.len());
    assert!(refused.len() >= 30, "only {} codes: {refused:#?}", refused.len());
    for kind in ["JobStalled", "HostGraceEnded", "TenantRemoved", "PlacementRetired"] {
        assert!(seen.contains_key(kind), "{kind} is never reached");
    }
}
