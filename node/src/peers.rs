//! gRPC channels to the peer ports of the other control nodes.
//!
//! A channel connects when first used and again by itself. It is kept per node and address; whoever
//! sees it fail may drop it by [`Peers::forget`]. The TLS handshake proves that the node dialled is
//! the one that answers, whatever the address says.

use api::{BoxFuture, Fabric, fabric::WireConfig};
use identity::{ClientConfig, Principal};
use model::NodeId;
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};
use tonic::{Status, transport::Channel};

type Open = dyn Fn(NodeId, &str) -> Result<Channel, Status> + Send + Sync;
type Resolve = dyn Fn(NodeId) -> Option<String> + Send + Sync;

/// Channels by node. Clones share them.
#[derive(Clone)]
pub struct Peers {
    open: Arc<Open>,
    resolve: Arc<Resolve>,
    kept: Arc<Mutex<BTreeMap<NodeId, (String, Channel)>>>,
}

impl Peers {
    /// Dials over `fabric` with `tls`, at the peer address that `resolve` knows for a node.
    pub fn new<F: Fabric>(
        fabric: F,
        tls: Arc<ClientConfig>,
        wire: WireConfig,
        resolve: impl Fn(NodeId) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let open = move |id: NodeId, addr: &str| {
            let tls = tls.clone();
            let wrap = move |io| wrap_as_peer(io, tls.clone(), Some(id));
            api::fabric::channel(&fabric, addr, wrap, wire)
                .map_err(|error| Status::unavailable(format!("could not dial node {id}: {error}")))
        };
        Self { open: Arc::new(open), resolve: Arc::new(resolve), kept: Arc::default() }
    }

    /// Peers that cannot be reached: for a node on its own, and for tests.
    pub fn none() -> Self {
        let open = |id: NodeId, _addr: &str| {
            Err(Status::unavailable(format!("could not dial node {id}: there is no network")))
        };
        Self { open: Arc::new(open), resolve: Arc::new(|_| None), kept: Arc::default() }
    }

    /// A channel to the peer port of a node.
    ///
    /// # Errors
    /// UNAVAILABLE when its address is not known.
    pub fn channel(&self, id: NodeId) -> Result<Channel, Status> {
        let addr = (self.resolve)(id)
            .ok_or_else(|| Status::unavailable(format!("could not find node {id}")))?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, channel)) = kept.get(&id)
            && *known == addr
        {
            return Ok(channel.clone());
        }
        let channel = (self.open)(id, &addr)?;
        kept.insert(id, (addr, channel.clone()));
        Ok(channel)
    }

    /// Drops the channel to a node: the next use dials anew.
    pub fn forget(&self, id: NodeId) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// Dials any control node at the address of its peer port, whichever it is.
pub(crate) fn dialer<F: Fabric>(
    fabric: &F,
    tls: Arc<ClientConfig>,
    wire: WireConfig,
) -> crate::membership::DialPeer {
    let fabric = fabric.clone();
    Arc::new(move |addr: &str| {
        let tls = tls.clone();
        let wrap = move |io| wrap_as_peer(io, tls.clone(), None);
        api::fabric::channel(&fabric, addr, wrap, wire)
            .map_err(|error| Status::unavailable(format!("could not dial {addr}: {error}")))
    })
}

/// The `wrap` of [`api::fabric::channel`] that speaks TLS and insists on node `id`, if one is named.
pub(crate) fn wrap_as_peer<Io>(
    io: Io,
    tls: Arc<ClientConfig>,
    id: Option<NodeId>,
) -> BoxFuture<'static, io::Result<identity::ClientStream<Io>>>
where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    Box::pin(async move {
        let (stream, peer) = identity::connect(io, tls).await.map_err(io::Error::other)?;
        match (id, &peer.principal) {
            (None, Principal::Node { .. }) => Ok(stream),
            (Some(NodeId(wanted)), Principal::Node { id }) if *id == wanted => Ok(stream),
            _ => Err(io::Error::other(format!("{} answered instead", peer.principal))),
        }
    })
}
