//! Telling the others what this node's state is, and acting on the verdict of the `jury`.
//!
//! A few times a second every node gives its open ballots to the leader and gets those of all, so that
//! each judges for itself; a new leader knows what the old one knew. Who turns out to be odd leaves a
//! note with the verdict and the hash of each of its rows, and ends; the others write down theirs.

use crate::{
    Method, StopReason,
    core::Core,
    jury::{Applied, BALLOTS_MAX, Ballot, Verdict},
    rows, snapshot,
    wire::{ForwardAnswer, ForwardRequest},
};
use model::{NodeId, State};
use std::{collections::BTreeSet, fmt::Write as _, path::PathBuf, sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior};

/// Runs until it is aborted, or this node is odd.
pub(crate) async fn run(core: Arc<Core>) {
    let period = Duration::from_millis(core.config.duty_ms);
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut written = None;
    loop {
        ticks.tick().await;
        vote(&core);
        exchange(&core, Instant::now() + period).await;
        let verdict = core.judge();
        write_rows(&core, &mut written).await;
        if let Some(verdict) = verdict {
            return halt(&core, verdict).await;
        }
    }
}

impl Core {
    /// Counts what is known. Answers if this node is odd.
    fn judge(&self) -> Option<Verdict> {
        let voters = self.members().into_iter().filter(|member| member.voter);
        let voters: BTreeSet<NodeId> = voters.map(|member| member.id).collect();
        self.shared.jury(|jury| {
            let before = jury.is_disputed();
            let verdict = jury.judge(&voters);
            match (before, jury.is_disputed()) {
                (false, true) => tracing::error!(
                    "control nodes differ in their state: no write is taken until a majority agrees"
                ),
                (true, false) => tracing::warn!("a majority of the control nodes agrees again"),
                (false, false) | (true, true) => {}
            }
            verdict
        })
    }

    /// On the leader: takes note of a node's ballots. Answers those of all.
    pub(crate) fn count(&self, node: NodeId, mut ballots: Vec<Ballot>) -> Vec<(NodeId, Ballot)> {
        ballots.truncate(BALLOTS_MAX);
        self.shared.jury(|jury| jury.take(node, ballots.iter().copied()));
        // This node's own verdict is acted on at its next round.
        let _ = self.judge();
        self.shared.jury(|jury| jury.of_all(&ballots))
    }
}

/// Votes on the state there is now, while that helps to settle a dispute.
fn vote(core: &Core) {
    let Some(newest) = core.shared.jury(|jury| jury.open_vote()) else { return };
    let is_it =
        |state: &State| state.globals.applied_index == newest.index && state.hash() == newest.hash;
    let fork = core.shared.published.read(|state| is_it(state).then(|| state.clone()));
    core.shared.jury(|jury| jury.vote(newest, fork));
}

async fn exchange(core: &Core, deadline: Instant) {
    let Some(leader) = core.leader().filter(|(id, _)| *id != core.node_id) else { return };
    let (node, ballots) = (core.node_id, core.shared.jury(|jury| jury.own()));
    let request = |_deadline_ms| ForwardRequest::Ballots { node, ballots };
    let answer = core.ask(leader, Method::Linearize, request, deadline).await;
    let Ok(ForwardAnswer::Ballots(all)) = answer else { return };
    core.shared.jury(|jury| jury.hear(all));
}

/// Once for an index at which another node differs: the hash of each row here.
async fn write_rows(core: &Core, written: &mut Option<u64>) {
    let Some((index, state)) = core.shared.jury(|jury| jury.compared()) else { return };
    if *written == Some(index) {
        return;
    }
    *written = Some(index);
    if let Some(path) = write_rows_of(core, index, &state).await {
        let path = path.display();
        tracing::error!(index, %path, "another control node differs: wrote down the hash of each row");
    }
}

async fn write_rows_of(core: &Core, index: u64, state: &State) -> Option<PathBuf> {
    let at = Applied { index, revision: state.globals.revision, hash: state.hash() };
    let text = rows::text(core.node_id, at, state).await;
    let noted = core.shared.snapshots.note(snapshot::ROWS, text).await;
    noted.inspect_err(|fault| tracing::error!(%fault, "could not write the hashes of rows")).ok()
}

/// This node is odd: it ends, and the next start rebuilds its state.
async fn halt(core: &Core, verdict: Verdict) {
    let Verdict { index, own, agreed, ballots } = verdict;
    let mut text = format!(
        "at log index {index} the state hash here is {own:032x}, a majority has {agreed:032x}\n"
    );
    for (node, hash) in ballots {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "node {node}: {hash:032x}");
    }
    tracing::error!(index, "this node's state is not that of the majority: {text}");
    let fork = core.shared.jury(|jury| jury.compared()).filter(|(at, _)| *at == index);
    let rows = match fork {
        // Written already, or about to be in vain.
        Some((_, state)) => write_rows_of(core, index, &state).await,
        None => {
            let state = core.shared.published.read(State::clone);
            write_rows_of(core, state.globals.applied_index, &state).await
        }
    };
    if let Err(fault) = core.shared.snapshots.note(snapshot::DIVERGENCE_NOTE, text).await {
        tracing::error!(%fault, "could not write the note about it");
    }
    core.stop(StopReason::Diverged { index, rows: rows.unwrap_or_default() });
    if let Err(error) = core.raft.shutdown().await {
        tracing::warn!(%error, "raft did not end well");
    }
}
