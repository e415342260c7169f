//! The status of the control plane, put together from what each member says of itself.
//!
//! Nothing of it needs a leader: when there is none, this is where people look.

use super::ControlPlane;
use api::v1::{self, inspect_client::InspectClient};
use consensus::{Leadership, Ledger, Member};
use futures::future::join_all;
use model::{ControlNode, NodeId};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;
use tonic::Request;

/// A node asks the leader every `raft.duty_ms` whether a majority follows it; after so many without an
/// answer there is no leader.
const MISSED_PROBES: u32 = 4;

impl<L: Ledger> ControlPlane<L> {
    pub(super) async fn status(&self, deadline: Instant) -> v1::ControlPlaneStatus {
        let mut members = self.members.members();
        members.sort_by_key(|member| member.id);
        let answers = self.ask(&members, deadline).await;
        let leadership = *self.shared.ledger.leadership().borrow();
        let leader = leadership.leader.filter(|_| self.is_followed(&leadership, &members));
        let newest = answers.values().filter_map(|it| it.last_log_index).max();
        let voters = || members.iter().filter(|member| member.voter);
        let up = voters().filter(|member| answers.contains_key(&member.id)).count();
        let quorum = v1::Quorum {
            voters: count(voters().count()),
            up: count(up),
            needed: count(voters().count() / 2 + 1),
        };
        let (globals, rows) = self.shared.ledger.read(|state| {
            let rows: BTreeMap<NodeId, ControlNode> =
                state.nodes.iter().map(|(id, node)| (*id, node.clone())).collect();
            (state.globals.clone(), rows)
        });
        let shown = members.iter().map(|member| {
            let leads = leader == Some(member.id);
            let parts = (rows.get(&member.id), answers.get(&member.id));
            v1::Member { role: role(member, leads).into(), ..shown(member, parts, newest) }
        });
        v1::ControlPlaneStatus {
            cluster_id: self.shared.cluster_id.to_string(),
            leader: leader.map(|id| id.0),
            term: leadership.term,
            revision: globals.revision.0,
            rules: globals.rules,
            members: shown.collect(),
            answered_by: self.shared.node_id.0,
            quorum: Some(quorum),
        }
    }

    /// Whether a majority has followed the leader lately. A leader without one does not know that it is
    /// none, nor does a node whose leader died: nobody takes its place before a majority is back.
    fn is_followed(&self, leadership: &Leadership, members: &[Member]) -> bool {
        let probe = Duration::from_millis(self.shared.config.raft.duty_ms);
        let lately = leadership.quorum_at.is_some_and(|at| at.elapsed() <= probe * MISSED_PROBES);
        lately || (leadership.is_leader && members.iter().filter(|it| it.voter).count() == 1)
    }

    /// What the members say of themselves, as far as they do soon.
    async fn ask(&self, members: &[Member], deadline: Instant) -> BTreeMap<NodeId, v1::NodeStatus> {
        let limit = Duration::from_millis(self.shared.config.server.status_ms);
        let until = deadline.min(Instant::now() + limit);
        let asked = members.iter().map(|member| async move {
            let id = member.id;
            if id == self.shared.node_id {
                return Some((id, self.own()));
            }
            let asking = async {
                let channel = self.shared.peers.channel(id).ok()?;
                let mut request = Request::new(v1::GetNodeStatusRequest {});
                request.set_timeout(limit);
                InspectClient::new(channel).get_status(request).await.ok()
            };
            let answer = tokio::time::timeout_at(until, asking).await.ok().flatten();
            if answer.is_none() {
                // Whatever waits in this channel: the next look dials anew.
                self.shared.peers.forget(id);
            }
            Some((id, answer?.into_inner()))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    fn own(&self) -> v1::NodeStatus {
        let revision = self.shared.ledger.read(|state| state.globals.revision);
        v1::NodeStatus {
            node_id: self.shared.node_id.0,
            applied_revision: revision.0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            rules_max: self.shared.config.raft.rules_max,
            last_log_index: self.members.status().last_log_index,
            ..v1::NodeStatus::default()
        }
    }
}

fn role(member: &Member, leads: bool) -> v1::MemberRole {
    match member.voter {
        _ if leads => v1::MemberRole::Leader,
        true => v1::MemberRole::Voter,
        false => v1::MemberRole::Learner,
    }
}

fn shown(
    member: &Member,
    (row, answer): (Option<&ControlNode>, Option<&v1::NodeStatus>),
    newest: Option<u64>,
) -> v1::Member {
    let held = answer.and_then(|answer| answer.last_log_index);
    let lost = row.filter(|row| !row.alive);
    v1::Member {
        id: member.id.0,
        role: v1::MemberRole::Unspecified.into(),
        peer_addr: member.peer.peer_addr.clone(),
        client_addr: member.peer.client_addr.clone(),
        alive: row.is_some_and(|row| row.alive),
        matched_index: held,
        name: format!("node-{}", member.id),
        answers: answer.is_some(),
        lost_since: lost.and_then(|row| api::convert::time_to_proto(row.meta.updated_at)),
        lag: newest.zip(held).map(|(newest, held)| newest.saturating_sub(held)),
        applied_revision: answer.map(|answer| answer.applied_revision),
        version: answer.map(|answer| answer.version.clone()).unwrap_or_default(),
        rules_max: match (answer, row) {
            (Some(answer), _) => answer.rules_max,
            (None, Some(row)) => row.rules_max,
            (None, None) => 0,
        },
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
