//! Raft's network over [`Transport`]: one client per peer and lane.
//!
//! Every call ends by itself at the time Raft gives it, and the transport then drops the
//! connection. Replication is one request after the other: Raft already merges what waits into one
//! request, and its default stream ends the way it must (with the end of its input, not an error).

use crate::{
    Config, Lane, Method, Peer, Target, Transport, TransportError,
    entry::Blob,
    purge::Transfers,
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
    pub(crate) transfers: Transfers,
}

impl Network {
    fn client(&self, id: u64, peer: &Peer, lane: Lane) -> Client {
        Client {
            me: self.me,
            target: Target { id: NodeId(id), peer: peer.clone(), lane },
            transport: self.transport.clone(),
            config: self.config.clone(),
            transfers: self.transfers.clone(),
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
    transfers: Transfers,
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

    /// Sends all chunks that the follower has not got from an earlier try, and begins again when it
    /// lost its place.
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
            // What the follower holds, and where the next bytes read begin.
            let (mut held, mut at) = (0, 0);
            let mut next = reader.next().await.map_err(unreachable)?;
            'chunks: while let Some(bytes) = next {
                next = reader.next().await.map_err(unreachable)?;
                let (end, last) = (at + bytes.len() as u64, next.is_none());
                while held < end {
                    let from = usize::try_from(held.saturating_sub(at)).unwrap_or(bytes.len());
                    let (meta, offset) = (snapshot.meta.clone(), held);
                    let rest = Blob(bytes.get(from..).unwrap_or_default().to_vec());
                    let chunk = SnapshotChunk::V1 { vote, meta, offset, bytes: rest, last };
                    match self.send_chunk(&chunk, last, deadline).await? {
                        ChunkAnswer::Received => held = end,
                        ChunkAnswer::At { next } if next > held => held = next,
                        ChunkAnswer::At { .. } | ChunkAnswer::Restart => break 'chunks,
                        ChunkAnswer::Installed(response) => return Ok(response),
                    }
                }
                at = end;
            }
        }
        refused("the follower lost its place in the snapshot again and again")
    }

    async fn send_chunk(
        &self,
        chunk: &SnapshotChunk,
        last: bool,
        deadline: Instant,
    ) -> Result<ChunkAnswer, RPCError<Types>> {
        // The last answer comes only after the follower has installed all of it.
        let now = Instant::now();
        let chunk_ms = Duration::from_millis(self.config.snapshot_chunk_ms);
        let until = if last { deadline } else { deadline.min(now + chunk_ms) };
        self.call(Method::Snapshot, chunk, until.saturating_duration_since(now)).await
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
        let covers = snapshot.meta.last_log_id.as_ref();
        let _under_way = self.transfers.begin(self.target.id.0, covers);
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
