//! Every rpc, called by everybody, over real TLS with real certificates.
//!
//! What must come out is computed from the access option of the rpc by a second, plainer set of rules
//! than those of the product. A new rpc fails here until it has a valid request below.

use super::{Granted, standing::Standing};
use crate::Config;
use crate::testing::{
    TestNode, agent, cluster, deployment, digest, host, image, name, operator, package, spec,
    tenant,
};
use api::{
    access::{CallerKind, RequiredScope, Requirement, TABLE},
    v1,
};
use consensus::Ledger;
use futures::{StreamExt, stream};
use identity::{CertificateRequest, JoinToken, Principal};
use model::{Caller, Command, NodeId, Role, Scope, TokenKind};
use std::fmt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, transport::Channel};

/// Who calls.
#[derive(Clone, Debug)]
struct Who {
    label: String,
    principal: Option<Principal>,
    kind: CallerKind,
    /// Role, and the tenant it holds in; `None` is the cluster.
    role: Option<(Role, Option<&'static str>)>,
    tenant: Option<&'static str>,
}

const ROLES: [(Role, &str); 3] =
    [(Role::Viewer, "viewer"), (Role::Operator, "operator"), (Role::Admin, "admin")];

fn everybody() -> Vec<Who> {
    let plain = |label: &str, principal, kind, tenant| Who {
        label: label.to_owned(),
        principal,
        kind,
        role: None,
        tenant,
    };
    let mut all = vec![
        plain("anonymous", None, CallerKind::Anonymous, None),
        plain("agent own", Some(agent("acme", "h1")), CallerKind::Agent, Some("acme")),
        plain("agent foreign", Some(agent("other", "h9")), CallerKind::Agent, Some("other")),
        plain("node", Some(Principal::Node { id: 2 }), CallerKind::Node, None),
        plain("operator without a role", Some(operator("nobody")), CallerKind::Operator, None),
    ];
    for (place, tenant) in [("cluster", None), ("acme", Some("acme")), ("other", Some("other"))] {
        for (role, word) in ROLES {
            let label = format!("{place}-{word}");
            let principal = Some(operator(&label));
            let role = Some((role, tenant));
            all.push(Who { label, principal, kind: CallerKind::Operator, role, tenant: None });
        }
    }
    all
}

/// What must come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Through,
    Refused(Code),
}

/// The rule, said plainly. Requests are about tenant `acme`.
fn expected(path: &str, requirement: &Requirement, who: &Who) -> Verdict {
    if !requirement.callers.contains(&who.kind) {
        return Verdict::Refused(match who.kind {
            CallerKind::Anonymous => Code::Unauthenticated,
            _ => Code::PermissionDenied,
        });
    }
    let in_acme = |needed: Role| match who.role {
        Some((role, None | Some("acme"))) if role >= needed => Verdict::Through,
        Some((_, None | Some("acme"))) => Verdict::Refused(Code::PermissionDenied),
        _ => Verdict::Refused(Code::NotFound),
    };
    let judged_by_service = match path {
        // The document is a host of acme.
        "/muster.v1.Apply/Apply" => Some(Role::Operator),
        // The watch is of acme.
        "/muster.v1.Watch/Watch" => Some(Role::Viewer),
        _ => None,
    };
    match (requirement.scope, who.kind) {
        _ if judged_by_service.is_some() => in_acme(judged_by_service.unwrap()),
        (RequiredScope::Any | RequiredScope::OwnHost, _) => Verdict::Through,
        (RequiredScope::Tenant, CallerKind::Agent) if who.tenant == Some("acme") => {
            Verdict::Through
        }
        (RequiredScope::Tenant, CallerKind::Agent) => Verdict::Refused(Code::NotFound),
        (RequiredScope::Tenant, _) => in_acme(requirement.role.unwrap()),
        (RequiredScope::Cluster, CallerKind::Node) => Verdict::Through,
        (RequiredScope::Cluster, _) => match who.role {
            Some((role, None)) if role >= requirement.role.unwrap() => Verdict::Through,
            _ => Verdict::Refused(Code::PermissionDenied),
        },
    }
}

/// Reasons that only the access layer gives.
const ACCESS_REASONS: [&str; 4] = [
    crate::refusal::CERTIFICATE,
    crate::refusal::CALLER,
    crate::refusal::ROLE,
    crate::refusal::UNKNOWN_TENANT,
];

