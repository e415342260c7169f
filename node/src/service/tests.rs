//! The services over real TLS: enrolment, watches, pages, dry runs, and the way back.

mod guarantees;

use crate::{
    Config, WatchConfig,
    testing::{
        TestNode, cluster, deployment, deployment_of, digest, host, image, name, operator, package,
        spec, tenant,
    },
};
use api::v1;
use consensus::Ledger;
use identity::{CertificateRequest, JoinToken, Principal};
use model::{Command, Role, Scope, TokenKind};
use std::collections::BTreeSet;
use tonic::{Code, Status, transport::Channel};

fn reason(status: &Status) -> String {
    api::status::ClientError::from(status.clone()).reason
}

async fn admin(node: &TestNode) -> Channel {
    node.bind("root", Scope::Cluster, Role::Admin).await;
    node.client(Some(operator("root")))
}

async fn token(node: &TestNode, kind: TokenKind) -> JoinToken {
    let sha256 = node.shared.authority.sha256();
    let token = JoinToken::generate(sha256, &*node.shared.entropy).unwrap();
    let command = Command::CreateToken {
        id: name(token.id()),
        kind,
        secret_hash: token.hash().to_string(),
        expires_at: node.shared.clock.now().plus_ms(60_000),
        uses: 1,
    };
    node.decide(command).await;
    token
}

fn enrol(token: &JoinToken, kind: v1::EnrolKind) -> (CertificateRequest, v1::EnrolRequest) {
    let request = CertificateRequest::generate(&Principal::Node { id: 0 }).unwrap();
    let asked = v1::EnrolRequest {
        token: token.to_string(),
        csr_pem: request.request_pem().to_owned(),
        kind: kind.into(),
        ..Default::default()
    };
    (request, asked)
}

#[tokio::test]
async fn a_token_makes_one_agent_and_registers_its_host() {
    let node = TestNode::start().await;
    node.decide(tenant("acme")).await;
    let token = token(&node, TokenKind::Agent { tenant: name("acme") }).await;
    let (request, mut asked) = enrol(&token, v1::EnrolKind::Agent);
    asked.host = Some("h1".to_owned());
    let mut client = v1::enrol_client::EnrolClient::new(node.pinned());
    let answer = client.enrol(asked.clone()).await.unwrap().into_inner();
    let bundle = request.complete(&answer.cert_pem, &answer.ca_pem).unwrap();
    assert_eq!(bundle.identity().principal.to_string(), "system:agent:acme/h1");
    assert_eq!(answer.tenant.as_deref(), Some("acme"));
    let known = node.shared.ledger.read(|state| state.host(&name("acme"), &name("h1")).is_some());
    assert!(known, "the host is registered");
    let again = client.enrol(asked).await.unwrap_err();
    assert_eq!(again.code(), Code::Unauthenticated, "the token is spent: {again:?}");
}

#[tokio::test]
async fn the_same_request_gets_the_same_node_id_and_nobody_else_does() {
    let node = TestNode::start().await;
    let first = token(&node, TokenKind::Node).await;
    let second = token(&node, TokenKind::Node).await;
    let mut client = v1::enrol_client::EnrolClient::new(node.pinned());
    let (_, mut asked) = enrol(&first, v1::EnrolKind::Node);
    let at = node.shared.clock.now().0;
    asked.request_id = format!("{at}-000102030405060708090a0b0c0d0e0f");
    let id = client.enrol(asked.clone()).await.unwrap().into_inner().node_id.unwrap();
    // The token has no use left, and still the lost answer can be had again.
    let known = node.shared.ledger.read(|state| state.tokens.contains(&name(first.id())));
    if known {
        let again = client.enrol(asked.clone()).await.unwrap().into_inner().node_id.unwrap();
        assert_eq!(again, id);
    }
    // Another key under the same request id is another request: the token is spent.
    let (_, other) = enrol(&first, v1::EnrolKind::Node);
    let stolen = v1::EnrolRequest { csr_pem: other.csr_pem, ..asked };
    assert!(client.enrol(stolen).await.is_err());
    let (_, asked) = enrol(&second, v1::EnrolKind::Node);
    let other = client.enrol(asked).await.unwrap().into_inner().node_id.unwrap();
    assert!(other > id && id > 1, "{other} and {id}");
}

