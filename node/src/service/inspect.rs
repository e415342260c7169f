//! A look inside this node: a tree of values, gathered when somebody asks.

use crate::{Shared, members::Members};
use api::{
    limits::RESPONSE_BYTES_MAX,
    reason::bad_field,
    v1::{self, inspect_client::InspectClient, inspect_server::Inspect as Service},
};
use consensus::Ledger;
use model::NodeId;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Request, Response, Status};

/// A part of the node that shows itself: facts and parts below the part's name.
pub(crate) type Part = Arc<dyn Fn() -> Branch + Send + Sync>;

/// A branch of the tree.
#[derive(Debug, Default)]
pub(crate) struct Branch {
    pub(crate) values: BTreeMap<String, String>,
    pub(crate) children: BTreeMap<String, Branch>,
}

impl Branch {
    /// With one more fact.
    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.values.insert(name.to_owned(), value.to_string());
        self
    }

    /// The branch at `path`, made with those above it if it is not there.
    pub(crate) fn at(&mut self, path: &str) -> &mut Self {
        let mut branch = self;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            branch = branch.children.entry(name.to_owned()).or_default();
        }
        branch
    }

    fn find(self, path: &str) -> Option<Self> {
        let mut branch = self;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            branch = branch.children.remove(name)?;
        }
        Some(branch)
    }

    /// The message, down to `depth` levels and as long as `left` entries are left.
    fn into_proto(self, name: String, depth: u32, left: &mut usize) -> v1::InspectTree {
        *left = left.saturating_sub(1 + self.values.len());
        let mut children = Vec::new();
        if depth > 0 {
            for (name, child) in self.children {
                if *left == 0 {
                    break;
                }
                children.push(child.into_proto(name, depth - 1, left));
            }
        }
        v1::InspectTree { name, values: self.values, children }
    }
}

/// The service. Clones share all.
#[derive(Clone)]
pub(crate) struct Inspect<L: Ledger> {
    pub(crate) shared: Shared<L>,
    pub(crate) members: Arc<dyn Members>,
    /// Number of agents whose session this node holds.
    pub(crate) sessions: Arc<dyn Fn() -> u32 + Send + Sync>,
    /// Parts of the node beside ledger and actors, by name.
    pub(crate) parts: BTreeMap<String, Part>,
}

impl<L: Ledger> Inspect<L> {
    fn tree(&self) -> Branch {
        let mut root = Branch::default();
        root.children.insert("ledger".to_owned(), self.ledger());
        root.children.insert("actors".to_owned(), self.actors());
        for (name, part) in &self.parts {
            root.children.insert(name.clone(), part());
        }
        root
    }

    fn ledger(&self) -> Branch {
        let leadership = *self.shared.ledger.leadership().borrow();
        let status = self.members.status();
        let number = |number: Option<u64>| number.map_or_else(String::new, |at| at.to_string());
        let (globals, hash, rows_hash) = (self.shared.ledger)
            .read(|state| (state.globals.clone(), state.hash(), state.rows_hash()));
        let mut branch = Branch::default()
            .with("term", leadership.term)
            .with("leader", number(leadership.leader.map(|id| id.0)))
            .with("is_leader", leadership.is_leader)
            .with("revision", globals.revision)
            .with("state_hash", format!("{hash:032x}"))
            .with("rows_hash", format!("{rows_hash:032x}"))
            .with("rules", globals.rules)
            .with("last_log_index", number(status.last_log_index))
            .with("committed_index", number(status.committed_index))
            .with("applied_index", number(status.applied_index))
            .with("snapshot_index", number(status.snapshot_index))
            .with("purged_index", number(status.purged_index));
        for member in self.members.members() {
            let shown = Branch::default()
                .with("voter", member.voter)
                .with("peer_addr", &member.peer.peer_addr)
                .with("client_addr", &member.peer.client_addr);
            branch.at("members").children.insert(member.id.to_string(), shown);
        }
        branch
    }

    fn actors(&self) -> Branch {
        let mut branch = Branch::default();
        for actor in self.shared.board.all() {
            let at = branch.at(&actor.path);
            let facts = [
                ("up", actor.up.to_string()),
                ("runs", actor.runs.to_string()),
                ("proposed", actor.proposed.to_string()),
                ("crashes", actor.crashes.to_string()),
                ("crashes_below", actor.crashes_below.to_string()),
                ("revision", actor.revision.to_string()),
                ("last_run", actor.last_run),
                ("last_error", actor.last_error.unwrap_or_default()),
            ];
            at.values.extend(facts.map(|(name, value)| (name.to_owned(), value)));
        }
        branch
    }
}

impl<L: Ledger> Inspect<L> {
    /// What is below a path in this node.
    fn below(&self, asked: &v1::InspectRequest) -> Result<v1::InspectTree, Status> {
        let v1::InspectRequest { path, depth, .. } = asked;
        let found = self.tree().find(path).ok_or_else(nothing_there)?;
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let depth = if *depth == 0 { u32::MAX } else { *depth };
        let mut left = self.shared.config.server.inspect_entries_max;
        Ok(found.into_proto(name, depth, &mut left))
    }

