//! Looks after the membership: what was left half done is ended, who was removed stops, and who has been
//! lost for too long is let go.
//!
//! A node leaves in steps: it loses its vote, the state notes that it was removed, Raft lets it go. Any of
//! them may be the last before a leader dies; so the next one goes on from what is so. `duty` must not
//! wait for any of this, so it has a task of its own.

use crate::{
    MemberChange, StopReason,
    core::Core,
    duty::{self, Term},
    reads::Reads,
};
use model::{Command, NodeId};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior};

/// Runs until it is aborted, or this node was removed.
pub(crate) async fn run(core: Arc<Core>, reads: Reads) {
    let period = Duration::from_millis(core.config.duty_ms);
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut removed = core.removed.subscribe();
    let mut term = Term::default();
    let mut seen = Seen::default();
    loop {
        let told = tokio::select! {
            biased;
            Ok(_) = removed.wait_for(|removed| *removed) => true,
            _ = ticks.tick() => false,
        };
        let noted = core.shared.published.read(|state| state.was_removed(core.node_id));
        // While Raft counts on its vote it stays, whatever the state says: the others may need it to
        // take that vote.
        if told || (noted && !core.voters().contains(&core.node_id)) {
            tracing::error!(node = core.node_id.0, "this node was removed from its cluster");
            return core.stop(StopReason::Removed { node: core.node_id });
        }
        if noted && core.leadership.borrow().is_leader {
            // Who leads next takes it.
            drop(core.hand_over(None).await);
            continue;
        }
        if let Some(since) = term.led_since(&core) {
            end_what_was_begun(&core).await;
            if core.config.dead_node_cleanup_ms > 0 {
                seen.look(&core);
                let_the_dead_go(&core, &reads, (since, &seen)).await;
            }
        }
    }
}

/// Raft lets go whom the state says was removed, and a change of voters is not left half done.
async fn end_what_was_begun(core: &Core) {
    let deadline = || Instant::now() + Duration::from_millis(core.config.propose_ms);
    if let Ok(Err(error)) = tokio::time::timeout_at(deadline(), core.end_joint()).await {
        tracing::debug!(%error, "a change of voters could not be ended");
    }
    let members = core.members();
    let removed = |id: NodeId| core.shared.published.read(|state| state.was_removed(id));
    for member in members.iter().filter(|member| removed(member.id)) {
        remove(core, member.id, deadline()).await;
    }
}

async fn remove(core: &Core, id: NodeId, deadline: Instant) {
    if let Err(error) = core.change_members(MemberChange::Remove { id }, deadline).await {
        tracing::debug!(node = id.0, %error, "raft could not let a node go");
    }
}

/// Since when each member has been one, as far as was looked: who has just come has been silent no longer
/// than that, however long this node has led.
#[derive(Default)]
struct Seen(BTreeMap<NodeId, Instant>);

impl Seen {
    fn look(&mut self, core: &Core) {
        let now = Instant::now();
        let members: BTreeSet<NodeId> = core.members().iter().map(|member| member.id).collect();
        self.0.retain(|id, _| members.contains(id));
        for id in members {
            self.0.entry(id).or_insert(now);
        }
    }

    fn age(&self, id: NodeId) -> Duration {
        self.0.get(&id).map_or(Duration::ZERO, Instant::elapsed)
    }
}

/// One member that was lost for long enough goes, if as many voters remain as shall, and of those a
/// majority is in contact.
async fn let_the_dead_go(core: &Core, reads: &Reads, (since, seen): (Instant, &Seen)) {
    let after = Duration::from_millis(core.config.dead_node_cleanup_ms);
    let heartbeats = duty::heartbeats(core, since);
    let silent = |id: NodeId| {
        let silence = heartbeats.get(&id).map_or(Duration::ZERO, |it| it.silence);
        silence.min(seen.age(id)) >= after
    };
    let voters = core.voters();
    let may_go = |id: NodeId| {
        !voters.contains(&id) || voters.len().saturating_sub(1) as u64 >= core.config.min_voters
    };
    let members = core.members();
    let dead = members.iter().map(|member| member.id).find(|id| silent(*id) && may_go(*id));
    let Some(id) = dead else { return };
    let deadline = Instant::now() + Duration::from_millis(core.config.propose_ms);
    let demote = MemberChange::Demote { id, force: false };
    if let Err(error) = core.change_members(demote, deadline).await {
        return tracing::debug!(node = id.0, %error, "a lost node keeps its vote");
    }
    tracing::warn!(node = id.0, ?after, "a node was lost for too long and is removed");
    if duty::propose(core, reads, Command::RemoveNode { id }).await {
        remove(core, id, deadline).await;
    }
}
