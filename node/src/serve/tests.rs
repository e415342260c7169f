//! Whole control nodes on loopback: bootstrap, join, restart, hand-over.

use super::{Begin, Node, Seams, ServeError, serve};
use crate::{
    Config, Folders, JoinError, PassportError, SystemClock, Ticket, bootstrap::bootstrap,
    join::time, peers::wrap_as_peer, ports::listen,
};
use api::{Tcp, fabric::WireConfig, v1};
use consensus::{Ledger, Proposal, StartError};
use identity::{CertificateBundle, SystemEntropy};
use model::{Caller, Clock, Command, Draft, Name};
use std::{future::pending, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};
use storage::{
    Disk,
    disk::real::{RealDisk, RealDiskConfig},
    kv::sled::{SledConfig, SledHome},
};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tonic::transport::Channel;

struct Running {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), ServeError>>,
    client: String,
}

fn config(folder: &Path) -> Config {
    let mut config = Config::default();
    config.node.data = folder.to_owned();
    config.node.client_addr = "127.0.0.1:0".to_owned();
    config.node.peer_addr = "127.0.0.1:0".to_owned();
    config.server.join_retry_ms = 50;
    config.server.stop_ms = 1_000;
    config
}

/// Waits until something is there, for as long as a slow machine may need.
async fn until<T, Fut: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> Fut) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn run(folder: &Path, begin: Begin) -> Running {
    run_with(config(folder), begin).await
}

async fn run_with(config: Config, begin: Begin) -> Running {
    let folder = config.node.data.clone();
    let _ = std::fs::remove_file(folder.join("addr.json"));
    let (stop, stopped) = oneshot::channel::<()>();
    let until_stopped = async move {
        let _ = stopped.await;
    };
    let mut ended = tokio::spawn(serve(config, begin, until_stopped));
    let file = folder.join("addr.json");
    let client = until("the node serves", || {
        let text = std::fs::read(&file).ok();
        std::future::ready(text.map(|text| {
            let addr: serde_json::Value = serde_json::from_slice(&text).unwrap();
            addr["client"].as_str().unwrap().to_owned()
        }))
    });
    let client = tokio::select! {
        client = client => client,
        early = &mut ended => panic!("the node ended: {early:?}"),
    };
    Running { stop, ended, client }
}

impl Running {
    async fn stop(self) {
        let _ = self.stop.send(());
        self.ended.await.unwrap().unwrap();
    }
}

fn admin(folder: &Path, addr: &str) -> Channel {
    let bundle = CertificateBundle::load(&folder.join("admin")).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let tls = identity::client_config(bundle.trust(), Some(&bundle), time(&clock)).unwrap();
    let wrap = move |io| wrap_as_peer(io, tls.clone(), None);
    api::fabric::channel(&Tcp::default(), addr, wrap, WireConfig::default()).unwrap()
}

async fn apply_tenant(channel: Channel, name: &str) -> Result<(), tonic::Status> {
    let tenant = Some(v1::TenantDraft {
        resource: format!("tenants/{name}"),
        display_name: name.to_owned(),
        ..Default::default()
    });
    let asked = v1::ApplyTenantRequest { tenant, ..Default::default() };
    v1::tenants_client::TenantsClient::new(channel).apply(asked).await.map(drop)
}

async fn tenants(channel: Channel) -> Vec<String> {
    let asked = v1::ListRequest::default();
    let answer = v1::tenants_client::TenantsClient::new(channel).list(asked).await;
    let tenants = answer.map(|answer| answer.into_inner().tenants).unwrap_or_default();
    tenants.into_iter().map(|tenant| tenant.meta.unwrap().name).collect()
}

async fn voters(channel: Channel) -> Option<usize> {
    let asked = v1::GetControlPlaneStatusRequest {};
    let answer = v1::control_plane_client::ControlPlaneClient::new(channel).get_status(asked).await;
    let members = answer.ok()?.into_inner().members;
    Some(members.iter().filter(|member| member.role() != v1::MemberRole::Learner).count())
}

async fn ticket(channel: Channel, server: &str) -> Ticket {
    let kind = v1::token_kind::Kind::Node(v1::NodeToken {});
    let kind = Some(v1::TokenKind { kind: Some(kind) });
    let asked = v1::CreateTokenRequest { kind, ..Default::default() };
    let token = v1::tokens_client::TokensClient::new(channel).create(asked).await.unwrap();
    let token = token.into_inner().token.parse().unwrap();
    Ticket { token, servers: vec![server.to_owned()], learner: false }
}

