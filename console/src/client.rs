//! Calls control nodes: one after the other until one answers, within one deadline.
//!
//! What is tried again, when, and what is said in the end: see `retry`. Each try tells the node how long
//! is left, so that the node says what is missing before this end gives up.

use crate::{
    failure::{Failure, exit},
    global::Global,
    noun::{Freshness, Noun, Query},
    profile::Profile,
    retry::{Backoff, Effect, Verdict, hash},
};
use api::{
    BoxFuture, Tcp, TcpConfig,
    fabric::WireConfig,
    json::{Schema, SchemaError},
    reason::UNKNOWN_OUTCOME,
    status::ClientError,
};
use identity::{ClientConfig, Entropy, SystemEntropy};
use serde_json::Value;
use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

/// A channel on which every call says how long its caller waits.
pub(crate) type Wire = InterceptedService<Channel, Until>;

/// Says how long is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until(Instant);

impl Interceptor for Until {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.set_timeout(self.0.saturating_duration_since(Instant::now()));
        Ok(request)
    }
}

/// Connections to the control nodes of one cluster, as one operator.
pub(crate) struct Client {
    servers: Vec<(String, Channel)>,
    current: AtomicUsize,
    /// Deadline of one call, retries included.
    pub(crate) timeout: Duration,
    tenant: Option<String>,
    schema: Schema,
    /// Seeds the pauses of the next call; differs from client to client.
    seed: AtomicU64,
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
            seed: AtomicU64::new(hash(request_id()?.as_bytes())),
        })
    }

    /// Reads: calls until a node answers. `call` is made anew for each try.
    pub(crate) async fn call<T, F, Fut>(&self, call: F) -> Result<T, Failure>
    where
        F: Fn(Wire) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        self.call_as(Effect::Read, call).await
    }

    /// Changes under a request id, which is the same for each try.
    pub(crate) async fn change<T, F, Fut>(&self, call: F) -> Result<T, Failure>
    where
        F: Fn(Wire) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        self.call_as(Effect::Named, call).await
    }

    /// Calls until a node answers, or the outcome of a change that nothing names is unknown.
    pub(crate) async fn call_as<T, F, Fut>(&self, effect: Effect, call: F) -> Result<T, Failure>
    where
        F: Fn(Wire) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.timeout;
        let mut backoff = self.backoff();
        let (mut tries, mut unknown) = (0, false);
        // What a node that lives says tells more than that another one does not answer.
        let mut told = None;
        loop {
            let (addr, channel) = self.server();
            let wire = InterceptedService::new(channel, Until(deadline));
            let status = match tokio::time::timeout_at(deadline, call(wire)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("{addr} did not answer in time")),
            };
            tries += 1;
            let verdict = Verdict::of(&status);
            unknown |= verdict == Verdict::Unknown;
            if !ClientError::from(status.clone()).reason.is_empty() {
                told = Some(status.clone());
            }
            let round_over = tries % self.servers.len() == 0;
            let pause = match round_over || verdict == Verdict::Overloaded {
                true => backoff.pause(),
                false => Duration::ZERO,
            };
            if !verdict.may_repeat(effect) || Instant::now() + pause >= deadline {
                let refused = verdict == Verdict::Refused;
                let status = if refused { status } else { told.unwrap_or(status) };
                return Err(match unknown && effect != Effect::Read {
                    true => self.unknown(&status, tries),
                    false => self.failure(&status, tries),
                });
            }
            self.next_server();
            tokio::time::sleep(pause).await;
        }
    }

    /// Pauses for whoever repeats calls by itself.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.seed.fetch_add(1, Ordering::Relaxed))
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
        self.tenant_as(Freshness::default()).await
    }

    /// The same, of a state as new as asked.
    pub(crate) async fn tenant_as(&self, freshness: Freshness) -> Result<String, Failure> {
        if let Some(tenant) = &self.tenant {
            return Ok(tenant.clone());
        }
        let query = Query { freshness, ..Query::default() };
        let tenants = Noun::Tenant.list(self, &query).await?;
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
        if Verdict::of(status) != Verdict::Refused {
            self.note(&mut failure, tries);
            if failure.remedy.is_empty() {
                failure.remedy = "see that the control nodes run and can be reached".into();
            }
        }
        failure
    }

    /// What is said of a change of which some try may have been carried out. `last` is the last answer.
    fn unknown(&self, last: &Status, tries: usize) -> Failure {
        let last = Failure::from_status(last);
        let message = "no answer says whether the change was carried out".to_owned();
        let remedy = "look whether it was; if not, do it again";
        let mut failure = Failure::of(exit::ERROR, UNKNOWN_OUTCOME, message, remedy);
        failure.code = last.code.clone();
        let word = if last.reason.is_empty() { last.code } else { last.reason };
        failure.metadata.insert("last_answer".into(), format!("{word}: {}", last.message));
        self.note(&mut failure, tries);
        failure
    }

    fn note(&self, failure: &mut Failure, tries: usize) {
        let all: Vec<_> = self.servers.iter().map(|(addr, _)| addr.as_str()).collect();
        failure.metadata.insert("servers".into(), all.join(", "));
        failure.metadata.insert("tries".into(), tries.to_string());
    }
}

fn broken(error: &SchemaError) -> Failure {
    let message = format!("an answer could not be read: {error}");
    Failure::of(exit::ERROR, "ANSWER", message, "use a console of the cluster's version")
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

#[cfg(test)]
#[path = "client/tests.rs"]
mod tests;