#[tokio::test]
async fn a_bad_request_costs_no_token() {
    let node = TestNode::start().await;
    let token = token(&node, TokenKind::Operator { name: name("ann") }).await;
    let mut client = v1::enrol_client::EnrolClient::new(node.pinned());
    let (_, good) = enrol(&token, v1::EnrolKind::Operator);
    let forged: String =
        good.token.chars().rev().skip(1).collect::<String>().chars().rev().collect();
    let last = if good.token.ends_with('a') { 'b' } else { 'a' };
    let bad = [
        v1::EnrolRequest { csr_pem: "nonsense".to_owned(), ..good.clone() },
        v1::EnrolRequest { kind: v1::EnrolKind::Node.into(), ..good.clone() },
        v1::EnrolRequest { host: Some("h1".to_owned()), ..good.clone() },
        v1::EnrolRequest { token: format!("{forged}{last}"), ..good.clone() },
    ];
    for asked in bad {
        assert!(client.enrol(asked.clone()).await.is_err(), "{asked:?}");
    }
    client.enrol(good).await.unwrap();
}

#[tokio::test]
async fn a_list_is_paged_at_one_revision() {
    let node = TestNode::start().await;
    let channel = admin(&node).await;
    node.decide(tenant("acme")).await;
    node.decide(tenant("b-other")).await;
    node.decide(host("b-other", "h0")).await;
    for number in 1..=5 {
        node.decide(host("acme", &format!("h{number}"))).await;
    }
    let mut hosts = v1::hosts_client::HostsClient::new(channel);
    let mut asked =
        v1::ListRequest { tenant: "acme".to_owned(), page_size: 2, ..Default::default() };
    let mut names = Vec::new();
    let mut revisions = BTreeSet::new();
    loop {
        let page = hosts.list(asked.clone()).await.unwrap().into_inner();
        names.extend(page.hosts.into_iter().map(|host| host.meta.unwrap().name));
        revisions.insert(page.revision);
        if page.next_page_token.is_empty() {
            break;
        }
        asked.page_token = page.next_page_token;
        node.decide(host("acme", &format!("late-{}", names.len()))).await;
    }
    assert_eq!(names, ["h1", "h2", "h3", "h4", "h5"]);
    assert_eq!(revisions.len(), 1);
}

#[tokio::test]
async fn a_dry_run_answers_as_the_change_would_and_changes_nothing() {
    let node = TestNode::start().await;
    let channel = admin(&node).await;
    node.decide(tenant("acme")).await;
    let before = node.shared.ledger.read(|state| state.globals.revision.0);
    let mut hosts = v1::hosts_client::HostsClient::new(channel);
    let mut asked = v1::ApplyHostRequest {
        host: Some(v1::HostDraft {
            resource: "tenants/acme/hosts/h1".to_owned(),
            ..Default::default()
        }),
        validate_only: true,
        ..Default::default()
    };
    let outcome = hosts.apply(asked.clone()).await.unwrap().into_inner();
    assert_eq!((outcome.changed, outcome.revision), (true, before));
    assert_eq!(node.shared.ledger.read(|state| state.globals.revision.0), before);
    asked.host = Some(v1::HostDraft {
        resource: "tenants/nowhere/hosts/h1".to_owned(),
        ..Default::default()
    });
    let refused = hosts.apply(asked).await.unwrap_err();
    assert_eq!(reason(&refused), "UNKNOWN_TENANT");
}