/// Methods whose valid request has no success in this test, for want of the other end: an agent, a
/// group of nodes, the bytes of an image.
fn has_no_other_end(path: &str) -> bool {
    ["Raft/", "Forward/", "Agents/", "Logs/", "Artifacts/", "PeerArtifacts/", "PeerRelay/"]
        .iter()
        .any(|service| path.contains(&format!("muster.v1.{service}")))
}

fn is_of_peer_port(path: &str) -> bool {
    ["Raft/", "Forward/", "Join/", "PeerArtifacts/", "PeerRelay/"]
        .iter()
        .any(|service| path.starts_with(&format!("/muster.v1.{service}")))
}

async fn seed(node: &TestNode) {
    node.decide(tenant("acme")).await;
    node.decide(tenant("other")).await;
    node.decide(host("acme", "h1")).await;
    node.decide(host("other", "h9")).await;
    node.decide(cluster("acme", "c1")).await;
    node.decide(image("acme", digest(1))).await;
    node.decide(package("acme", "p1", digest(1))).await;
    node.decide(deployment("acme", "d1", spec("p1", "c1"))).await;
    let keys =
        node.shared.ledger.read(|state| model::expected_jobs(state, &name("acme"), &name("d1")));
    node.decide_as(Caller::System, Command::SyncJobs { keys }).await;
    for (place, scope) in [
        ("cluster", Scope::Cluster),
        ("acme", Scope::Tenant(name("acme"))),
        ("other", Scope::Tenant(name("other"))),
    ] {
        for (role, word) in ROLES {
            node.bind(&format!("{place}-{word}"), scope.clone(), role).await;
        }
    }
}

#[tokio::test]
async fn every_method_lets_exactly_those_through_whom_it_is_for() {
    let node = TestNode::start().await;
    seed(&node).await;
    let mut wrong = Vec::new();
    let mut cells = (0, 0);
    for who in everybody() {
        let client = node.client(who.principal.clone());
        let peer = node.peer(who.principal.clone());
        for (path, requirement) in TABLE {
            let expected = expected(path, requirement, &who);
            // The peer port takes nobody but nodes; others are judged where they can get to.
            let at_peer_port = is_of_peer_port(path) && who.kind == CallerKind::Node;
            let channel = if at_peer_port { peer.clone() } else { client.clone() };
            let number = format!("x{}", cells.0 + cells.1);
            let answer = Box::pin(call(&node, path, channel, &number)).await;
            match expected {
                Verdict::Through => cells.0 += 1,
                Verdict::Refused(_) => cells.1 += 1,
            }
            if let Err(problem) = check(path, expected, &answer) {
                wrong.push(format!("{path} by {}: {problem}", who.label));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cells.0 > 150 && cells.1 > 500, "{cells:?} let through and refused");
}

fn check(path: &str, expected: Verdict, answer: &Result<(), Status>) -> Result<(), String> {
    let reason = |status: &Status| api::status::ClientError::from(status.clone()).reason;
    let absent = answer.as_ref().is_err_and(|status| status.code() == Code::Unimplemented);
    match (expected, answer) {
        _ if absent => Err("it is not mounted".to_owned()),
        (Verdict::Through, Ok(())) => Ok(()),
        (Verdict::Through, Err(status))
            if has_no_other_end(path) && !ACCESS_REASONS.contains(&reason(status).as_str()) =>
        {
            Ok(())
        }
        (Verdict::Refused(code), Err(status))
            if status.code() == code && ACCESS_REASONS.contains(&reason(status).as_str()) =>
        {
            Ok(())
        }
        (expected, answer) => Err(format!("expected {expected:?}, got {}", Shown(answer))),
    }
}

struct Shown<'a>(&'a Result<(), Status>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(()) => f.write_str("success"),
            Err(status) => write!(f, "{:?} {}", status.code(), status.message()),
        }
    }
}

#[tokio::test]
async fn the_peer_port_takes_nobody_but_control_nodes() {
    let node = TestNode::start().await;
    for who in everybody() {
        let channel = node.peer(who.principal.clone());
        let asked = v1::JoinRequest { node_id: 2, ..Default::default() };
        let answer = v1::join_client::JoinClient::new(channel).join(asked).await;
        assert_eq!(answer.is_ok(), who.kind == CallerKind::Node, "{}: {answer:?}", who.label);
    }
}

