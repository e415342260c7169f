//! The peer side: what a node answers to the calls of its peers.
//!
//! Bytes in, bytes out; the gRPC service of the composition root and the wire of the simulation
//! both end here. Who may call is decided before: only control nodes of this cluster.

use crate::{
    Method, forward,
    queue::Rank,
    raft_ledger::Inner,
    snapshot::{Content, Receiving},
    types::Types,
    wire::{self, ChunkAnswer, ForwardAnswer, ForwardRequest, SnapshotChunk},
};
use bytes::Bytes;
use openraft::{Snapshot, alias::SnapshotOf};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Why a call was not answered: the message for the caller's log. Certainly not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// The bytes are no request of this method that this release knows.
    #[error("the request cannot be understood: {0}")]
    Malformed(String),
    /// Raft has stopped.
    #[error("this node is stopping: {0}")]
    Stopped(String),
    /// The disk failed while a snapshot was received.
    #[error("the snapshot could not be stored: {0}")]
    Storage(String),
}

impl From<storage::Fault> for ServiceError {
    fn from(fault: storage::Fault) -> Self {
        Self::Malformed(fault.to_string())
    }
}

fn stopped(error: impl std::fmt::Display) -> ServiceError {
    ServiceError::Stopped(error.to_string())
}

/// Answers peers. Clones share it.
#[derive(Clone)]
pub struct PeerService {
    inner: Arc<Inner>,
    /// The one snapshot that is being received.
    receiving: Arc<Mutex<Option<Receiving>>>,
}

impl PeerService {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, receiving: Arc::default() }
    }

    /// Carries out one call.
    ///
    /// # Errors
    /// See [`ServiceError`]; the transport passes it to the caller as a refusal.
    pub async fn handle(&self, method: Method, body: Bytes) -> Result<Bytes, ServiceError> {
        if let Some(reason) = &*self.inner.core.stopped.borrow() {
            return Err(stopped(reason));
        }
        let raft = &self.inner.core.raft;
        let answer = match method {
            Method::Append => {
                let answer = raft.append_entries(wire::decode(&body)?).await.map_err(stopped)?;
                wire::encode(&answer)?
            }
            Method::Vote => wire::encode(&raft.vote(wire::decode(&body)?).await.map_err(stopped)?)?,
            Method::PreVote => {
                wire::encode(&raft.pre_vote(wire::decode(&body)?).await.map_err(stopped)?)?
            }
            Method::TransferLeader => {
                let request = wire::decode(&body)?;
                wire::encode(&raft.handle_transfer_leader(request).await.map_err(stopped)?)?
            }
            Method::Snapshot => wire::encode(&self.snapshot(wire::decode(&body)?).await?)?,
            Method::Propose | Method::Linearize => {
                wire::encode(&self.forward(wire::decode(&body)?).await)?
            }
        };
        Ok(answer)
    }

    async fn forward(&self, request: ForwardRequest) -> ForwardAnswer {
        let until = |deadline_ms| Instant::now() + Duration::from_millis(deadline_ms);
        let answer = match request {
            ForwardRequest::Propose { queued, deadline_ms } => {
                // A command that cannot be decoded would stop every replica: refuse it here.
                match storage::codec::decode::<crate::entry::Queued>(&queued.0) {
                    Ok(command) => {
                        let Inner { core, queue, .. } = &*self.inner;
                        let asked = (queued, Rank::of(&command.caller));
                        let outcome =
                            forward::propose_here(core, queue, asked, until(deadline_ms)).await;
                        outcome.map(ForwardAnswer::Outcome)
                    }
                    Err(fault) => {
                        tracing::warn!(%fault, "a peer forwarded a command nobody can read");
                        Err(crate::Error::Stopped)
                    }
                }
            }
            ForwardRequest::Linearize { node, lease_ttl_ms, deadline_ms } => {
                let asker = (node, lease_ttl_ms);
                let read = self.inner.core.read_index_for(asker, until(deadline_ms)).await;
                read.map(|(index, lease_ttl_ms)| ForwardAnswer::Index { index, lease_ttl_ms })
            }
            ForwardRequest::Ballots { node, ballots } => {
                Ok(ForwardAnswer::Ballots(self.inner.core.count(node, ballots)))
            }
            ForwardRequest::ChangeMembers { change, deadline_ms } => {
                let changed = self.inner.core.change_members(change, until(deadline_ms)).await;
                changed.map(|()| ForwardAnswer::Changed)
            }
        };
        answer.unwrap_or_else(ForwardAnswer::Failed)
    }

    async fn snapshot(&self, chunk: SnapshotChunk) -> Result<ChunkAnswer, ServiceError> {
        let storing = |fault: storage::Fault| ServiceError::Storage(fault.to_string());
        let SnapshotChunk::V1 { vote, meta, offset, bytes, last } = chunk;
        let taken = self.receiving(|receiving| receiving.take());
        let idle = Duration::from_millis(self.inner.core.config.snapshot_idle_ms);
        let whose = (vote.leader_id, &meta);
        let mut transfer = match taken {
            Some(transfer) if transfer.is_of(whose, idle) && transfer.position() == offset => {
                transfer
            }
            // An answer was lost, or the wire was cut: it goes on where it stands.
            Some(transfer) if transfer.is_of(whose, idle) && transfer.position() > offset => {
                let next = transfer.position();
                self.receiving(|receiving| *receiving = Some(transfer));
                return Ok(ChunkAnswer::At { next });
            }
            other => {
                if let Some(stale) = other {
                    stale.discard().await.map_err(storing)?;
                }
                // The place is lost: the leader begins again.
                if offset != 0 {
                    return Ok(ChunkAnswer::Restart);
                }
                let files = &self.inner.core.shared.snapshots;
                let (leader, meta) = (vote.leader_id, meta.clone());
                Receiving::begin(&**files, leader, meta).await.map_err(storing)?
            }
        };
        transfer.append(Bytes::from(bytes.0)).await.map_err(storing)?;
        if !last {
            self.receiving(|receiving| *receiving = Some(transfer));
            return Ok(ChunkAnswer::Received);
        }
        let snapshot: SnapshotOf<Types, Content> =
            Snapshot { meta, snapshot: transfer.into_content() };
        let installed = self.inner.core.raft.install_full_snapshot(vote, snapshot).await;
        installed.map(ChunkAnswer::Installed).map_err(stopped)
    }

    fn receiving<R>(&self, f: impl FnOnce(&mut Option<Receiving>) -> R) -> R {
        f(&mut self.receiving.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
