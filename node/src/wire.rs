//! The wire of the Raft group: gRPC over mutually proven TLS, one connection per peer and lane.
//!
//! A large message must not hold up a heartbeat, so each lane has a connection of its own. A call that
//! outlives its deadline gives the connection up: the next one dials anew.

use crate::peers::wrap_as_peer;
use api::{
    Fabric,
    fabric::WireConfig,
    limits::PEER_BYTES_MAX,
    status::ClientError,
    v1::{self, forward_client::ForwardClient, raft_client::RaftClient},
};
use bytes::Bytes;
use consensus::{Method, Target, Transport, TransportError};
use futures::future::BoxFuture;
use identity::ClientConfig;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status, transport::Channel};

/// Dials peers. Clones share connections.
#[derive(Clone)]
pub(crate) struct GrpcTransport<F: Fabric> {
    fabric: F,
    tls: Arc<ClientConfig>,
    wire: WireConfig,
    kept: Arc<Mutex<BTreeMap<Target, Channel>>>,
}

impl<F: Fabric> GrpcTransport<F> {
    pub(crate) fn new(fabric: F, tls: Arc<ClientConfig>, wire: WireConfig) -> Self {
        Self { fabric, tls, wire, kept: Arc::default() }
    }

    fn channel(&self, to: &Target) -> Result<Channel, TransportError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = kept.get(to) {
            return Ok(channel.clone());
        }
        let (tls, id) = (self.tls.clone(), to.id);
        let wrap = move |io| wrap_as_peer(io, tls.clone(), Some(id));
        let channel = api::fabric::channel(&self.fabric, &to.peer.peer_addr, wrap, self.wire)
            .map_err(|bad| TransportError::Unreachable { to: id, reason: bad.to_string() })?;
        // A peer that moved leaves its old address behind.
        kept.retain(|known, _| known.id != to.id || known.peer == to.peer);
        kept.insert(to.clone(), channel.clone());
        Ok(channel)
    }

    fn forget(&self, to: &Target) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(to);
    }
}

impl<F: Fabric> Transport for GrpcTransport<F> {
    fn call(
        &self,
        to: &Target,
        method: Method,
        body: Bytes,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (this, to) = (self.clone(), to.clone());
        Box::pin(async move {
            let channel = this.channel(&to)?;
            match timeout_at(deadline, send(channel, method, body)).await {
                Ok(Ok(payload)) => Ok(payload),
                Ok(Err(status)) => {
                    let error = error_of(&to, &status);
                    let answered = matches!(
                        error,
                        TransportError::Refused { .. } | TransportError::Removed { .. }
                    );
                    if !answered {
                        this.forget(&to);
                    }
                    Err(error)
                }
                Err(_elapsed) => {
                    this.forget(&to);
                    let reason = "no answer in time".to_owned();
                    Err(TransportError::Lost { to: to.id, reason })
                }
            }
        })
    }
}

async fn send(channel: Channel, method: Method, payload: Bytes) -> Result<Bytes, Status> {
    let mut raft = RaftClient::new(channel.clone())
        .max_decoding_message_size(PEER_BYTES_MAX)
        .max_encoding_message_size(PEER_BYTES_MAX);
    let mut forward = ForwardClient::new(channel)
        .max_decoding_message_size(PEER_BYTES_MAX)
        .max_encoding_message_size(PEER_BYTES_MAX);
    let message = v1::PeerPayload { payload };
    let answer = match method {
        Method::Append => raft.append(message).await,
        Method::Vote => raft.vote(message).await,
        Method::PreVote => raft.pre_vote(message).await,
        Method::TransferLeader => raft.transfer_leader(message).await,
        Method::Propose => forward.propose(message).await,
        Method::Linearize => forward.linearize(message).await,
        Method::Snapshot => {
            let part = v1::SnapshotPart {
                data: message.payload,
                last: true,
                ..v1::SnapshotPart::default()
            };
            raft.snapshot(tokio_stream::once(part)).await
        }
    };
    answer.map(|answer| answer.into_inner().payload)
}

/// Certainly not delivered, certainly not carried out, or unknown.
fn error_of(to: &Target, status: &Status) -> TransportError {
    let (to, reason) = (to.id, status.message().to_owned());
    let removed = model::rejection::Code::NodeRemoved.as_str();
    match status.code() {
        Code::PermissionDenied if ClientError::from(status.clone()).reason == removed => {
            TransportError::Removed { to }
        }
        Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented
        | Code::ResourceExhausted => TransportError::Refused { to, reason },
        _ if never_connected(status) => TransportError::Unreachable { to, reason },
        _ => TransportError::Lost { to, reason },
    }
}

/// Whether there was no connection to send anything over.
fn never_connected(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}
