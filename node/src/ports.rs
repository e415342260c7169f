//! The two ports: what is mounted on each, and who gets as far as a handshake.
//!
//! The client port takes anybody and lets `access` judge; the peer port takes this cluster's control
//! nodes only. Connections are bounded, and each has proved who is at its other end before HTTP begins.

use crate::{
    Config, Shared,
    access::{Access, Connection},
    artifacts::Artifacts as Images,
    members::Members,
    service::{
        self, Nouns, agents::Agents, apply::Apply, bindings::RoleBindings, clusters::Clusters,
        control_plane::ControlPlane, deployments::Deployments, enrol::Enrol, forward::Forward,
        hosts::Hosts, images, inspect::Inspect, jobs::Jobs, join::Join, logs::Logs, nodes::Nodes,
        packages::Packages, raft::Raft, relay::PeerRelay, tenants::Tenants, tokens::Tokens,
        watch::Watch,
    },
    sessions::Sessions,
};
use api::{
    BoxFuture, Fabric, Incoming,
    fabric::WireConfig,
    limits::{
        CHUNK_MESSAGE_BYTES_MAX, PEER_BYTES_MAX, REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX,
        SESSION_BYTES_MAX,
    },
    v1,
};
use consensus::Ledger;
use identity::{ServerConfig, ServerStream};
use std::{io, sync::Arc};
use storage::Disk;
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// A port that is listened on.
pub struct Listener<Io> {
    /// Where it is reached, `host:port`.
    pub addr: String,
    /// Its connections.
    pub incoming: Incoming<Io>,
}

/// What distinguishes a port.
pub(crate) struct Port {
    pub(crate) name: &'static str,
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) wire: WireConfig,
    pub(crate) connections_max: usize,
    /// Ends the port: no new connections, and those there are end with their calls.
    pub(crate) stop: CancellationToken,
}

/// Services of the client port.
pub(crate) fn client_routes<L: Ledger>(
    shared: &Shared<L>,
    members: &Arc<dyn Members>,
    inspect: Inspect<L>,
    sessions: &Sessions<L>,
) -> Routes {
    let nouns = Nouns::new(shared.clone());
    macro_rules! mount {
        ($routes:expr, $($server:ident :: $kind:ident ( $service:expr )),+ $(,)?) => {
            $routes$(.add_service(
                v1::$server::$kind::new($service)
                    .max_decoding_message_size(REQUEST_BYTES_MAX)
                    .max_encoding_message_size(RESPONSE_BYTES_MAX),
            ))+
        };
    }
    mount!(
        Routes::default(),
        tenants_server::TenantsServer(Tenants(nouns.clone())),
        hosts_server::HostsServer(Hosts(nouns.clone())),
        clusters_server::ClustersServer(Clusters(nouns.clone())),
        images_server::ImagesServer(images::Images(nouns.clone())),
        packages_server::PackagesServer(Packages(nouns.clone())),
        deployments_server::DeploymentsServer(Deployments(nouns.clone())),
        jobs_server::JobsServer(Jobs(nouns.clone())),
        role_bindings_server::RoleBindingsServer(RoleBindings(nouns.clone())),
        tokens_server::TokensServer(Tokens(nouns.clone())),
        nodes_server::NodesServer(Nodes(nouns.clone())),
        apply_server::ApplyServer(Apply(nouns)),
        logs_server::LogsServer(Logs(sessions.clone())),
        watch_server::WatchServer(Watch::new(shared.clone())),
        enrol_server::EnrolServer(Enrol(shared.clone())),
        inspect_server::InspectServer(inspect),
        control_plane_server::ControlPlaneServer(ControlPlane {
            shared: shared.clone(),
            members: members.clone(),
        }),
    )
    .add_service(
        v1::agents_server::AgentsServer::new(Agents(sessions.clone()))
            .max_decoding_message_size(SESSION_BYTES_MAX)
            .max_encoding_message_size(SESSION_BYTES_MAX),
    )
}

