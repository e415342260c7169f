//! Who belongs to the cluster: the first node, one more, one less.
//!
//! A node comes in as a learner, catches up, and only then votes; it goes by losing its vote first. One
//! change at a time, each safe to repeat. A node that lost its log comes back under a new id, never
//! under its old one, and one that was removed does not come back at all.
//!
//! What could cost the cluster its majority is refused before anything is done: see [`MemberRefusal`].

use crate::{
    Error, MemberRefusal, Method, Peer,
    core::{Core, ForwardError, write_error},
    forward::Backoff,
    wire::{ForwardAnswer, ForwardRequest},
};
use model::NodeId;
use openraft::{
    ChangeMembers,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

/// A member that the leader has not heard for so many of its leases is not counted on.
const SILENT_LEASES: u32 = 5;

/// A node as Raft knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Where it is.
    pub peer: Peer,
    /// Whether it votes; if not, it learns.
    pub voter: bool,
}

/// A change of the members, one node at a time. Appended only: nodes send it to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberChange {
    /// Take a node in: as a learner, and as a voter once it has caught up.
    Add {
        /// Its id.
        id: NodeId,
        /// Where it is.
        peer: Peer,
    },
    /// Let a node go: its vote, if it has one, then all of it.
    Remove {
        /// Its id.
        id: NodeId,
    },
    /// Take a node in as a learner; one that votes goes on voting.
    Learn {
        /// Its id.
        id: NodeId,
        /// Where it is.
        peer: Peer,
    },
    /// Let a learner vote. Refused unless it is in contact and has caught up.
    Promote {
        /// Its id.
        id: NodeId,
    },
    /// Take a node's vote. The leader hands over first.
    Demote {
        /// Its id.
        id: NodeId,
        /// Even if the voters that remain have no majority in contact.
        force: bool,
    },
    /// Let another node lead.
    Transfer {
        /// Who led when this was asked for: when another one leads by now, it is done.
        from: NodeId,
        /// The next leader; the one that holds the most, if none is named.
        to: Option<NodeId>,
    },
}

/// Carries out a change through whichever node leads, until the deadline. A refusal comes at once.
pub(crate) async fn change(
    core: &Core,
    change: MemberChange,
    deadline: Instant,
) -> Result<(), Error> {
    let mut backoff = Backoff::new(&core.config);
    loop {
        let failed = match core.leader() {
            None => Error::NotLeader { hint: None },
            Some((id, _)) if id == core.node_id => {
                match core.change_members(change.clone(), deadline).await {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                }
            }
            Some(leader) => {
                let change = change.clone();
                let request = |deadline_ms| ForwardRequest::ChangeMembers { change, deadline_ms };
                match core.ask(leader, Method::Propose, request, deadline).await {
                    Ok(ForwardAnswer::Changed) => return Ok(()),
                    Ok(ForwardAnswer::Failed(error)) => error,
                    Ok(
                        ForwardAnswer::Outcome(_)
                        | ForwardAnswer::Index { .. }
                        | ForwardAnswer::Ballots(_),
                    )
                    | Err(ForwardError::Lost) => Error::Unknown,
                    Err(ForwardError::NotSent) => Error::NotLeader { hint: None },
                }
            }
        };
        let refused = matches!(failed, Error::Members(_));
        if core.is_stopped() && !refused {
            return Err(Error::Stopped);
        }
        if refused || Instant::now() >= deadline {
            return Err(failed);
        }
        backoff.wait(core, deadline).await;
    }
}

impl Core {
    pub(crate) fn members(&self) -> Vec<Member> {
        let membership = self.metrics().membership_config;
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        membership
            .nodes()
            .map(|(id, peer)| Member {
                id: NodeId(*id),
                peer: peer.clone(),
                voter: voters.contains(id),
            })
            .collect()
    }

    /// On the leader: brings the members in line with `change`.
    pub(crate) async fn change_members(
        &self,
        change: MemberChange,
        deadline: Instant,
    ) -> Result<(), Error> {
        let work = async {
            match change {
                MemberChange::Add { id, peer } => self.add(id, peer).await,
                MemberChange::Learn { id, peer } => self.learn(id, peer).await,
                MemberChange::Promote { id } => self.promote(id).await,
                MemberChange::Demote { id, force } => self.demote(id, force).await,
                MemberChange::Remove { id } => self.remove(id).await,
                MemberChange::Transfer { from, to } => self.transfer(from, to).await,
            }
        };
        tokio::time::timeout_at(deadline, work).await.unwrap_or(Err(Error::Unknown))
    }

    pub(crate) fn member(&self, id: NodeId) -> Option<Member> {
        self.members().into_iter().find(|member| member.id == id)
    }

    pub(crate) fn voters(&self) -> BTreeSet<NodeId> {
        self.metrics().membership_config.voter_ids().map(NodeId).collect()
    }

    /// On the leader: whether a member is in contact.
    pub(crate) fn is_up(&self, id: NodeId) -> bool {
        let heard = || self.metrics().heartbeat?.get(&id.0)?.as_ref().map(crate::core::age);
        id == self.node_id || heard().is_some_and(|age| age <= self.silent_after())
    }

