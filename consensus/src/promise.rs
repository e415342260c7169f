//! What a node's answers to its peers promise, and whether a disk keeps it.
//!
//! For whoever checks that nothing is promised before it is durable: a vote that was given, and entries
//! that were taken, must stand on the disk when the answer leaves the node.

use crate::{
    Method,
    log_store::VOTE,
    types::{LogId, RaftEntry, Types, Vote},
    wire,
};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use std::{cmp::Ordering, path::Path};
use storage::{Disk, Fault, codec, log::LogLook};

/// What one answer promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    vote: Vote,
    last: Option<LogId>,
}

impl Promise {
    /// What the answer to a call of Raft promises; `None` if it promises nothing.
    ///
    /// # Errors
    /// When the bytes are no such call, or no such answer.
    pub fn of(method: Method, request: &[u8], answer: &[u8]) -> Result<Option<Self>, Fault> {
        match method {
            Method::Append => {
                let request: AppendEntriesRequest<Types> = wire::decode(request)?;
                let answer: AppendEntriesResponse<Types> = wire::decode(answer)?;
                let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
                Ok(answer.is_success().then_some(Self { vote: request.vote, last }))
            }
            Method::Vote => {
                let request: VoteRequest<Types> = wire::decode(request)?;
                let answer: VoteResponse<Types> = wire::decode(answer)?;
                Ok(answer.vote_granted.then_some(Self { vote: request.vote, last: None }))
            }
            Method::PreVote
            | Method::Snapshot
            | Method::TransferLeader
            | Method::Propose
            | Method::Linearize => Ok(None),
        }
    }

    /// What of it a disk with a ledger in `dir` does not keep; `None` if it keeps all.
    ///
    /// # Errors
    /// When the log there cannot be read.
    pub async fn broken_by<D: Disk>(&self, disk: &D, dir: &Path) -> Result<Option<String>, Fault> {
        let look = LogLook::at(disk, &dir.join("log")).await?;
        let stored =
            look.states.get(&VOTE).map(|bytes| codec::decode::<Vote>(bytes)).transpose()?;
        let order = stored.and_then(|vote| vote.leader_id.partial_cmp(&self.vote.leader_id));
        match order {
            // Promised to a newer leader since: what the older one was told may be cut off.
            Some(Ordering::Greater) => return Ok(None),
            Some(Ordering::Equal) => {}
            Some(Ordering::Less) | None => {
                let stored = stored.map_or_else(|| "none".to_owned(), |vote| vote.to_string());
                let vote = self.vote;
                return Ok(Some(format!("it promised vote {vote}, its disk has {stored}")));
            }
        }
        let Some(last) = self.last.filter(|last| last.index >= look.first) else {
            return Ok(None);
        };
        if last.index >= look.next {
            let next = look.next;
            return Ok(Some(format!("it took entry {last}, its disk ends before {next}")));
        }
        let entry: RaftEntry = codec::decode(&look.entry(last.index).await?)?;
        let same = entry.log_id == last;
        Ok((!same).then(|| format!("it took entry {last}, its disk has {}", entry.log_id)))
    }
}
