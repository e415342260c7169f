//! Three nodes over real gRPC on loopback, in real time.

use super::world::{TestClock, apply_tenant, config, has_tenant, log_config, soon};
use crate::{Config, Error, Foundation, GrpcTransport, Ledger, Peer, PeerService, RaftLedger};
use api::{
    Fabric, Tcp, TcpConfig,
    fabric::{AcceptConfig, WireConfig, accept, server},
    v1::{forward_server::ForwardServer, raft_server::RaftServer},
};
use model::NodeId;
use std::{path::PathBuf, sync::Arc, time::Duration};
use storage::{
    disk::simulated::{SimulatedDisk, SimulatedDiskConfig},
    kv::simulated::{SimulatedHome, SimulatedKvConfig},
};
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};

/// A port that nobody uses now.
async fn free_addr() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

async fn serve(fabric: Tcp, addr: String, service: PeerService) -> JoinHandle<()> {
    let incoming = fabric.listen(addr).await.unwrap();
    let handshake = |io| -> api::BoxFuture<'static, _> { Box::pin(async move { Ok((io, ())) }) };
    let connections = accept(incoming, handshake, AcceptConfig::default());
    let served = server(WireConfig::default())
        .add_service(RaftServer::new(service.clone()))
        .add_service(ForwardServer::new(service))
        .serve_with_incoming(connections);
    tokio::spawn(async move { served.await.unwrap() })
}

async fn node(id: NodeId, addr: &str) -> (RaftLedger, JoinHandle<()>) {
    let fabric = Tcp::new(TcpConfig::default());
    let transport = GrpcTransport::insecure(fabric, WireConfig::default());
    // Timings for a machine that is busy with other tests.
    let config =
        Config { heartbeat_ms: 100, election_min_ms: 600, election_max_ms: 900, ..config() };
    let (disk, dir) =
        (SimulatedDisk::new(SimulatedDiskConfig::default()), PathBuf::from("/ledger"));
    RaftLedger::make_log(&disk, &dir, &log_config()).await.unwrap();
    let (ledger, _) = RaftLedger::start(Foundation {
        node_id: id,
        config,
        log_config: log_config(),
        disk: disk.clone(),
        snapshot_disk: disk,
        dir,
        kv_home: SimulatedHome::new(SimulatedKvConfig::default()),
        transport: Arc::new(transport),
        clock: TestClock::start(),
    })
    .await
    .unwrap();
    let server = serve(fabric, addr.to_owned(), ledger.peer_service()).await;
    (ledger, server)
}

#[tokio::test]
async fn three_nodes_over_grpc_replicate_and_outlive_their_leader() {
    let mut nodes = Vec::new();
    for id in (1..=3).map(NodeId) {
        let addr = free_addr().await;
        let (ledger, server) = node(id, &addr).await;
        let peer = Peer { peer_addr: addr, client_addr: String::new() };
        match nodes.first() {
            None => ledger.bootstrap(peer).await.unwrap(),
            Some((first, _)) => {
                let first: &RaftLedger = first;
                first.add_node(id, peer, soon()).await.unwrap();
            }
        }
        nodes.push((ledger, server));
    }
    for (ledger, _) in &nodes {
        apply_tenant(ledger, &format!("by-{}", ledger.node_id())).await;
    }
    for (ledger, _) in &nodes {
        ledger.linearize(soon()).await.unwrap();
        for id in 1..=3 {
            assert!(ledger.read(|state| has_tenant(state, &format!("by-{id}"))));
        }
    }
    let leads = |(ledger, _): &(RaftLedger, _)| ledger.leadership().borrow().is_leader;
    let at = nodes.iter().position(leads).unwrap();
    let (leader, server) = nodes.remove(at);
    server.abort();
    leader.kill().await;
    // A try that the dying leader swallowed is unknown; it is the test's to repeat.
    let until = soon();
    let proposed = || super::world::proposal(super::world::tenant("after"));
    while let Err(error) = nodes[0].0.propose(proposed()).await {
        assert_eq!(error, Error::Unknown);
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    nodes[1].0.linearize(soon()).await.unwrap();
    assert!(nodes[1].0.read(|state| has_tenant(state, "after")));
}