    /// Gives members a little time to be heard: a leader that was elected just now has not heard many.
    pub(crate) async fn hear_out(&self, enough: impl Fn() -> bool) {
        let until = Instant::now() + self.silent_after();
        while !enough() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(self.config.heartbeat_ms)).await;
        }
    }

    fn silent_after(&self) -> Duration {
        Duration::from_millis(self.config.election_max_ms) * SILENT_LEASES
    }

    /// On the leader: how many entries of the log a member is not known to hold.
    pub(crate) fn lag(&self, id: NodeId) -> Result<u64, Error> {
        let metrics = self.metrics();
        let Some(replication) = metrics.replication else {
            return Err(Error::NotLeader { hint: metrics.current_leader.map(NodeId) });
        };
        let matched = replication.get(&id.0).copied().flatten().map_or(0, |log_id| log_id.index);
        Ok(metrics.last_log_index.unwrap_or(0).saturating_sub(matched))
    }

    async fn add(&self, id: NodeId, peer: Peer) -> Result<(), Error> {
        self.learn(id, peer).await?;
        if self.member(id).is_some_and(|member| member.voter) {
            return Ok(());
        }
        while self.lag(id)? > self.config.learner_lag_entries {
            tokio::time::sleep(Duration::from_millis(self.config.heartbeat_ms)).await;
        }
        tracing::info!(node = id.0, "a learner has caught up and becomes a voter");
        let _turn = self.changes.lock().await;
        self.propose_members(ChangeMembers::AddVoterIds(BTreeSet::from([id.0])), true).await
    }

    async fn learn(&self, id: NodeId, peer: Peer) -> Result<(), Error> {
        if self.shared.published.read(|state| state.was_removed(id)) {
            return Err(MemberRefusal::Removed { node: id }.into());
        }
        let _turn = self.changes.lock().await;
        let nodes = BTreeMap::from([(id.0, peer.clone())]);
        match self.member(id) {
            None => self.propose_members(ChangeMembers::AddNodes(nodes), true).await,
            Some(member) if member.peer != peer => {
                self.propose_members(ChangeMembers::SetNodes(nodes), true).await
            }
            Some(_) => Ok(()),
        }
    }

    async fn promote(&self, id: NodeId) -> Result<(), Error> {
        let _turn = self.changes.lock().await;
        let member = self.member(id).ok_or(MemberRefusal::Unknown { node: id })?;
        if member.voter {
            return Ok(());
        }
        self.check_caught_up(id, self.config.learner_lag_entries).await?;
        tracing::info!(node = id.0, "a learner becomes a voter");
        self.propose_members(ChangeMembers::AddVoterIds(BTreeSet::from([id.0])), true).await
    }

    /// Refuses a member that is out of contact, or lacks more than `max` entries.
    pub(crate) async fn check_caught_up(&self, id: NodeId, max: u64) -> Result<(), Error> {
        self.hear_out(|| self.is_up(id)).await;
        if !self.is_up(id) {
            return Err(MemberRefusal::Silent { node: id }.into());
        }
        match self.lag(id)? {
            lag if lag > max => Err(MemberRefusal::Lagging { node: id, lag, max }.into()),
            _ => Ok(()),
        }
    }

    async fn demote(&self, id: NodeId, force: bool) -> Result<(), Error> {
        let turn = self.changes.lock().await;
        let mut voters = self.voters();
        if !voters.remove(&id) {
            return Ok(());
        }
        if voters.is_empty() {
            return Err(MemberRefusal::LastVoter { node: id }.into());
        }
        let up = || voters.iter().filter(|voter| self.is_up(**voter)).count();
        let needed = voters.len() / 2 + 1;
        self.hear_out(|| up() >= needed || force).await;
        let up = up();
        if up < needed && !force {
            let (voters, up, needed) = (voters.len() as u64, up as u64, needed as u64);
            return Err(MemberRefusal::NoQuorum { node: id, voters, up, needed }.into());
        }
        if id == self.node_id {
            drop(turn);
            // The next leader takes it from here.
            let hint = self.hand_over(None).await?;
            return Err(Error::NotLeader { hint });
        }
        tracing::info!(node = id.0, "a voter becomes a learner");
        self.propose_members(ChangeMembers::RemoveVoters(BTreeSet::from([id.0])), true).await
    }

    async fn remove(&self, id: NodeId) -> Result<(), Error> {
        self.demote(id, false).await?;
        self.let_it_know(id).await?;
        let _turn = self.changes.lock().await;
        match self.member(id) {
            None => Ok(()),
            Some(_) => {
                tracing::info!(node = id.0, "a node is let go");
                let ids = BTreeSet::from([id.0]);
                self.propose_members(ChangeMembers::RemoveNodes(ids), false).await
            }
        }
    }

    /// Gives a node that goes a little time to take in the rest of the log: in it stands that it goes.
    async fn let_it_know(&self, id: NodeId) -> Result<(), Error> {
        let until = Instant::now() + Duration::from_millis(self.config.hand_over_ms);
        let last = self.metrics().last_log_index.unwrap_or(0);
        let lacks = |now: u64| now.saturating_sub(last);
        while self.member(id).is_some() && self.is_up(id) && Instant::now() < until {
            let now = self.metrics().last_log_index.unwrap_or(0);
            if self.lag(id)? <= lacks(now) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(self.config.heartbeat_ms)).await;
        }
        Ok(())
    }

    /// Ends a change of voters that a leader began and did not live to end.
    pub(crate) async fn end_joint(&self) -> Result<(), Error> {
        let _turn = self.changes.lock().await;
        let membership = self.metrics().membership_config;
        if membership.membership().get_joint_config().len() < 2 {
            return Ok(());
        }
        tracing::info!("ending a change of voters that was left half done");
        self.propose_members(ChangeMembers::AddVoterIds(BTreeSet::new()), true).await
    }

    /// Proposes, and waits for a change that is under way to end first.
    async fn propose_members(
        &self,
        change: ChangeMembers<u64, Peer>,
        retain: bool,
    ) -> Result<(), Error> {
        loop {
            match self.raft.change_membership(change.clone(), retain).await {
                Ok(_) => return Ok(()),
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_),
                ))) => {
                    let pause = Duration::from_millis(self.config.retry_max_ms);
                    tokio::time::sleep(pause).await;
                }
                Err(error) => return Err(write_error(error)),
            }
        }
    }
}
