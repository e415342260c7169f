//! Calls control nodes: one after the other until one answers, within one deadline.
//!
//! Every change carries a request id, so that trying again is safe whatever became of the first try:
//! the cluster gives the first answer again. Refusals are final and come back at once.

use crate::{
    failure::{Failure, exit},
    global::Global,
    profile::Profile,
};
use api::{
    BoxFuture, Tcp, TcpConfig,
    fabric::WireConfig,
    json::{Schema, SchemaError},
    status::ClientError,
};
use identity::{ClientConfig, Entropy, SystemEntropy};
use serde_json::Value;
use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Code, Status, transport::Channel};

/// Pause before the next server is tried; grows with each round.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Longest such pause.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Connections to the control nodes of one cluster, as one operator.
pub(crate) struct Client {
    servers: Vec<(String, Channel)>,
    current: AtomicUsize,
    /// Deadline of one call, retries included.
    pub(crate) timeout: Duration,
    tenant: Option<String>,
    schema: Schema,
}

impl Client {
    /// Prepares to call as the identity that the flags name; nothing is dialled yet.
    pub(crate) fn open(global: &Global) -> Result<Self, Failure> {
        let Profile { bundle, servers, tenant } = Profile::load(global)?;
        let config = identity::client_config(bundle.trust(), Some(&bundle), Arc::new(now_ms));
        let config = config.map_err(|error| {
            Failure::usage(format!("the certificate cannot be used: {error}"), "log in again")
        })?;
        let servers: Result<Vec<_>, _> =
            servers.into_iter().map(|addr| dial(addr, config.clone())).collect();
        Ok(Self {
            servers: servers?,
            current: AtomicUsize::new(0),
            timeout: Duration::from_secs(global.timeout),
            tenant,
            schema: Schema::load().map_err(|error| broken(&error))?,
        })
    }

    /// Calls until a node answers. `call` is made anew for each try.
    pub(crate) async fn call<T, F, Fut>(&self, call: F) -> Result<T, Failure>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.timeout;
        let mut pause = RETRY_PAUSE;
        let mut tries = 0;
        loop {
            let (addr, channel) = self.server();
            let status = match tokio::time::timeout_at(deadline, call(channel)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("{addr} did not answer in time")),
            };
            tries += 1;
            if !may_retry(&status) || Instant::now() + pause >= deadline {
                return Err(self.failure(&status, tries));
            }
            self.next_server();
            if tries % self.servers.len() == 0 {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_PAUSE_MAX);
            }
        }
    }

    /// A message of the API as JSON.
    pub(crate) fn json<M: api::json::Message>(&self, message: &M) -> Result<Value, Failure> {
        self.schema.write(message).map_err(|error| broken(&error))
    }

    /// The server in use, and its channel, for streams: they are resumed by whoever reads them.
    pub(crate) fn server(&self) -> (&str, Channel) {
        let index = self.current.load(Ordering::Relaxed) % self.servers.len();
        let (addr, channel) = &self.servers[index];
        (addr, channel.clone())
    }

    /// Turns to the next server.
    pub(crate) fn next_server(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    /// The tenant to work in: the one named, else the only one there is.
    pub(crate) async fn tenant(&self) -> Result<String, Failure> {
        if let Some(tenant) = &self.tenant {
            return Ok(tenant.clone());
        }
        let tenants = crate::noun::Noun::Tenant.list(self, &crate::noun::Query::default()).await?;
        let names: Vec<_> = tenants.iter().filter_map(|it| it["meta"]["name"].as_str()).collect();
        match names.as_slice() {
            [only] => Ok((*only).to_owned()),
            [] => Err(Failure::usage(
                "there is no tenant that this operator may see".into(),
                "create one with `muster tenant create NAME`, or ask for a role in one",
            )),
            many => Err(Failure::usage(
                format!("there are several tenants: {}", many.join(", ")),
                "name one with --tenant or MUSTER_TENANT",
            )),
        }
    }

    /// What a refusal means to the user of a verb.
    pub(crate) fn failure(&self, status: &Status, tries: usize) -> Failure {
        let mut failure = Failure::from_status(status);
        if may_retry(status) {
            let all: Vec<_> = self.servers.iter().map(|(addr, _)| addr.as_str()).collect();
            failure.metadata.insert("servers".into(), all.join(", "));
            failure.metadata.insert("tries".into(), tries.to_string());
            if failure.remedy.is_empty() {
                failure.remedy = "see that the control nodes run and can be reached".into();
            }
        }
        failure
    }
}

fn broken(error: &SchemaError) -> Failure {
    let message = format!("an answer could not be read: {error}");
    Failure::of(exit::ERROR, "ANSWER", message, "use a console of the cluster's version")
}

/// Whether another node, or the same one later, may do better.
pub(crate) fn may_retry(status: &Status) -> bool {
    // A connection that breaks under a call shows as an unknown error without a reason.
    let broken = |error: &ClientError| error.reason.is_empty() && error.code == Code::Unknown;
    let error = ClientError::from(status.clone());
    error.is_worth_repeating() || broken(&error)
}

fn dial(addr: String, config: Arc<ClientConfig>) -> Result<(String, Channel), Failure> {
    let wrap = move |io| -> BoxFuture<'static, io::Result<_>> {
        let config = config.clone();
        Box::pin(async move {
            let (stream, _) = identity::connect(io, config).await.map_err(io::Error::other)?;
            Ok(stream)
        })
    };
    let fabric = Tcp::new(TcpConfig::default());
    let channel = api::fabric::channel(&fabric, &addr, wrap, WireConfig::default());
    let channel = channel.map_err(|error| {
        Failure::usage(format!("{addr} is no address: {error}"), "write it as host:port")
    })?;
    Ok((addr, channel))
}

/// Unix milliseconds by this machine's clock: for certificates and request ids.
#[expect(clippy::disallowed_methods, reason = "a console is where wall-clock time enters")]
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A new request id: the same one goes with every try of one change.
pub(crate) fn request_id() -> Result<String, Failure> {
    let mut random = [0; 16];
    SystemEntropy::new().fill(&mut random).map_err(|_| {
        Failure::usage("this machine gives no random numbers".into(), "see that /dev/urandom works")
    })?;
    Ok(format!("{}-{}", now_ms(), hex::encode(random)))
}
