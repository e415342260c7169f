//! The real wire: gRPC over a [`Fabric`], TLS with both ends proven.
//!
//! One connection per peer and lane, made when first used. A call that does not end in time takes
//! its connection with it: HTTP/2 over a dead link would keep every later call waiting. Only what
//! surely found no connection counts as unreachable; everything else that fails may have arrived.

use super::{Method, Target, Transport, TransportError};
use api::{
    Fabric,
    fabric::{AddressError, WireConfig, channel, plain},
    limits::PEER_BYTES_MAX,
    status::ClientError,
    v1::{PeerPayload, SnapshotPart, forward_client::ForwardClient, raft_client::RaftClient},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use identity::{ClientConfig, Principal};
use std::{
    collections::BTreeMap,
    error::Error,
    io,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::time::Instant;
use tonic::{Code, Response, Status, transport::Channel};

type Open = dyn Fn(&Target) -> Result<Channel, AddressError> + Send + Sync;

/// Calls peers by gRPC.
pub struct GrpcTransport {
    open: Box<Open>,
    connections: Arc<Connections>,
}

#[derive(Default)]
struct Connections {
    by_target: Mutex<BTreeMap<Target, (u64, Channel)>>,
}

impl Connections {
    fn with<R>(&self, f: impl FnOnce(&mut BTreeMap<Target, (u64, Channel)>) -> R) -> R {
        f(&mut self.by_target.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Drops a connection, unless another one took its place already.
    fn drop_number(&self, target: &Target, number: u64) {
        self.with(|by_target| {
            if by_target.get(target).is_some_and(|(current, _)| *current == number) {
                by_target.remove(target);
            }
        });
    }
}

impl GrpcTransport {
    /// Over TLS. `tls` is asked for each new connection, so that a renewed certificate is used from
    /// then on. The node that answers must prove the id that was dialled.
    pub fn new<F: Fabric>(
        fabric: F,
        wire: WireConfig,
        tls: impl Fn() -> Arc<ClientConfig> + Send + Sync + 'static,
    ) -> Self {
        let tls = Arc::new(tls);
        Self::with(move |target| {
            let (tls, id) = (tls.clone(), target.id.0);
            let wrap = move |stream: F::Io| -> BoxFuture<'static, io::Result<_>> {
                let config = tls();
                Box::pin(async move {
                    let (stream, peer) =
                        identity::connect(stream, config).await.map_err(io::Error::other)?;
                    match peer.principal == (Principal::Node { id }) {
                        true => Ok(stream),
                        false => Err(io::Error::other(format!(
                            "node {id} was dialled, {:?} answered",
                            peer.principal
                        ))),
                    }
                })
            };
            channel(&fabric, &target.peer.peer_addr, wrap, wire)
        })
    }

    /// In the clear: for tests and simulation.
    pub fn insecure<F: Fabric>(fabric: F, wire: WireConfig) -> Self {
        Self::with(move |target| channel(&fabric, &target.peer.peer_addr, plain, wire))
    }

    fn with(
        open: impl Fn(&Target) -> Result<Channel, AddressError> + Send + Sync + 'static,
    ) -> Self {
        Self { open: Box::new(open), connections: Arc::default() }
    }

    fn connection(&self, target: &Target) -> Result<(u64, Channel), AddressError> {
        self.connections.with(|by_target| {
            if let Some(connection) = by_target.get(target) {
                return Ok(connection.clone());
            }
            let number = by_target.values().map(|(number, _)| number + 1).max().unwrap_or(0);
            let connection = (number, (self.open)(target)?);
            by_target.insert(target.clone(), connection.clone());
            Ok(connection)
        })
    }
}

impl Transport for GrpcTransport {
    fn call(
        &self,
        to: &Target,
        method: Method,
        body: Bytes,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let id = to.id;
        let (number, channel) = match self.connection(to) {
            Ok(connection) => connection,
            Err(error) => {
                let error = TransportError::Unreachable { to: id, reason: error.to_string() };
                return Box::pin(async move { Err(error) });
            }
        };
        let connections = self.connections.clone();
        let target = to.clone();
        Box::pin(async move {
            match tokio::time::timeout_at(deadline, send(channel, method, body)).await {
                Ok(Ok(response)) => Ok(response.into_inner().payload),
                Ok(Err(status)) => Err(match failure(&status) {
                    Failure::Removed => TransportError::Removed { to: id },
                    Failure::Refused => {
                        TransportError::Refused { to: id, reason: status.message().to_owned() }
                    }
                    Failure::Unreachable => {
                        TransportError::Unreachable { to: id, reason: status.to_string() }
                    }
                    Failure::Lost => {
                        connections.drop_number(&target, number);
                        TransportError::Lost { to: id, reason: status.to_string() }
                    }
                }),
                Err(_) => {
                    connections.drop_number(&target, number);
                    Err(TransportError::Lost { to: id, reason: "the deadline passed".to_owned() })
                }
            }
        })
    }
}

async fn send(
    channel: Channel,
    method: Method,
    body: Bytes,
) -> Result<Response<PeerPayload>, Status> {
    let raft = |channel| {
        RaftClient::new(channel)
            .max_decoding_message_size(PEER_BYTES_MAX)
            .max_encoding_message_size(PEER_BYTES_MAX)
    };
    let forward = |channel| {
        ForwardClient::new(channel)
            .max_decoding_message_size(PEER_BYTES_MAX)
            .max_encoding_message_size(PEER_BYTES_MAX)
    };
    match method {
        Method::Append => raft(channel).append(PeerPayload { payload: body }).await,
        Method::Vote => raft(channel).vote(PeerPayload { payload: body }).await,
        Method::PreVote => raft(channel).pre_vote(PeerPayload { payload: body }).await,
        Method::TransferLeader => {
            raft(channel).transfer_leader(PeerPayload { payload: body }).await
        }
        // Each chunk is a call of its own, with its own deadline.
        Method::Snapshot => {
            let part = SnapshotPart { header: body, offset: 0, data: Bytes::new(), last: true };
            raft(channel).snapshot(futures::stream::once(async move { part })).await
        }
        Method::Propose => forward(channel).propose(PeerPayload { payload: body }).await,
        Method::Linearize => forward(channel).linearize(PeerPayload { payload: body }).await,
    }
}

enum Failure {
    Removed,
    Refused,
    Unreachable,
    Lost,
}

/// The code by which a peer says that it did not carry a call out.
pub(super) const REFUSED: Code = Code::FailedPrecondition;

fn failure(status: &Status) -> Failure {
    let mut source: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return Failure::Unreachable;
        }
        source = error.source();
    }
    let removed = model::rejection::Code::NodeRemoved.as_str();
    match status.code() {
        Code::PermissionDenied if ClientError::from(status.clone()).reason == removed => {
            Failure::Removed
        }
        // What the peer's own service, or the guard in front of it, says without doing anything.
        REFUSED | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented
            if status.source().is_none() =>
        {
            Failure::Refused
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => Failure::Lost,
    }
}