#[tokio::test]
async fn a_node_is_bootstrapped_stopped_and_started_again_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let first = run(folder.path(), Begin::Bootstrap).await;
    let client: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("admin/client.json")).unwrap())
            .unwrap();
    assert_eq!(client["servers"][0], first.client.as_str());
    apply_tenant(admin(folder.path(), &first.client), "acme").await.unwrap();
    let locked = serve(config(folder.path()), Begin::Again, std::future::ready(())).await;
    assert!(matches!(locked, Err(ServeError::Storage(_))), "{locked:?}");
    first.stop().await;

    let twice = serve(config(folder.path()), Begin::Bootstrap, std::future::ready(())).await;
    let exists = matches!(twice, Err(ServeError::Passport(PassportError::Exists { .. })));
    assert!(exists, "{twice:?}");
    let again = run(folder.path(), Begin::Again).await;
    let names = until("the tenant is still there", || async {
        Some(tenants(admin(folder.path(), &again.client)).await).filter(|names| !names.is_empty())
    });
    assert_eq!(names.await, ["acme"]);
    again.stop().await;
}

/// The settings of a build that knows so many rules levels.
fn knowing(rules_max: u32, folder: &Path) -> Config {
    let mut config = config(folder);
    config.raft.rules_max = rules_max;
    config
}

#[tokio::test]
async fn a_build_that_does_not_know_the_rules_in_force_neither_joins_nor_starts() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = run_with(knowing(2, folder.path()), Begin::Bootstrap).await;
    let channel = admin(folder.path(), &first.client);
    until("the level rises by itself", || async {
        let asked = v1::GetControlPlaneStatusRequest {};
        let mut client = v1::control_plane_client::ControlPlaneClient::new(channel.clone());
        let status = client.get_status(asked).await.ok()?.into_inner();
        (status.rules == 2 && status.members[0].rules_max == 2).then_some(())
    })
    .await;
    let ticket = ticket(channel.clone(), &first.client).await;
    let older = || serve(knowing(1, other.path()), Begin::Join(ticket.clone()), pending());
    let refused = tokio::time::timeout(Duration::from_secs(60), older()).await.unwrap();
    let Err(ServeError::Join(JoinError::Refused { status, .. })) = refused else {
        panic!("{refused:?}");
    };
    assert!(status.message().contains("rules level 2 is in force"), "{status:?}");
    let mut tokens = v1::tokens_client::TokensClient::new(channel);
    let listed = tokens.list(v1::ListRequest::default()).await.unwrap().into_inner().tokens;
    assert_eq!(listed[0].uses_left, 1, "the token is good for a newer build");
    first.stop().await;
    let refused = serve(knowing(1, folder.path()), Begin::Again, pending()).await.unwrap_err();
    assert!(matches!(refused, ServeError::Ledger(StartError::Rules(_))), "{refused:?}");
    assert_eq!(refused.lasting().map(|(reason, _)| reason), Some("RULES_UNKNOWN"));
    run_with(knowing(2, folder.path()), Begin::Again).await.stop().await;
}

#[tokio::test]
async fn a_folder_without_an_identity_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = serve(config(folder.path()), Begin::Again, std::future::ready(())).await;
    assert!(matches!(refused, Err(ServeError::Passport(PassportError::None { .. }))));
}