/// Services of the peer port.
pub(crate) fn peer_routes<L: Ledger>(
    shared: &Shared<L>,
    members: &Arc<dyn Members>,
    inspect: Inspect<L>,
    sessions: &Sessions<L>,
) -> Routes {
    let (shared, members) = (shared.clone(), members.clone());
    let raft = Raft { shared: shared.clone(), members: members.clone() };
    let forward = Forward { shared: shared.clone(), members: members.clone() };
    Routes::default()
        .add_service(
            v1::raft_server::RaftServer::new(raft)
                .max_decoding_message_size(PEER_BYTES_MAX)
                .max_encoding_message_size(PEER_BYTES_MAX),
        )
        .add_service(
            v1::forward_server::ForwardServer::new(forward)
                .max_decoding_message_size(PEER_BYTES_MAX)
                .max_encoding_message_size(PEER_BYTES_MAX),
        )
        .add_service(v1::join_server::JoinServer::new(Join { shared, members }))
        .add_service(v1::inspect_server::InspectServer::new(inspect))
        .add_service(v1::peer_relay_server::PeerRelayServer::new(PeerRelay(sessions.clone())))
}

/// Adds images to the services of the client port.
pub(crate) fn with_images<L: Ledger, D: Disk>(routes: Routes, images: &Images<L, D>) -> Routes {
    let service = service::artifacts::Artifacts(images.clone());
    routes.add_service(
        v1::artifacts_server::ArtifactsServer::new(service)
            .max_decoding_message_size(CHUNK_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(CHUNK_MESSAGE_BYTES_MAX),
    )
}

/// Adds copies of images to the services of the peer port.
pub(crate) fn with_copies<L: Ledger, D: Disk>(routes: Routes, images: &Images<L, D>) -> Routes {
    let service = service::peer_artifacts::PeerArtifacts(images.clone());
    routes.add_service(
        v1::peer_artifacts_server::PeerArtifactsServer::new(service)
            .max_decoding_message_size(CHUNK_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(CHUNK_MESSAGE_BYTES_MAX),
    )
}

/// Serves `routes` on a port until it is stopped.
pub(crate) fn serve_port<L: Ledger, F: Fabric>(
    shared: &Shared<L>,
    incoming: Incoming<F::Io>,
    routes: Routes,
    port: Port,
) -> JoinHandle<()> {
    let Port { name, tls, wire, connections_max, stop } = port;
    let slots = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
    let handshake = move |io: F::Io| -> BoxFuture<'static, Proven<F::Io>> {
        let (tls, slots) = (tls.clone(), slots.clone());
        Box::pin(async move {
            let Ok(slot) = slots.try_acquire_owned() else {
                tracing::warn!(port = name, "closed a connection, the port has too many");
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            match identity::accept(io, tls).await {
                Ok((stream, peer)) => {
                    let peer = peer.map(Arc::new);
                    Ok((stream, Connection { peer, slot: Arc::new(slot) }))
                }
                Err(error) => {
                    tracing::debug!(port = name, %error, "refused a connection");
                    Err(io::Error::other(error))
                }
            }
        })
    };
    let connections = api::fabric::accept(incoming, handshake, shared.config.accept);
    let server = api::fabric::server(wire).layer(Access::new(shared.clone())).add_routes(routes);
    let ended = stop.clone().cancelled_owned();
    tokio::spawn(async move {
        let served = server.serve_with_incoming_shutdown(connections, ended).await;
        if let Err(error) = served {
            tracing::error!(port = name, %error, "the port ended");
        } else if !stop.is_cancelled() {
            tracing::error!(port = name, "the port ended by itself");
        }
    })
}

/// A connection and who is at its other end.
type Proven<Io> = io::Result<(ServerStream<Io>, Connection)>;

/// The two listeners of a configuration, over TCP.
///
/// # Errors
/// When an address cannot be listened on.
pub(crate) async fn listen(
    tcp: api::Tcp,
    config: &Config,
) -> io::Result<(Listener<tokio::net::TcpStream>, Listener<tokio::net::TcpStream>)> {
    let (client, client_incoming) = tcp.bind(&config.node.client_addr).await?;
    let (peer, peer_incoming) = tcp.bind(&config.node.peer_addr).await?;
    Ok((
        Listener { addr: client.to_string(), incoming: client_incoming },
        Listener { addr: peer.to_string(), incoming: peer_incoming },
    ))
}
