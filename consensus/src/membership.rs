//! Who belongs to the cluster: the first node, one more, one less.
//!
//! A node comes in as a learner, catches up, and only then votes; one change at a time, each safe
//! to repeat. A node that lost its log comes back under a new id, never under its old one.

use crate::{
    Error, Method, Peer,
    core::{Core, ForwardError, write_error},
    forward::Backoff,
    wire::{ForwardAnswer, ForwardRequest, MemberChange},
};
use model::NodeId;
use openraft::{
    ChangeMembers,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

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

/// Carries out a change through whichever node leads, until the deadline.
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
        if core.is_stopped() {
            return Err(Error::Stopped);
        }
        if Instant::now() >= deadline {
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
                MemberChange::Remove { id } => self.remove(id).await,
            }
        };
        tokio::time::timeout_at(deadline, work).await.unwrap_or(Err(Error::Unknown))
    }

    fn member(&self, id: NodeId) -> Option<Member> {
        self.members().into_iter().find(|member| member.id == id)
    }

    async fn add(&self, id: NodeId, peer: Peer) -> Result<(), Error> {
        match self.member(id) {
            None => {
                let nodes = BTreeMap::from([(id.0, peer)]);
                self.propose_members(ChangeMembers::AddNodes(nodes), true).await?;
            }
            Some(member) if member.peer != peer => {
                let nodes = BTreeMap::from([(id.0, peer)]);
                self.propose_members(ChangeMembers::SetNodes(nodes), true).await?;
            }
            Some(_) => {}
        }
        if self.member(id).is_some_and(|member| member.voter) {
            return Ok(());
        }
        self.wait_until_caught_up(id).await?;
        tracing::info!(node = id.0, "a learner has caught up and becomes a voter");
        self.propose_members(ChangeMembers::AddVoterIds(BTreeSet::from([id.0])), true).await
    }

    async fn remove(&self, id: NodeId) -> Result<(), Error> {
        let ids = BTreeSet::from([id.0]);
        match self.member(id) {
            None => Ok(()),
            Some(member) if member.voter => {
                self.propose_members(ChangeMembers::RemoveVoters(ids), false).await
            }
            Some(_) => self.propose_members(ChangeMembers::RemoveNodes(ids), false).await,
        }
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

    async fn wait_until_caught_up(&self, id: NodeId) -> Result<(), Error> {
        loop {
            let metrics = self.metrics();
            let Some(replication) = metrics.replication else {
                return Err(Error::NotLeader { hint: metrics.current_leader.map(NodeId) });
            };
            let matched = replication.get(&id.0).copied().flatten().map(|log_id| log_id.index);
            let last = metrics.last_log_index.unwrap_or(0);
            if matched.is_some_and(|at| at + self.config.learner_lag_entries >= last) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(self.config.heartbeat_ms)).await;
        }
    }
}