#[tokio::test]
async fn a_repeat_of_a_request_id_is_done_once() {
    let node = TestNode::start().await;
    let channel = admin(&node).await;
    let mut tenants = v1::tenants_client::TenantsClient::new(channel);
    let at = node.shared.clock.now().0;
    let asked = v1::ApplyTenantRequest {
        tenant: Some(v1::TenantDraft {
            resource: "tenants/acme".to_owned(),
            display_name: "acme".to_owned(),
            if_revision: Some(0),
            ..Default::default()
        }),
        validate_only: false,
        request_id: format!("{at}-00000000000000000000000000000001"),
    };
    let first = tenants.apply(asked.clone()).await.unwrap().into_inner();
    let again = tenants.apply(asked.clone()).await.unwrap().into_inner();
    assert_eq!(first, again);
    let other = v1::ApplyTenantRequest { request_id: String::new(), ..asked };
    assert!(tenants.apply(other).await.is_err(), "it exists already");
}

#[tokio::test]
async fn a_rollback_asks_for_the_earlier_spec_as_a_new_generation() {
    let node = TestNode::start().await;
    let channel = admin(&node).await;
    node.decide(tenant("acme")).await;
    node.decide(cluster("acme", "c1")).await;
    node.decide(image("acme", digest(1))).await;
    node.decide(package("acme", "p1", digest(1))).await;
    node.decide(deployment("acme", "d1", spec("p1", "c1"))).await;
    let mut changed = spec("p1", "c1");
    changed.strategy.max_unavailable = 7;
    node.decide(deployment("acme", "d1", changed)).await;
    let asked = v1::RollbackDeploymentRequest {
        resource: "tenants/acme/deployments/d1".to_owned(),
        ..Default::default()
    };
    let mut deployments = v1::deployments_client::DeploymentsClient::new(channel);
    deployments.rollback(asked.clone()).await.unwrap();
    let found = deployment_of(&node, "acme", "d1");
    assert_eq!((found.spec.strategy.max_unavailable, found.meta.generation), (1, 3));
    let unknown = v1::RollbackDeploymentRequest { generation: 99, ..asked };
    assert!(deployments.rollback(unknown).await.is_err());
}

