//! What a node does for the cluster by itself, a few times a second.
//!
//! The leader says which nodes are in contact, raises the rules level when every node knows it, and
//! triggers snapshots like everybody else. A follower confirms through the leader that it still
//! belongs to a majority, which bounds the leases it may grant. All of it is safe to repeat.

use crate::{core::Core, entry, entry::Queued, forward, queue::Queue, reads::Reads};
use model::{Caller, Command, NodeId};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior};

/// Runs until it is aborted.
pub(crate) async fn run(core: Arc<Core>, queue: Queue, reads: Reads) {
    let period = Duration::from_millis(core.config.duty_ms);
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut led_since: Option<(u64, Instant)> = None;
    loop {
        ticks.tick().await;
        snapshot(&core).await;
        let leadership = *core.leadership.borrow();
        if !leadership.is_leader {
            led_since = None;
            confirm_quorum(&core, &reads).await;
            continue;
        }
        let since = match led_since {
            Some((term, since)) if term == leadership.term => since,
            Some(_) | None => Instant::now(),
        };
        led_since = Some((leadership.term, since));
        for command in leader_commands(&core, since) {
            propose(&core, &queue, command).await;
        }
    }
}

async fn snapshot(core: &Core) {
    let entries = core.shared.entries_since.load(Ordering::Relaxed);
    let bytes = core.shared.bytes_since.load(Ordering::Relaxed);
    let due =
        entries >= core.config.snapshot_every_entries || bytes >= core.config.snapshot_every_bytes;
    if due && let Err(error) = core.raft.trigger().snapshot().await {
        tracing::debug!(%error, "raft makes no snapshot");
    }
}

async fn confirm_quorum(core: &Core, reads: &Reads) {
    let deadline = Instant::now() + Duration::from_millis(core.config.duty_ms);
    // What it learns is noted where the answer arrives.
    if let Err(error) = reads.index(deadline).await {
        tracing::debug!(%error, "no majority confirmed the leader");
    }
}

/// What the leader would have the log say now.
fn leader_commands(core: &Core, since: Instant) -> Vec<Command> {
    let contact = contact_ages(core, since);
    let lost = Duration::from_millis(core.config.node_lost_ms);
    core.shared.published.read(|state| {
        let mut commands = Vec::new();
        for (id, node) in state.nodes.iter() {
            let in_contact =
                *id == core.node_id || contact.get(id).is_some_and(|contact| contact.age < lost);
            let known = *id == core.node_id
                || contact.get(id).is_some_and(|contact| contact.heard || contact.age >= lost);
            if known && node.alive != in_contact {
                commands.push(Command::MarkNode { id: *id, alive: in_contact });
            }
        }
        let level = state.nodes.iter().map(|(_, node)| node.rules_max).min();
        match level.map(|level| level.min(model::RULES_MAX)) {
            Some(level) if level > entry::rules_in_force(state) => {
                commands.push(Command::RaiseRules { level });
            }
            Some(_) | None => {}
        }
        commands
    })
}

struct Contact {
    /// Since the last answer, or since this node leads.
    age: Duration,
    /// Whether there was an answer at all.
    heard: bool,
}

fn contact_ages(core: &Core, since: Instant) -> BTreeMap<NodeId, Contact> {
    let led = since.elapsed();
    let heard = core.metrics().heartbeat.unwrap_or_default();
    heard
        .into_iter()
        .map(|(id, at)| {
            let contact = match at {
                Some(at) => Contact { age: crate::core::age(&at).min(led), heard: true },
                None => Contact { age: led, heard: false },
            };
            (NodeId(id), contact)
        })
        .collect()
}

async fn propose(core: &Core, queue: &Queue, command: Command) {
    let named = format!("{command:?}");
    let queued = Queued { caller: Caller::System, request_id: None, command };
    let Ok(blob) = entry::encode(&queued) else { return };
    let deadline = core.try_until(Instant::now() + Duration::from_millis(core.config.propose_ms));
    match forward::propose(core, queue, blob, false, deadline).await {
        Ok(outcome) => tracing::info!(command = named, ?outcome, "the leader noted a change"),
        Err(error) => {
            tracing::debug!(command = named, %error, "the leader could not note a change")
        }
    }
}
