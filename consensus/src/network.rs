//! Raft's network over [`Transport`]: one client per peer and lane.
//!
//! Every call ends by itself at the time Raft gives it, and the transport then drops the
//! connection. Replication is one request after the other: Raft already merges what waits into one
//! request, and its default stream ends the way it must (with the end of its input, not an error).

use crate::{
    Config, Lane, Method, Peer, Target, Transport, TransportError,
    entry::Blob,
    snapshot::Content,
    types::{Types, Vote},
    wire::{self, ChunkAnswer, SnapshotChunk},
};
use futures::future::{Either, select};
use model::NodeId;
use openraft::{
    OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2,
    alias::SnapshotOf,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use std::{future::Future, pin::pin, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Makes clients for Raft.
pub(crate) struct Network {
    pub(crate) me: NodeId,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) config: Arc<Config>,
}

impl Network {
    fn client(&self, id: u64, peer: &Peer, lane: Lane) -> Client {
        Client {
            me: self.me,
            target: Target { id: NodeId(id), peer: peer.clone(), lane },
            transport: self.transport.clone(),
            config: self.config.clone(),
        }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Client {
        self.client(target, node, Lane::Replication)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Peer) -> Client {
        self.client(target, node, Lane::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Peer) -> Client {
        self.client(target, node, Lane::Snapshot)
    }
}

/// Speaks to one peer on one lane.
pub(crate) struct Client {
    me: NodeId,
    target: Target,
    transport: Arc<dyn Transport>,
    config: Arc<Config>,
}

impl Client {
    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        request: &Q,
        ttl: Duration,
    ) -> Result<A, RPCError<Types>> {
        let broken = |fault: storage::Fault| RPCError::Unreachable(Unreachable::new(&fault));
        let body = wire::encode(request).map_err(broken)?;
        let deadline = Instant::now() + ttl;
        let answer = self.transport.call(&self.target, method, body, deadline).await;
        match answer {
            Ok(bytes) => wire::decode(&bytes).map_err(broken),
            Err(error @ TransportError::Lost { .. }) if Instant::now() >= deadline => {
                tracing::debug!(%error, method = method.as_str(), "a peer did not answer in time");
                Err(RPCError::Timeout(Timeout {
                    action: action(method),
                    id: self.me.0,
                    target: self.target.id.0,
                    timeout: ttl,
                }))
            }
            Err(error @ TransportError::Lost { .. }) => {
                Err(RPCError::Network(NetworkError::new(&error)))
            }
            Err(
                error @ (TransportError::Unreachable { .. }
                | TransportError::Refused { .. }
                | TransportError::Removed { .. }),
            ) => Err(RPCError::Unreachable(Unreachable::new(&error))),
        }
    }

    /// Sends all chunks, and begins again when the follower lost its place.
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: SnapshotOf<Types, Content>,
        deadline: Instant,
    ) -> Result<SnapshotResponse<Types>, RPCError<Types>> {
        let unreachable = |fault: storage::Fault| RPCError::Unreachable(Unreachable::new(&fault));
        let refused = |why: &str| Err(RPCError::Unreachable(Unreachable::from_string(why)));
        let Content::Stored(place, stored) = &snapshot.snapshot else {
            return refused("only a stored snapshot is sent");
        };
        for _ in 0..RESTARTS_MAX {
            let mut reader = place.reader(stored).await.map_err(unreachable)?;
            let mut offset = 0;
            let mut next = reader.next().await.map_err(unreachable)?;
            while let Some(bytes) = next {
                next = reader.next().await.map_err(unreachable)?;
                let last = next.is_none();
                let sent = bytes.len() as u64;
                let meta = snapshot.meta.clone();
                let bytes = Blob(bytes.to_vec());
                let chunk = SnapshotChunk::V1 { vote, meta, offset, bytes, last };
                // The last answer comes only after the follower has installed all of it.
                let chunk_ms = Duration::from_millis(self.config.snapshot_chunk_ms);
                let now = Instant::now();
                let until = if last { deadline } else { deadline.min(now + chunk_ms) };
                let ttl = until.saturating_duration_since(now);
                match self.call(Method::Snapshot, &chunk, ttl).await? {
                    ChunkAnswer::Received => offset += sent,
                    ChunkAnswer::Restart => break,
                    ChunkAnswer::Installed(response) => return Ok(response),
                }
            }
        }
        refused("the follower lost its place in the snapshot again and again")
    }
}

/// Times that one transfer begins anew.
const RESTARTS_MAX: usize = 3;

fn action(method: Method) -> RPCTypes {
    match method {
        Method::Append | Method::Propose | Method::Linearize => RPCTypes::AppendEntries,
        Method::Vote | Method::PreVote => RPCTypes::Vote,

        Method::Snapshot => RPCTypes::InstallSnapshot,
        Method::TransferLeader => RPCTypes::TransferLeader,
    }
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = Content;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        // Raft gives replication the time of a heartbeat, which a stalling disk exceeds without
        // anything being wrong: giving up then would send the same bytes over and over.
        let ttl = match self.target.lane {
            Lane::Replication => Duration::from_millis(self.config.append_ms),
            Lane::Heartbeat | Lane::Snapshot | Lane::Forward => option.soft_ttl(),
        };
        self.call(Method::Append, &rpc, ttl).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.call(Method::Vote, &rpc, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.call(Method::PreVote, &rpc, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Types, Content>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let deadline = Instant::now() + option.soft_ttl();
        let send = pin!(self.send_snapshot(vote, snapshot, deadline));
        match select(send, pin!(cancel)).await {
            Either::Left((answer, _)) => answer.map_err(StreamingError::from),
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        self.call(Method::TransferLeader, &rpc, option.soft_ttl()).await
    }
}