#[tokio::test]
async fn a_watch_of_a_tenant_shows_all_of_it_and_nothing_else() {
    let node = TestNode::start().await;
    node.decide(tenant("acme")).await;
    node.decide(tenant("other")).await;
    let from = node.shared.ledger.read(|state| state.globals.revision.0);
    node.bind("ann", Scope::Tenant(name("acme")), Role::Viewer).await;
    node.decide(host("other", "h1")).await;
    node.decide(host("acme", "h1")).await;
    let asked = v1::WatchRequest {
        tenant: "acme".to_owned(),
        from_revision: Some(from),
        include_previous: true,
        ..Default::default()
    };
    let channel = node.client(Some(operator("ann")));
    let mut watch = v1::watch_client::WatchClient::new(channel);
    let mut events = watch.watch(asked).await.unwrap().into_inner();
    let first = events.message().await.unwrap().unwrap();
    assert_eq!(
        (first.name.as_str(), first.r#type()),
        ("tenants/acme/hosts/h1", v1::WatchType::Added)
    );
    assert!(first.previous.is_none());
    node.decide(Command::CordonHost { tenant: name("acme"), host: name("h1"), cordoned: true })
        .await;
    let second = events.message().await.unwrap().unwrap();
    assert_eq!(second.r#type(), v1::WatchType::Modified);
    assert!(second.previous.is_some() && second.last && second.revision > first.revision);
    // The role is taken away: so is the watch.
    let (operator, scope) = (name("ann"), Scope::Tenant(name("acme")));
    node.decide(Command::UnbindRole { operator, scope }).await;
    node.decide(host("acme", "h2")).await;
    let end = events.message().await.unwrap_err();
    assert_eq!(end.code(), Code::NotFound);
}

#[tokio::test]
async fn a_quiet_watch_gets_bookmarks_and_ends_when_the_node_stops() {
    let watch = WatchConfig { bookmark_ms: 20, ..WatchConfig::default() };
    let node = TestNode::start_with(Config { watch, ..Config::default() }).await;
    let channel = admin(&node).await;
    let mut client = v1::watch_client::WatchClient::new(channel);
    let asked = v1::WatchRequest { bookmarks: true, ..Default::default() };
    let mut events = client.watch(asked).await.unwrap().into_inner();
    let bookmark = events.message().await.unwrap().unwrap();
    assert_eq!(bookmark.r#type(), v1::WatchType::Bookmark);
    assert_eq!(bookmark.revision, node.shared.ledger.read(|state| state.globals.revision.0));
    node.shared.stop.cancel();
    let end = loop {
        match events.message().await {
            Ok(Some(_bookmark)) => {}
            Ok(None) => panic!("the watch ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&end), "STOPPED");
}

#[tokio::test]
async fn a_read_at_a_revision_waits_for_it_and_says_when_it_is_not_reached() {
    let mut config = Config::default();
    config.server.call_timeout_ms = 300;
    let node = TestNode::start_with(config).await;
    let channel = admin(&node).await;
    node.decide(tenant("acme")).await;
    let now = node.shared.ledger.read(|state| state.globals.revision.0);
    let mut hosts = v1::hosts_client::HostsClient::new(channel.clone());
    let asked = v1::GetRequest {
        resource: "tenants/acme/hosts/h1".to_owned(),
        at_least: now + 1,
        ..Default::default()
    };
    // It is read as soon as it is there.
    let (found, _) = tokio::join!(hosts.get(asked.clone()), node.decide(host("acme", "h1")));
    assert_eq!(found.unwrap().into_inner().meta.unwrap().revision, now + 1);

    let late = v1::GetRequest { at_least: now + 9, ..asked.clone() };
    let refused = hosts.get(late).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unavailable, "REVISION_NOT_REACHED")
    );
    let error = api::status::ClientError::from(refused);
    assert_eq!(error.metadata["revision"], (now + 1).to_string());
    assert!(error.certainly_not_done && !error.remedy.is_empty());

    let both = v1::GetRequest { stale: true, ..asked };
    assert_eq!(reason(&hosts.get(both).await.unwrap_err()), "FIELD");
    let mut tenants = v1::tenants_client::TenantsClient::new(channel);
    let list = |at_least| v1::ListRequest { at_least, ..Default::default() };
    let page = tenants.list(list(now + 1)).await.unwrap().into_inner();
    assert_eq!((page.tenants.len(), page.revision), (1, now + 1));
    assert_eq!(reason(&tenants.list(list(now + 9)).await.unwrap_err()), "REVISION_NOT_REACHED");
}

#[tokio::test]
async fn a_crowd_of_operators_keeps_no_agent_out() {
    let mut config = Config::default();
    config.server.calls_max = 1;
    config.sessions.hello_ms = 200;
    let node = TestNode::start_with(config).await;
    let channel = admin(&node).await;
    node.decide(tenant("acme")).await;
    node.decide(host("acme", "h1")).await;
    // One call that waits for what never comes has the only place.
    let waiting = v1::GetRequest {
        resource: "tenants/acme".to_owned(),
        at_least: u64::MAX,
        ..Default::default()
    };
    let mut tenants = v1::tenants_client::TenantsClient::new(channel);
    let mut first = tenants.clone();
    let first = tokio::spawn(async move { first.get(waiting).await });
    let again = v1::GetRequest { resource: "tenants/acme".to_owned(), ..Default::default() };
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    let refused = loop {
        match tenants.get(again.clone()).await {
            Err(status) => break status,
            Ok(_) => assert!(tokio::time::Instant::now() < until, "no call was refused"),
        }
    };
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "OVERLOADED")
    );
    let agent = node.client(Some(crate::testing::agent("acme", "h1")));
    let mut agents = v1::agents_client::AgentsClient::new(agent);
    let silent = tokio_stream::pending();
    if let Err(status) = agents.session(silent).await {
        assert_ne!(reason(&status), "OVERLOADED", "{status:?}");
    }
    first.abort();
}