    /// The part of one node: what it says, or why it says nothing.
    async fn part(
        &self,
        id: NodeId,
        asked: v1::InspectRequest,
        deadline: Instant,
    ) -> v1::InspectTree {
        let said = match id == self.shared.node_id {
            true => self.below(&asked),
            false => self.ask(id, asked, deadline).await,
        };
        let mut part = v1::InspectTree { name: id.to_string(), ..v1::InspectTree::default() };
        match said {
            Ok(tree) => part.children.push(tree),
            // It has nothing at the path.
            Err(status) if status.code() == Code::InvalidArgument => {}
            Err(status) => {
                part.values.insert("unreachable".to_owned(), status.message().to_owned());
            }
        }
        part
    }

    async fn ask(
        &self,
        id: NodeId,
        asked: v1::InspectRequest,
        deadline: Instant,
    ) -> Result<v1::InspectTree, Status> {
        let client = InspectClient::new(self.shared.peers.channel(id)?);
        let mut client = client.max_decoding_message_size(RESPONSE_BYTES_MAX);
        let late = || {
            // Whatever waits in this channel: the next look dials anew.
            self.shared.peers.forget(id);
            Status::deadline_exceeded("it did not answer in time")
        };
        let limit = Duration::from_millis(self.shared.config.server.status_ms);
        let until = deadline.min(Instant::now() + limit);
        let answer = timeout_at(until, client.inspect(asked)).await.map_err(|_| late())?;
        Ok(answer?.into_inner())
    }
}

fn nothing_there() -> Status {
    let bad = bad_field("path", "there is nothing at path", "begin at the empty path");
    api::status::rejected(&bad)
}

#[tonic::async_trait]
impl<L: Ledger> Service for Inspect<L> {
    async fn inspect(
        &self,
        request: Request<v1::InspectRequest>,
    ) -> Result<Response<v1::InspectTree>, Status> {
        let call = self.shared.granted(request)?;
        let (asked, deadline) = (call.request, call.deadline);
        if !asked.all_nodes {
            return self.below(&asked).map(Response::new);
        }
        let mut ids: Vec<NodeId> = self.members.members().iter().map(|it| it.id).collect();
        ids.sort_unstable();
        let one = v1::InspectRequest { all_nodes: false, ..asked };
        let parts = ids.into_iter().map(|id| self.part(id, one.clone(), deadline));
        let children = futures::future::join_all(parts).await;
        if children.iter().all(|part| part.children.is_empty() && part.values.is_empty()) {
            return Err(nothing_there());
        }
        Ok(Response::new(v1::InspectTree { children, ..v1::InspectTree::default() }))
    }

    async fn get_status(
        &self,
        request: Request<v1::GetNodeStatusRequest>,
    ) -> Result<Response<v1::NodeStatus>, Status> {
        let _call = self.shared.granted(request)?;
        let leadership = *self.shared.ledger.leadership().borrow();
        let members = self.members.members();
        let me = members.iter().find(|member| member.id == self.shared.node_id);
        let role = match (leadership.is_leader, leadership.leader, me) {
            _ if self.shared.stop.is_cancelled() => "shutdown",
            (true, ..) => "leader",
            (false, _, Some(me)) if !me.voter => "learner",
            (false, None, Some(_)) => "candidate",
            (false, Some(_), Some(_)) => "follower",
            (false, _, None) => "learner",
        };
        let now = self.shared.clock.now();
        let globals = self.shared.ledger.read(|state| state.globals.clone());
        Ok(Response::new(v1::NodeStatus {
            node_id: self.shared.node_id.0,
            role: role.to_owned(),
            term: leadership.term,
            leader: leadership.leader.map(|id| id.0),
            applied_revision: globals.revision.0,
            peers: members.iter().map(|member| member.id.0).collect(),
            started_at: api::convert::time_to_proto(self.shared.started_at),
            uptime_ms: now.since_ms(self.shared.started_at),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            rules: globals.rules,
            rules_max: self.shared.config.raft.rules_max,
            sessions: (self.sessions)(),
            last_log_index: self.members.status().last_log_index,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_cut_by_depth_and_by_number() {
        let tree = || {
            let mut root = Branch::default();
            for path in ["a/b/c", "a/d", "e"] {
                root.at(path).values.insert("x".to_owned(), "1".to_owned());
            }
            root
        };
        let shown = tree().find("a").unwrap().into_proto("a".to_owned(), 1, &mut 100);
        let names: Vec<_> = shown.children.iter().map(|child| child.name.as_str()).collect();
        assert_eq!(names, ["b", "d"]);
        assert!(shown.children.iter().all(|child| child.children.is_empty()));
        let few = tree().into_proto(String::new(), u32::MAX, &mut 3);
        assert_eq!(few.children.len(), 1, "{few:?}");
        assert!(tree().find("a/x").is_none());
    }
}
