//! Planted bugs that are too long to stand where they act.

use model::{Command, Event as Happened, Stamp, State};

/// The planted bug: what was refused for want of room is done all the same.
pub(crate) fn over_commit(state: &mut State, stamp: &Stamp, command: &Command) {
    let Command::AssignJobs { items } = command else { return };
    for item in items {
        let Some(job) = state.jobs.get(&item.key) else { continue };
        let usage = state.usage(&item.key.tenant, &item.host);
        let refused = model::feasible(state, &item.key, &job.workload, &item.host, usage).is_err();
        if refused && job.placements.is_empty() {
            let context = model::Context {
                revision: state.globals.revision,
                time: state.globals.time,
                rules: stamp.rules,
                caller: stamp.caller.clone(),
                request_id: None,
            };
            let (key, host) = (item.key.clone(), item.host.clone());
            model::evolve(state, &context, &Happened::JobAssigned { key, host });
        }
    }
    let rows: Vec<_> = state.rows().collect();
    *state = State::load(state.globals.clone(), rows.into_iter());
}
