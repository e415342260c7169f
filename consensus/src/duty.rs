//! What a node does for the cluster by itself, a few times a second.
//!
//! The leader says which nodes are in contact, raises the rules level when every node knows it, and
//! triggers snapshots and purges the log like everybody else. Each node confirms through the leader that it still
//! belongs to a majority, which bounds the leases it may grant. All of it is safe to repeat.
//!
//! Whether a node is alive is judged by its answers to heartbeats alone: one that asks the leader and
//! takes nothing from the log serves nobody. For leases its questions count as well (`leases`).

use crate::{Member, core::Core, entry, entry::Queued, forward, purge, queue::Rank, reads::Reads};
use model::{Caller, Command, Heartbeats, NodeId, State};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior};

/// Runs until it is aborted.
pub(crate) async fn run(core: Arc<Core>, reads: Reads) {
    let period = Duration::from_millis(core.config.duty_ms);
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut term = Term::default();
    loop {
        ticks.tick().await;
        snapshot(&core).await;
        purge::purge(&core).await;
        if let Some(since) = term.led_since(&core) {
            for command in leader_commands(&core, since) {
                propose(&core, &reads, command).await;
            }
        }
        confirm_quorum(&core, &reads).await;
    }
}

/// The term that this node leads, and since when, as far as it was looked at.
#[derive(Default)]
pub(crate) struct Term(Option<(u64, Instant)>);

impl Term {
    /// Since when this node leads; `None` if it does not.
    pub(crate) fn led_since(&mut self, core: &Core) -> Option<Instant> {
        let leadership = *core.leadership.borrow();
        self.0 = leadership.is_leader.then(|| match self.0 {
            Some((term, since)) if term == leadership.term => (term, since),
            Some(_) | None => (leadership.term, Instant::now()),
        });
        self.0.map(|(_, since)| since)
    }
}

async fn snapshot(core: &Core) {
    if core.need_agreement().is_err() {
        // A snapshot of a wrong state would take the place of the log that settles it.
        return;
    }
    let entries = core.shared.entries_since.load(Ordering::Relaxed);
    let bytes = core.shared.bytes_since.load(Ordering::Relaxed);
    let due =
        entries >= core.config.snapshot_every_entries || bytes >= core.config.snapshot_every_bytes;
    if due && let Err(error) = core.raft.trigger().snapshot().await {
        tracing::debug!(%error, "raft makes no snapshot");
    }
}

async fn confirm_quorum(core: &Core, reads: &Reads) {
    let asked = Instant::now();
    let deadline = asked + Duration::from_millis(core.config.duty_ms);
    let confirmed = match reads.confirmed(deadline).await {
        // What is committed may take longer to get here than the answer.
        Ok(confirmed) => {
            let until = asked + Duration::from_millis(core.config.forward_ms);
            core.catch_up(confirmed, until).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = confirmed {
        tracing::debug!(%error, "no majority confirmed the leader, or this node is behind");
    }
}

/// What the leader would have the log say now.
fn leader_commands(core: &Core, since: Instant) -> Vec<Command> {
    let heartbeats = heartbeats(core, since);
    let lost_after = Duration::from_millis(core.config.node_lost_ms);
    let members = core.members();
    core.shared.published.read(|state| {
        let mut commands = Vec::new();
        for (id, node) in state.nodes.iter() {
            let alive = match *id == core.node_id {
                true => Some(true),
                false => heartbeats.get(id).and_then(|it| it.alive(lost_after)),
            };
            if let Some(alive) = alive.filter(|alive| *alive != node.alive) {
                commands.push(Command::MarkNode { id: *id, alive });
            }
        }
        if let Some(level) = rules_to_raise(core, state, &members) {
            commands.push(Command::RaiseRules { level });
        }
        commands
    })
}

/// The level to raise to: the newest one that every member said it knows, learners too.
fn rules_to_raise(core: &Core, state: &State, members: &[Member]) -> Option<u32> {
    let known = |id: &NodeId| state.nodes.get(id).map_or(0, |node| node.rules_max);
    let members = members.iter().map(|member| known(&member.id));
    let level = members.chain(state.nodes.iter().map(|(_, node)| node.rules_max)).min()?;
    let level = level.min(core.config.rules_max);
    (core.config.raise_rules && level > entry::rules_in_force(state)).then_some(level)
}

/// What the leader knows of the others since it leads.
pub(crate) fn heartbeats(core: &Core, since: Instant) -> BTreeMap<NodeId, Heartbeats> {
    let (led, now) = (since.elapsed(), Instant::now());
    let heard = core.metrics().heartbeat.unwrap_or_default();
    heard
        .into_iter()
        .map(|(id, at)| {
            let age = at.map(|at| crate::core::age(&at));
            if let Some(at) = age.and_then(|age| now.checked_sub(age)) {
                core.leases.note_exchange(NodeId(id), at);
            }
            let silence = age.map_or(led, |age| age.min(led));
            (NodeId(id), Heartbeats { silence, heard: age.is_some() })
        })
        .collect()
}

/// Has the log say something; whether it does now.
pub(crate) async fn propose(core: &Core, reads: &Reads, command: Command) -> bool {
    let named = format!("{command:?}");
    let queued = Queued { caller: Caller::System, request_id: None, command };
    let Ok(blob) = entry::encode(&queued) else { return false };
    let deadline = core.try_until(Instant::now() + Duration::from_millis(core.config.propose_ms));
    let asked = forward::Asked { blob, rank: Rank::House, has_request_id: false };
    let noted = forward::propose(core, (&core.queue, reads), &asked, deadline).await;
    match &noted {
        Ok(outcome) => tracing::info!(command = named, ?outcome, "the leader noted a change"),
        Err(error) => {
            tracing::debug!(command = named, %error, "the leader could not note a change")
        }
    }
    noted.is_ok()
}