#[tokio::test]
async fn three_nodes_take_writes_anywhere_and_go_on_without_their_leader() {
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut nodes = vec![run(folders[0].path(), Begin::Bootstrap).await];
    let first = admin(folders[0].path(), &nodes[0].client);
    for folder in &folders[1..] {
        let ticket = ticket(first.clone(), &nodes[0].client).await;
        nodes.push(run(folder.path(), Begin::Join(ticket)).await);
    }
    until("all three vote", || async { voters(first.clone()).await.filter(|voters| *voters == 3) })
        .await;
    // Through a node that does not lead, as likely as not.
    for (number, node) in nodes.iter().enumerate() {
        let channel = admin(folders[0].path(), &node.client);
        apply_tenant(channel, &format!("by-{number}")).await.unwrap();
    }
    nodes.remove(0).stop().await;
    let channel = admin(folders[0].path(), &nodes[0].client);
    until("the others take writes", || async {
        apply_tenant(channel.clone(), "without-the-first").await.ok()
    })
    .await;
    assert_eq!(tenants(channel).await, ["by-0", "by-1", "by-2", "without-the-first"]);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_node_whose_log_is_gone_is_refused_and_begins_no_second_cluster() {
    let place = tempfile::tempdir().unwrap();
    let folders = Folders::new(place.path());
    let first = run(place.path(), Begin::Bootstrap).await;
    apply_tenant(admin(place.path(), &first.client), "acme").await.unwrap();
    first.stop().await;
    // First what an operator tries whose log is damaged, then everything but the identity.
    for gone in [&[folders.log()][..], &[folders.snapshots(), folders.kv()][..]] {
        for folder in gone {
            std::fs::remove_dir_all(folder).unwrap();
        }
        let refused = serve(config(place.path()), Begin::Again, std::future::ready(())).await;
        let Err(ServeError::Ledger(error @ StartError::LogLost { .. })) = refused else {
            panic!("{gone:?}: {refused:?}");
        };
        assert!(error.to_string().contains("must not vote again"), "{error}");
        assert!(!folders.log().exists(), "a log was made");
    }
}

#[tokio::test]
async fn what_a_node_keeps_is_for_its_owner_only() {
    let place = tempfile::tempdir().unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let new = place.path().join("new");
    let existing = place.path().join("existing");
    std::fs::create_dir(&existing).unwrap();
    set(&existing, 0o755);
    for data in [new, existing] {
        run(&data, Begin::Bootstrap).await.stop().await;
        assert_eq!(mode(&data), 0o700);
        let segment = Folders::new(&data).log().join("segment-0000000001");
        assert_eq!(mode(&segment), 0o600);
        // Opened by hand in between: closed again.
        set(&data, 0o755);
        run(&data, Begin::Again).await.stop().await;
        assert_eq!(mode(&data), 0o700);
    }
}

/// Keeps the one thread of `disk` busy until the file it answers is opened for writing.
async fn jam(disk: &RealDisk, place: &Path) -> std::path::PathBuf {
    let pipe = place.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    // Opening a pipe for reading waits for somebody who writes.
    let (jammed, opened) = (disk.clone(), pipe.clone());
    tokio::spawn(async move { jammed.sync_dir(&opened).await });
    until("the thread is busy", || {
        let (behind, path) = (disk.clone(), pipe.clone());
        tokio::spawn(async move { behind.exists(&path).await });
        std::future::ready((disk.status().waiting > 1).then_some(()))
    })
    .await;
    pipe
}

#[tokio::test]
async fn writes_do_not_wait_behind_images_and_snapshots() {
    let place = tempfile::tempdir().unwrap();
    let config = config(place.path());
    let folders = Folders::new(place.path());
    let disk = RealDisk::start(&config.disk).unwrap();
    let one = RealDiskConfig { threads: 1, ..RealDiskConfig::new() };
    let bulk_disk = RealDisk::start(&one).unwrap();
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy::new()));
    bootstrap(&disk, &config, (clock.now(), &*entropy)).await.unwrap();
    let (client, peer) = listen(Tcp::default(), &config).await.unwrap();
    let seams = Seams {
        fabric: Tcp::default(),
        disk,
        bulk_disk: bulk_disk.clone(),
        kv_home: SledHome::new(SledConfig::new(folders.kv())),
        clock,
        entropy,
    };
    let mut node = Node::start(config, seams, client, peer).await.unwrap();
    node.settled().await;

    let pipe = jam(&bulk_disk, place.path()).await;
    let name = Name::new("acme").unwrap();
    let (labels, annotations) = Default::default();
    let draft = Draft { name, labels, annotations, if_revision: None };
    let outcome = node.shared().ledger.propose(Proposal {
        command: Command::ApplyTenant { draft, display_name: "Acme".to_owned() },
        caller: Caller::System,
        request_id: None,
        deadline: Instant::now() + Duration::from_secs(20),
    });
    assert!(outcome.await.unwrap().result.is_ok());
    assert!(bulk_disk.status().waiting > 0, "the jam broke up before the write was done");
    drop(std::fs::OpenOptions::new().write(true).open(&pipe).unwrap());
    node.stop().await;
}
