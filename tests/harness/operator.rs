//! An operator who calls one control node at a time and notes what came of it: never retried, so that
//! a history says exactly what each call was answered.

use crate::Cluster;
use api::{
    BoxFuture, Tcp, TcpConfig,
    fabric::WireConfig,
    status::ClientError,
    v1::{
        self, apply_client::ApplyClient, document::Draft, tenants_client::TenantsClient,
        watch_client::WatchClient,
    },
};
use identity::CertificateBundle;
use std::{io, sync::Arc, time::Duration};
use tokio::time::timeout;
use tonic::{Code, Request, Status, Streaming, transport::Channel};

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Done, at this revision.
    Done(u64),
    /// Certainly not done.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

/// Connections to every control node, as the first operator.
#[derive(Clone)]
pub struct Operator {
    nodes: Vec<Channel>,
    /// Longest time a call may take.
    pub limit: Duration,
    /// What a node is told that a change may take; nothing if none. Shorter than the limit, it lets the
    /// node say what it knows: that the change was certainly not made, or that it cannot tell.
    pub told: Option<Duration>,
}

impl Operator {
    /// The first operator of a cluster. Nothing is dialled before the first call.
    ///
    /// # Panics
    /// When the operator's certificate cannot be read.
    pub fn open(cluster: &Cluster) -> Self {
        Self::open_for(cluster, cluster.nodes.len())
    }

    /// The same for a cluster that will have `nodes` control nodes.
    ///
    /// # Panics
    /// When the operator's certificate cannot be read.
    pub fn open_for(cluster: &Cluster, nodes: usize) -> Self {
        let bundle = CertificateBundle::load(&cluster.nodes[0].folder.join("admin")).unwrap();
        let tls = identity::client_config(bundle.trust(), Some(&bundle), Arc::new(now_ms)).unwrap();
        let dial = |index: usize| {
            let tls = tls.clone();
            let wrap = move |io| -> BoxFuture<'static, io::Result<_>> {
                let tls = tls.clone();
                Box::pin(async move {
                    let (stream, _) = identity::connect(io, tls).await.map_err(io::Error::other)?;
                    Ok(stream)
                })
            };
            let (tcp, addr) = (Tcp::new(TcpConfig::default()), cluster.client_addr(index));
            api::fabric::channel(&tcp, &addr, wrap, WireConfig::default()).unwrap()
        };
        Self { nodes: (0..nodes).map(dial).collect(), limit: Duration::from_secs(3), told: None }
    }

    /// Number of control nodes.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    fn told<T>(&self, request: T) -> Request<T> {
        let mut request = Request::new(request);
        if let Some(told) = self.told {
            request.set_timeout(told);
        }
        request
    }

    /// Gives a tenant a text, through one node.
    pub async fn write(&self, node: usize, key: &str, value: &str, request_id: &str) -> Change {
        let (tenant, request_id) = (Some(draft(key, value)), request_id.to_owned());
        let request = v1::ApplyTenantRequest { tenant, validate_only: false, request_id };
        let mut client = TenantsClient::new(self.nodes[node].clone());
        match timeout(self.limit, client.apply(self.told(request))).await {
            Ok(Ok(outcome)) => Change::Done(outcome.into_inner().revision),
            Ok(Err(status)) => refused_or_unknown(status),
            Err(_) => Change::Unknown("no answer in time".to_owned()),
        }
    }

    /// Gives several tenants the same text at once, through one node: all or none.
    pub async fn write_all(
        &self,
        node: usize,
        keys: &[&str],
        value: &str,
        request_id: &str,
    ) -> Change {
        let document = |key: &&str| v1::Document { draft: Some(Draft::Tenant(draft(key, value))) };
        let (documents, request_id) = (keys.iter().map(document).collect(), request_id.to_owned());
        let request = v1::ApplyRequest { documents, validate_only: false, request_id };
        let mut client = ApplyClient::new(self.nodes[node].clone());
        match timeout(self.limit, client.apply(self.told(request))).await {
            Ok(Ok(outcome)) => Change::Done(outcome.into_inner().revision),
            Ok(Err(status)) => refused_or_unknown(status),
            Err(_) => Change::Unknown("no answer in time".to_owned()),
        }
    }

    /// Text and revision of a tenant, by a linearizable read through one node; `None` if there is no
    /// such tenant.
    ///
    /// # Errors
    /// The node gave no answer.
    pub async fn read(&self, node: usize, key: &str) -> Result<Option<(String, u64)>, String> {
        let resource = format!("tenants/{key}");
        let request = v1::GetRequest { resource, ..v1::GetRequest::default() };
        let mut client = TenantsClient::new(self.nodes[node].clone());
        match timeout(self.limit, client.get(request)).await {
            Ok(Ok(found)) => {
                let tenant = found.into_inner();
                Ok(Some((tenant.display_name, tenant.meta.unwrap_or_default().revision)))
            }
            Ok(Err(status)) if status.code() == Code::NotFound => Ok(None),
            Ok(Err(status)) => Err(status.message().to_owned()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// Watches tenants through one node, all or one, from what came after a revision.
    ///
    /// # Errors
    /// The node's answer.
    pub async fn watch(
        &self,
        node: usize,
        after: u64,
        only: Option<&str>,
    ) -> Result<Streaming<v1::WatchEvent>, Status> {
        let request = v1::WatchRequest {
            kinds: vec![v1::Kind::Tenant.into()],
            resources: only.iter().map(|key| format!("tenants/{key}")).collect(),
            from_revision: Some(after),
            bookmarks: true,
            include_previous: true,
            ..v1::WatchRequest::default()
        };
        let mut client = WatchClient::new(self.nodes[node].clone());
        let late = |_| Status::deadline_exceeded("no answer in time");
        Ok(timeout(self.limit, client.watch(request)).await.map_err(late)??.into_inner())
    }
}

fn draft(key: &str, value: &str) -> v1::TenantDraft {
    v1::TenantDraft {
        resource: format!("tenants/{key}"),
        display_name: value.to_owned(),
        ..v1::TenantDraft::default()
    }
}

/// A change that was answered with an error is certainly not done only where the error says so, or where
/// there was no connection to send it by.
fn refused_or_unknown(status: Status) -> Change {
    let never_sent = never_connected(&status);
    let error = ClientError::from(status);
    let text = format!("{} {}", error.reason, error.message);
    match error.certainly_not_done || never_sent {
        true => Change::Refused(text),
        false => Change::Unknown(text),
    }
}

/// Whether a request never left for want of a connection.
fn never_connected(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        // The second is what hyper says of a request that waited for a connection that was closed.
        if error.is::<tonic::ConnectError>() || error.to_string() == "operation was canceled" {
            return true;
        }
        source = error.source();
    }
    false
}

#[expect(clippy::disallowed_methods, reason = "certificates are checked against the wall clock")]
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A request id that was never used: the wall clock and a number that the caller does not repeat.
pub fn request_id(unique: u128) -> String {
    format!("{}-{unique:032x}", now_ms())
}