#[tokio::test]
async fn a_node_joins_for_itself_only() {
    let node = TestNode::start().await;
    let channel = node.peer(Some(Principal::Node { id: 2 }));
    let asked = v1::JoinRequest { node_id: 3, ..Default::default() };
    let refused = v1::join_client::JoinClient::new(channel).join(asked).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn an_agent_without_trust_gets_no_image() {
    let node = TestNode::start().await;
    seed(&node).await;
    let reason = "stolen".to_owned();
    let distrust = Command::DistrustHost { tenant: name("acme"), host: name("h1"), reason };
    node.decide(distrust).await;
    let requirement = api::access::requirement("/muster.v1.Artifacts/Download").unwrap();
    let judged = |host: &str| {
        let (agent, acme) = (agent("acme", host), name("acme"));
        let need = (requirement, Some(&acme));
        node.shared.ledger.read(|state| super::authorized(state, Some(&agent), need))
    };
    assert_eq!(judged("h1"), Err(identity::Denied::NotVisible));
    assert_eq!(judged("never-registered"), Err(identity::Denied::NotVisible));
    node.decide(host("acme", "h2")).await;
    assert_eq!(judged("h2"), Ok(()));
}

#[tokio::test]
async fn a_role_taken_away_counts_from_the_next_call_on() {
    let node = TestNode::start().await;
    seed(&node).await;
    let channel = node.client(Some(operator("acme-viewer")));
    call(&node, "/muster.v1.Hosts/Get", channel.clone(), "x").await.unwrap();
    let (operator, scope) = (name("acme-viewer"), Scope::Tenant(name("acme")));
    node.decide(Command::UnbindRole { operator, scope }).await;
    let refused = call(&node, "/muster.v1.Hosts/Get", channel, "x").await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}

/// A call of the reader of a tenant's logs, by a certificate that ends at `not_after_ms`.
fn reader(not_after_ms: u64) -> Granted<()> {
    let standing = Standing {
        principal: Some(operator("acme-viewer")),
        requirement: api::access::requirement("/muster.v1.Logs/Read").unwrap(),
        tenant: Some(name("acme")),
        not_after_ms: Some(not_after_ms),
    };
    Granted { standing, ..Granted::for_test(Caller::Operator(name("acme-viewer")), ()) }
}

#[tokio::test]
async fn a_stream_ends_when_its_caller_loses_the_role_whether_it_flows_or_not() {
    let mut config = Config::default();
    config.server.judge_ms = 10;
    let node = TestNode::start_with(config).await;
    seed(&node).await;
    let call = reader(u64::MAX);
    let (sender, receiver) = mpsc::channel(4);
    let mut flowing = node.shared.while_granted(&call, Box::pin(ReceiverStream::new(receiver)));
    let quiet = stream::pending::<Result<u8, Status>>();
    let mut quiet = node.shared.while_granted(&call, Box::pin(quiet));
    sender.send(Ok(1_u8)).await.unwrap();
    assert_eq!(flowing.next().await.unwrap().unwrap(), 1);

    let (operator, scope) = (name("acme-viewer"), Scope::Tenant(name("acme")));
    node.decide(Command::UnbindRole { operator, scope }).await;
    sender.send(Ok(2)).await.unwrap();
    for stream in [&mut flowing, &mut quiet] {
        let refused = stream.next().await.unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        assert!(stream.next().await.is_none(), "nothing comes after the refusal");
    }
    assert!(sender.is_closed(), "whoever feeds it is told");
}

#[tokio::test]
async fn a_stream_ends_with_the_certificate_of_its_caller() {
    let mut config = Config::default();
    config.server.judge_ms = 10;
    let node = TestNode::start_with(config).await;
    seed(&node).await;
    let now = node.shared.clock.now().0;
    for (not_after_ms, ends) in [(now, true), (now + 3_600_000, false)] {
        let call = reader(not_after_ms);
        assert_eq!(call.unexpired(node.shared.clock.now()).is_err(), ends);
        let flows = stream::once(async { Ok::<_, Status>(1_u8) });
        let mut flows = node.shared.while_granted(&call, Box::pin(flows));
        let code = flows.next().await.unwrap().map_err(|refused| refused.code());
        assert_eq!(code, if ends { Err(Code::Unauthenticated) } else { Ok(1) });
    }
    let quiet = stream::pending::<Result<u8, Status>>();
    let mut quiet = node.shared.while_granted(&reader(now + 100), Box::pin(quiet));
    assert_eq!(quiet.next().await.unwrap().unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_batch_needs_the_role_of_each_of_its_documents() {
    let node = TestNode::start().await;
    seed(&node).await;
    let host = |tenant: &str| v1::Document {
        draft: Some(v1::document::Draft::Host(v1::HostDraft {
            resource: format!("tenants/{tenant}/hosts/new"),
            ..Default::default()
        })),
    };
    let asked =
        v1::ApplyRequest { documents: vec![host("acme"), host("other")], ..Default::default() };
    let channel = node.client(Some(operator("acme-admin")));
    let mut apply = v1::apply_client::ApplyClient::new(channel);
    let refused = apply.apply(asked).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let made = node.shared.ledger.read(|state| state.host(&name("acme"), &name("new")).is_some());
    assert!(!made, "none of it is done");
}

/// Calls a method with a request that is valid, and makes what it needs first.
async fn call(node: &TestNode, path: &str, channel: Channel, new: &str) -> Result<(), Status> {
    let service = path.strip_prefix("/muster.v1.").unwrap();
    let (service, _) = service.split_once('/').unwrap();
    match service {
        "Tenants" | "Hosts" | "Clusters" => fleet(node, path, channel, new).await,
        "Images" | "Packages" | "Deployments" | "Jobs" => content(node, path, channel, new).await,
        "RoleBindings" | "Tokens" | "Nodes" | "Enrol" | "Inspect" => {
            cluster_wide(node, path, channel, new).await
        }
        "ControlPlane" => control_plane(node, path, channel).await,
        "Apply" | "Watch" | "Agents" | "Logs" | "Artifacts" => streams(path, channel, new).await,
        _ => peers(path, channel).await,
    }
}

macro_rules! ask {
    ($channel:expr, $module:ident :: $client:ident . $method:ident ( $message:expr )) => {
        v1::$module::$client::new($channel).$method($message).await.map(drop)
    };
}

fn get(resource: &str) -> v1::GetRequest {
    v1::GetRequest { resource: resource.to_owned(), ..Default::default() }
}

fn list(tenant: &str) -> v1::ListRequest {
    v1::ListRequest { tenant: tenant.to_owned(), ..Default::default() }
}

fn delete(resource: String) -> v1::DeleteRequest {
    v1::DeleteRequest { resource, ..Default::default() }
}

#[expect(clippy::too_many_lines, reason = "one arm per method")]
async fn fleet(node: &TestNode, path: &str, channel: Channel, new: &str) -> Result<(), Status> {
    let resource = format!("tenants/acme/hosts/{new}");
    match path {
        "/muster.v1.Tenants/Get" => {
            ask!(channel, tenants_client::TenantsClient.get(get("tenants/acme")))
        }
        "/muster.v1.Tenants/List" => ask!(channel, tenants_client::TenantsClient.list(list(""))),
        "/muster.v1.Tenants/Apply" => {
            let draft = v1::TenantDraft {
                resource: format!("tenants/{new}"),
                display_name: "new".to_owned(),
                ..Default::default()
            };
            let asked = v1::ApplyTenantRequest { tenant: Some(draft), ..Default::default() };
            ask!(channel, tenants_client::TenantsClient.apply(asked))
        }
        "/muster.v1.Tenants/Delete" => {
            node.decide(tenant(new)).await;
            let asked = delete(format!("tenants/{new}"));
            ask!(channel, tenants_client::TenantsClient.delete(asked))
        }
        "/muster.v1.Hosts/Get" => {
            ask!(channel, hosts_client::HostsClient.get(get("tenants/acme/hosts/h1")))
        }
        "/muster.v1.Hosts/List" => ask!(channel, hosts_client::HostsClient.list(list("acme"))),
        "/muster.v1.Hosts/Apply" => {
            let draft = v1::HostDraft { resource, ..Default::default() };
            let asked = v1::ApplyHostRequest { host: Some(draft), ..Default::default() };
            ask!(channel, hosts_client::HostsClient.apply(asked))
        }
        "/muster.v1.Hosts/Delete" => {
            node.decide(host("acme", new)).await;
            ask!(channel, hosts_client::HostsClient.delete(delete(resource)))
        }
        "/muster.v1.Hosts/Cordon" => {
            node.decide(host("acme", new)).await;
            let asked = v1::CordonHostRequest { resource, cordoned: true, ..Default::default() };
            ask!(channel, hosts_client::HostsClient.cordon(asked))
        }
        "/muster.v1.Hosts/DeclareLost" => {
            node.decide(host("acme", new)).await;
            let asked = v1::DeclareHostLostRequest { resource, lost: true, ..Default::default() };
            ask!(channel, hosts_client::HostsClient.declare_lost(asked))
        }
        "/muster.v1.Hosts/Distrust" => {
            node.decide(host("acme", new)).await;
            let reason = "stolen".to_owned();
            let asked = v1::DistrustHostRequest { resource, reason, ..Default::default() };
            ask!(channel, hosts_client::HostsClient.distrust(asked))
        }
        "/muster.v1.Clusters/Get" => {
            ask!(channel, clusters_client::ClustersClient.get(get("tenants/acme/clusters/c1")))
        }
        "/muster.v1.Clusters/List" => {
            ask!(channel, clusters_client::ClustersClient.list(list("acme")))
        }
        "/muster.v1.Clusters/Apply" => {
            let draft = v1::ClusterDraft {
                resource: format!("tenants/acme/clusters/{new}"),
                spec: Some(v1::ClusterSpec::default()),
                ..Default::default()
            };
            let asked = v1::ApplyClusterRequest { cluster: Some(draft), ..Default::default() };
            ask!(channel, clusters_client::ClustersClient.apply(asked))
        }
        "/muster.v1.Clusters/Delete" => {
            node.decide(cluster("acme", new)).await;
            let asked = delete(format!("tenants/acme/clusters/{new}"));
            ask!(channel, clusters_client::ClustersClient.delete(asked))
        }
        _ => panic!("{path} has no request in this test"),
    }
}

#[expect(clippy::too_many_lines, reason = "one arm per method")]
async fn content(node: &TestNode, path: &str, channel: Channel, new: &str) -> Result<(), Status> {
    let resource = format!("tenants/acme/deployments/{new}");
    match path {
        "/muster.v1.Images/Get" => {
            let resource = format!("tenants/acme/images/{}", digest(1));
            ask!(channel, images_client::ImagesClient.get(get(&resource)))
        }
        "/muster.v1.Images/List" => ask!(channel, images_client::ImagesClient.list(list("acme"))),
        "/muster.v1.Images/Delete" => {
            node.decide(image("acme", digest(2))).await;
            let asked = delete(format!("tenants/acme/images/{}", digest(2)));
            ask!(channel, images_client::ImagesClient.delete(asked))
        }
        "/muster.v1.Packages/Get" => {
            let resource = "tenants/acme/packages/p1/versions/1";
            ask!(channel, packages_client::PackagesClient.get(get(resource)))
        }
        "/muster.v1.Packages/List" => {
            ask!(channel, packages_client::PackagesClient.list(list("acme")))
        }
        "/muster.v1.Packages/Apply" => {
            let wanted = api::convert::draft::document(&package("acme", new, digest(1))).unwrap();
            let Some(v1::document::Draft::Package(draft)) = wanted.draft else { panic!() };
            let asked = v1::ApplyPackageRequest { package: Some(draft), ..Default::default() };
            ask!(channel, packages_client::PackagesClient.apply(asked))
        }
        "/muster.v1.Packages/Delete" => {
            node.decide(package("acme", new, digest(1))).await;
            let asked = delete(format!("tenants/acme/packages/{new}/versions/1"));
            ask!(channel, packages_client::PackagesClient.delete(asked))
        }
        "/muster.v1.Deployments/Get" => {
            let asked = get("tenants/acme/deployments/d1");
            ask!(channel, deployments_client::DeploymentsClient.get(asked))
        }
        "/muster.v1.Deployments/List" => {
            ask!(channel, deployments_client::DeploymentsClient.list(list("acme")))
        }
        "/muster.v1.Deployments/ListClusters" => {
            let resource = "tenants/acme/deployments/d1".to_owned();
            let asked = v1::ListDeploymentClustersRequest { resource, ..Default::default() };
            ask!(channel, deployments_client::DeploymentsClient.list_clusters(asked))
        }
        "/muster.v1.Deployments/Apply" => {
            let wanted = deployment("acme", new, spec("p1", "c1"));
            let wanted = api::convert::draft::document(&wanted).unwrap();
            let Some(v1::document::Draft::Deployment(draft)) = wanted.draft else { panic!() };
            let deployment = Some(draft);
            let asked = v1::ApplyDeploymentRequest { deployment, ..Default::default() };
            ask!(channel, deployments_client::DeploymentsClient.apply(asked))
        }
        "/muster.v1.Deployments/Delete" => {
            node.decide(deployment("acme", new, spec("p1", "c1"))).await;
            ask!(channel, deployments_client::DeploymentsClient.delete(delete(resource)))
        }
        "/muster.v1.Deployments/Rollback" => {
            node.decide(deployment("acme", new, spec("p1", "c1"))).await;
            let mut changed = spec("p1", "c1");
            changed.strategy.max_unavailable = 2;
            node.decide(deployment("acme", new, changed)).await;
            let asked = v1::RollbackDeploymentRequest { resource, ..Default::default() };
            ask!(channel, deployments_client::DeploymentsClient.rollback(asked))
        }
        "/muster.v1.Deployments/Retry" => {
            let resource = "tenants/acme/deployments/d1".to_owned();
            let asked = v1::RetryDeploymentRequest { resource, ..Default::default() };
            ask!(channel, deployments_client::DeploymentsClient.retry(asked))
        }
        "/muster.v1.Jobs/Retry" => {
            let resource = "tenants/acme/jobs/d1/c1/web/0".to_owned();
            let asked = v1::RetryJobRequest { resource, ..Default::default() };
            ask!(channel, jobs_client::JobsClient.retry(asked))
        }
        "/muster.v1.Jobs/Get" => {
            ask!(channel, jobs_client::JobsClient.get(get("tenants/acme/jobs/d1/c1/web/0")))
        }
        "/muster.v1.Jobs/List" => {
            let tenant = "acme".to_owned();
            let asked = v1::ListJobsRequest { tenant, ..Default::default() };
            ask!(channel, jobs_client::JobsClient.list(asked))
        }
        _ => panic!("{path} has no request in this test"),
    }
}

async fn cluster_wide(
    node: &TestNode,
    path: &str,
    channel: Channel,
    new: &str,
) -> Result<(), Status> {
    match path {
        "/muster.v1.RoleBindings/Get" => {
            let asked = get("tenants/acme/bindings/acme-admin");
            ask!(channel, role_bindings_client::RoleBindingsClient.get(asked))
        }
        "/muster.v1.RoleBindings/List" => {
            ask!(channel, role_bindings_client::RoleBindingsClient.list(list("")))
        }
        "/muster.v1.RoleBindings/Apply" => {
            let resource = format!("tenants/acme/bindings/{new}");
            let draft = v1::RoleBindingDraft { resource, role: v1::Role::Viewer.into() };
            let role_binding = Some(draft);
            let asked = v1::ApplyRoleBindingRequest { role_binding, ..Default::default() };
            ask!(channel, role_bindings_client::RoleBindingsClient.apply(asked))
        }
        "/muster.v1.RoleBindings/Delete" => {
            node.bind(new, Scope::Cluster, Role::Viewer).await;
            let asked = delete(format!("bindings/{new}"));
            ask!(channel, role_bindings_client::RoleBindingsClient.delete(asked))
        }
        "/muster.v1.Tokens/Create" => {
            let kind = v1::token_kind::Kind::Node(v1::NodeToken {});
            let kind = Some(v1::TokenKind { kind: Some(kind) });
            let asked = v1::CreateTokenRequest { kind, ..Default::default() };
            ask!(channel, tokens_client::TokensClient.create(asked))
        }
        "/muster.v1.Tokens/List" => ask!(channel, tokens_client::TokensClient.list(list(""))),
        "/muster.v1.Tokens/Revoke" => {
            let token = token(node, TokenKind::Node).await;
            let asked = delete(format!("tokens/{}", token.id()));
            ask!(channel, tokens_client::TokensClient.revoke(asked))
        }
        "/muster.v1.Nodes/List" => ask!(channel, nodes_client::NodesClient.list(list(""))),
        "/muster.v1.Enrol/GetAuthority" => {
            let asked = v1::GetAuthorityRequest {};
            ask!(channel, enrol_client::EnrolClient.get_authority(asked))
        }
        "/muster.v1.Enrol/Enrol" => {
            let token = token(node, TokenKind::Node).await;
            let request = CertificateRequest::generate(&Principal::Node { id: 0 }).unwrap();
            let asked = v1::EnrolRequest {
                token: token.to_string(),
                csr_pem: request.request_pem().to_owned(),
                kind: v1::EnrolKind::Node.into(),
                ..Default::default()
            };
            ask!(channel, enrol_client::EnrolClient.enrol(asked))
        }
        "/muster.v1.Inspect/Inspect" => {
            let asked = v1::InspectRequest::default();
            ask!(channel, inspect_client::InspectClient.inspect(asked))
        }
        "/muster.v1.Inspect/GetStatus" => {
            let asked = v1::GetNodeStatusRequest {};
            ask!(channel, inspect_client::InspectClient.get_status(asked))
        }
        _ => panic!("{path} has no request in this test"),
    }
}

async fn control_plane(node: &TestNode, path: &str, channel: Channel) -> Result<(), Status> {
    match path {
        "/muster.v1.ControlPlane/GetStatus" => {
            let asked = v1::GetControlPlaneStatusRequest {};
            ask!(channel, control_plane_client::ControlPlaneClient.get_status(asked))
        }
        "/muster.v1.ControlPlane/RaiseRules" => {
            let asked = v1::RaiseRulesRequest { validate_only: true, ..Default::default() };
            ask!(channel, control_plane_client::ControlPlaneClient.raise_rules(asked))
        }
        "/muster.v1.ControlPlane/Promote" => {
            let asked = v1::PromoteNodeRequest { node: 1 };
            ask!(channel, control_plane_client::ControlPlaneClient.promote(asked))
        }
        "/muster.v1.ControlPlane/Remove" => {
            // Whoever was removed never comes back: each try has a node of its own.
            let known = |state: &model::State| state.nodes.iter().map(|(id, _)| id.0).max();
            let id = node.shared.ledger.read(known).unwrap_or(4) + 1;
            for id in [id, id + 1] {
                node.decide_as(Caller::System, control_node(id)).await;
            }
            let asked = v1::RemoveNodeRequest { node: id, force: false };
            ask!(channel, control_plane_client::ControlPlaneClient.remove(asked))
        }
        "/muster.v1.ControlPlane/TransferLeader" => {
            let asked = v1::TransferLeaderRequest { node: Some(1) };
            ask!(channel, control_plane_client::ControlPlaneClient.transfer_leader(asked))
        }
        _ => panic!("{path} has no request in this test"),
    }
}

fn control_node(id: u64) -> Command {
    let (peer_addr, client_addr) = (format!("p{id}:1"), format!("c{id}:1"));
    let rules_max = model::RULES_MAX;
    Command::ApplyNode { id: NodeId(id), peer_addr, client_addr, rules_max }
}

#[tokio::test]
async fn the_certificate_of_a_removed_node_opens_nothing() {
    let node = TestNode::start().await;
    node.decide_as(Caller::System, control_node(1)).await;
    node.decide_as(Caller::System, control_node(2)).await;
    let level = Command::RaiseRules { level: model::RULES_MAX };
    node.decide_as(Caller::System, level).await;
    let two = Some(Principal::Node { id: 2 });
    let (peer, client) = (node.peer(two.clone()), node.client(two));
    let pre_vote = || ask_pre_vote(peer.clone());
    assert_eq!(pre_vote().await.unwrap_err().code(), Code::FailedPrecondition, "it gets through");
    node.decide(Command::RemoveNode { id: NodeId(2) }).await;
    let asked = v1::JoinRequest { node_id: 2, ..Default::default() };
    let mut refusals = vec![pre_vote().await];
    refusals.push(ask!(peer, join_client::JoinClient.join(asked)));
    let asked = v1::GetNodeStatusRequest {};
    refusals.push(ask!(client, inspect_client::InspectClient.get_status(asked)));
    for refused in refusals {
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        let error = api::status::ClientError::from(refused);
        assert_eq!(error.reason, "NODE_REMOVED");
        assert!(error.remedy.contains("muster cluster add"), "{error:?}");
    }
    let three = node.peer(Some(Principal::Node { id: 3 }));
    assert_eq!(ask_pre_vote(three).await.unwrap_err().code(), Code::FailedPrecondition);
}

async fn ask_pre_vote(channel: Channel) -> Result<(), Status> {
    let nothing = v1::PeerPayload::default();
    ask!(channel, raft_client::RaftClient.pre_vote(nothing))
}

pub(crate) async fn token(node: &TestNode, kind: TokenKind) -> JoinToken {
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

async fn streams(path: &str, channel: Channel, new: &str) -> Result<(), Status> {
    let tenant = "acme".to_owned();
    let digest = digest(1).to_string();
    let upload_id = String::new();
    match path {
        "/muster.v1.Apply/Apply" => {
            let resource = format!("tenants/acme/hosts/{new}");
            let draft = v1::HostDraft { resource, ..Default::default() };
            let draft = Some(v1::document::Draft::Host(draft));
            let documents = vec![v1::Document { draft }];
            let asked = v1::ApplyRequest { documents, ..Default::default() };
            ask!(channel, apply_client::ApplyClient.apply(asked))
        }
        "/muster.v1.Watch/Watch" => {
            let asked = v1::WatchRequest { tenant, ..Default::default() };
            ask!(channel, watch_client::WatchClient.watch(asked))
        }
        "/muster.v1.Agents/Session" => {
            let nothing = tokio_stream::empty::<v1::AgentMessage>();
            ask!(channel, agents_client::AgentsClient.session(nothing))
        }
        "/muster.v1.Logs/Read" => {
            let job = Some(v1::JobKey {
                tenant,
                deployment: "d1".to_owned(),
                cluster: "c1".to_owned(),
                application: "web".to_owned(),
                slot: Some(v1::job_key::Slot::Partition(0)),
            });
            let asked = v1::ReadLogsRequest { job, ..Default::default() };
            ask!(channel, logs_client::LogsClient.read(asked))
        }
        "/muster.v1.Artifacts/BeginUpload" => {
            let asked = v1::BeginUploadRequest { tenant, digest, size_bytes: 1 };
            ask!(channel, artifacts_client::ArtifactsClient.begin_upload(asked))
        }
        "/muster.v1.Artifacts/GetUpload" => {
            let asked = v1::GetUploadRequest { tenant, digest };
            ask!(channel, artifacts_client::ArtifactsClient.get_upload(asked))
        }
        "/muster.v1.Artifacts/WriteChunk" => {
            let asked = v1::WriteChunkRequest { tenant, digest, ..Default::default() };
            ask!(channel, artifacts_client::ArtifactsClient.write_chunk(asked))
        }
        "/muster.v1.Artifacts/FinishUpload" => {
            let request_id = String::new();
            let asked = v1::FinishUploadRequest { tenant, upload_id, digest, request_id };
            ask!(channel, artifacts_client::ArtifactsClient.finish_upload(asked))
        }
        "/muster.v1.Artifacts/Download" => {
            let asked = v1::DownloadRequest { tenant, digest, offset: 0 };
            ask!(channel, artifacts_client::ArtifactsClient.download(asked))
        }
        _ => panic!("{path} has no request in this test"),
    }
}

async fn peers(path: &str, channel: Channel) -> Result<(), Status> {
    let nothing = v1::PeerPayload::default();
    let (tenant, digest) = ("acme".to_owned(), digest(1).to_string());
    let image = v1::PeerArtifactRequest { tenant, digest, size_bytes: 1 };
    match path {
        "/muster.v1.Raft/Append" => ask!(channel, raft_client::RaftClient.append(nothing)),
        "/muster.v1.Raft/Vote" => ask!(channel, raft_client::RaftClient.vote(nothing)),
        "/muster.v1.Raft/PreVote" => ask!(channel, raft_client::RaftClient.pre_vote(nothing)),
        "/muster.v1.Raft/TransferLeader" => {
            ask!(channel, raft_client::RaftClient.transfer_leader(nothing))
        }
        "/muster.v1.Raft/Snapshot" => {
            let part = v1::SnapshotPart { last: true, ..Default::default() };
            ask!(channel, raft_client::RaftClient.snapshot(tokio_stream::once(part)))
        }
        "/muster.v1.Forward/Propose" => {
            ask!(channel, forward_client::ForwardClient.propose(nothing))
        }
        "/muster.v1.Forward/Linearize" => {
            ask!(channel, forward_client::ForwardClient.linearize(nothing))
        }
        "/muster.v1.Join/Join" => {
            let asked = v1::JoinRequest { node_id: 2, ..Default::default() };
            ask!(channel, join_client::JoinClient.join(asked))
        }
        "/muster.v1.PeerArtifacts/Has" => {
            ask!(channel, peer_artifacts_client::PeerArtifactsClient.has(image))
        }
        "/muster.v1.PeerArtifacts/Finish" => {
            ask!(channel, peer_artifacts_client::PeerArtifactsClient.finish(image))
        }
        "/muster.v1.PeerArtifacts/WriteChunk" => {
            let asked = v1::PeerChunk::default();
            ask!(channel, peer_artifacts_client::PeerArtifactsClient.write_chunk(asked))
        }
        "/muster.v1.PeerArtifacts/Fetch" => {
            let asked = v1::PeerFetchRequest::default();
            ask!(channel, peer_artifacts_client::PeerArtifactsClient.fetch(asked))
        }
        "/muster.v1.PeerRelay/ReadLogs" => {
            let asked = v1::ReadLogsRequest::default();
            ask!(channel, peer_relay_client::PeerRelayClient.read_logs(asked))
        }
        _ => panic!("{path} has no request in this test"),
    }
}
