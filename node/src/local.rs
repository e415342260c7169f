//! The client port without a wire: calls that stay in the process.
//!
//! The same services behind the same access layer as on the port; only that who calls is said instead of
//! proved by a handshake. A simulation puts its own wire in between.

use crate::{
    Members, Shared,
    access::{Access, Connection},
    ports::client_routes,
    service::inspect::Inspect,
    sessions::Sessions,
};
use api::{
    Conn, Incoming,
    fabric::{CallError, Calls, WireConfig},
};
use consensus::Ledger;
use futures::StreamExt as _;
use identity::Peer;
use std::{convert::Infallible, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};
use tonic::{
    Status,
    body::Body,
    codegen::http::{Request, Response},
    service::Routes,
};
use tower::{Layer as _, ServiceExt as _, layer::layer_fn, util::BoxCloneSyncService};

/// The services of one node, sessions of agents among them. Clones share them.
#[derive(Clone)]
pub struct LocalPort {
    services: BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>,
    slots: Arc<Semaphore>,
}

impl LocalPort {
    /// Opens the port, and begins to hold sessions; both end with the node.
    pub fn open<L: Ledger>(shared: &Shared<L>, members: &Arc<dyn Members>) -> Self {
        let sessions = Sessions::start(shared.clone());
        let held = sessions.clone();
        let inspect = Inspect {
            shared: shared.clone(),
            members: members.clone(),
            sessions: Arc::new(move || held.count()),
            parts: sessions.parts(),
        };
        let routes = client_routes(shared, members, inspect, &sessions).prepare();
        let services = Access::new(shared.clone()).layer(routes);
        let slots = shared.config.server.client_connections_max.min(Semaphore::MAX_PERMITS);
        Self {
            services: BoxCloneSyncService::new(services),
            slots: Arc::new(Semaphore::new(slots)),
        }
    }

    /// A connection of `peer`, or of somebody without a certificate. It counts as one of the port's until
    /// it is dropped with everything that was called through it.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when the port has as many as it takes.
    pub fn connect(&self, peer: Option<Peer>) -> Result<Calls, Status> {
        let slot = self.slots.clone().try_acquire_owned();
        let slot =
            slot.map_err(|_full| crate::refusal::of_ledger(&consensus::Error::Overloaded))?;
        let connection = Connection { peer: peer.map(Arc::new), slot: Arc::new(slot) };
        let named = move |mut request: Request<Body>| {
            request.extensions_mut().insert(connection.clone());
            request
        };
        let services = self.services.clone().map_request(named);
        Ok(Calls::new(services.map_err(|never: Infallible| -> CallError { match never {} })))
    }

    /// Serves gRPC over connections whose other end is known without a handshake, until there are no
    /// more. One too many is dropped.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn serve<Io>(
        self,
        incoming: Incoming<(Io, Option<Peer>)>,
        wire: WireConfig,
    ) -> Result<(), tonic::transport::Error>
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { services, slots } = self;
        let connections = incoming.filter_map(move |arrived| {
            let slot = slots.clone().try_acquire_owned().ok();
            let connection = arrived.ok().zip(slot).map(|((io, peer), slot)| {
                let (peer, slot) = (peer.map(Arc::new), Arc::new(slot));
                Ok::<_, std::io::Error>(Conn::new(io, Connection { peer, slot }))
            });
            std::future::ready(connection)
        });
        // The services take the place of the router, of which they are made.
        let instead = layer_fn(move |_routes: Routes| services.clone());
        let server = api::fabric::server(wire).layer(instead).add_routes(Routes::default());
        server.serve_with_incoming(connections).await
    }
}
