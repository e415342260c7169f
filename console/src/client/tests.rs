//! Calls against servers that answer by a script.

use super::*;
use api::{
    fabric::{AcceptConfig, accept, plain, server},
    reason::{NO_LEADER, OVERLOADED},
    v1::{
        self,
        tenants_client::TenantsClient,
        tenants_server::{Tenants, TenantsServer},
    },
};
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};
use tonic::Response;

/// What a server answers next.
enum Act {
    Done,
    Say(fn() -> Status),
    /// Nothing at all.
    Silence,
}

/// A server, and what it was asked.
#[derive(Clone, Default)]
struct Scripted {
    acts: Arc<Mutex<VecDeque<Act>>>,
    asked: Arc<Mutex<Vec<(String, bool)>>>,
}

impl Scripted {
    fn new(acts: impl IntoIterator<Item = Act>) -> Self {
        let acts = Arc::new(Mutex::new(acts.into_iter().collect()));
        Self { acts, asked: Arc::default() }
    }

    /// Request ids, in the order they came.
    fn ids(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().map(|(id, _)| id.clone()).collect()
    }

    fn asked_with_deadline(&self) -> bool {
        self.asked.lock().unwrap().iter().all(|(_, deadline)| *deadline)
    }

    async fn serve(&self) -> String {
        let (addr, incoming) = Tcp::default().bind("127.0.0.1:0").await.unwrap();
        let anybody = |io| -> BoxFuture<'static, _> { Box::pin(std::future::ready(Ok((io, ())))) };
        let incoming = accept(incoming, anybody, AcceptConfig::default());
        let serving = server(WireConfig::default()).add_service(TenantsServer::new(self.clone()));
        tokio::spawn(serving.serve_with_incoming(incoming));
        addr.to_string()
    }

    async fn answer<T>(&self, done: T) -> Result<Response<T>, Status> {
        let act = self.acts.lock().unwrap().pop_front();
        match act {
            Some(Act::Done) => Ok(Response::new(done)),
            Some(Act::Say(status)) => Err(status()),
            Some(Act::Silence) => std::future::pending().await,
            None => panic!("it was asked once too often"),
        }
    }
}

#[tonic::async_trait]
impl Tenants for Scripted {
    async fn get(&self, _: Request<v1::GetRequest>) -> Result<Response<v1::Tenant>, Status> {
        self.asked.lock().unwrap().push((String::new(), true));
        self.answer(v1::Tenant::default()).await
    }

    async fn list(
        &self,
        _: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListTenantsResponse>, Status> {
        self.answer(v1::ListTenantsResponse::default()).await
    }

    async fn apply(
        &self,
        request: Request<v1::ApplyTenantRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let deadline = request.metadata().contains_key("grpc-timeout");
        let id = request.into_inner().request_id;
        self.asked.lock().unwrap().push((id, deadline));
        self.answer(v1::Outcome { revision: 7, ..v1::Outcome::default() }).await
    }

    async fn delete(&self, _: Request<v1::DeleteRequest>) -> Result<Response<v1::Outcome>, Status> {
        self.answer(v1::Outcome::default()).await
    }
}

/// A client of these servers, in their order.
fn client(addrs: &[String], timeout_ms: u64) -> Client {
    let dial = |addr: &String| {
        let channel = api::fabric::channel(&Tcp::default(), addr, plain, WireConfig::default());
        (addr.clone(), channel.unwrap())
    };
    Client {
        servers: addrs.iter().map(dial).collect(),
        current: AtomicUsize::new(0),
        timeout: Duration::from_millis(timeout_ms),
        tenant: None,
        schema: Schema::load().unwrap(),
        seed: AtomicU64::new(1),
    }
}

async fn apply(client: &Client, effect: Effect) -> Result<u64, Failure> {
    let id = request_id().unwrap();
    let outcome = client.call_as(effect, |wire| {
        let request =
            v1::ApplyTenantRequest { request_id: id.clone(), ..v1::ApplyTenantRequest::default() };
        async move { TenantsClient::new(wire).apply(request).await }
    });
    outcome.await.map(|outcome| outcome.revision)
}

fn no_leader() -> Status {
    api::status::unavailable_not_leader(None)
}

/// An address nobody listens at.
async fn nobody() -> String {
    let (addr, incoming) = Tcp::default().bind("127.0.0.1:0").await.unwrap();
    drop(incoming);
    addr.to_string()
}

#[tokio::test]
async fn a_change_goes_on_under_the_same_request_id_until_it_is_answered() {
    let unknown = Act::Say(api::status::unknown_outcome);
    let first = Scripted::new([Act::Say(no_leader), Act::Say(api::status::overloaded), Act::Done]);
    let second = Scripted::new([unknown, Act::Say(|| Status::unknown("it broke"))]);
    let addrs = [first.serve().await, second.serve().await];
    let done = apply(&client(&addrs, 10_000), Effect::Named).await;
    assert_eq!(done, Ok(7));
    let ids = [first.ids(), second.ids()].concat();
    assert_eq!(ids.len(), 5);
    assert!(ids.iter().all(|id| *id == ids[0] && !id.is_empty()), "{ids:?}");
    let made: u64 = ids[0].split('-').next().unwrap().parse().unwrap();
    assert!(now_ms() - made < 60_000, "the id says when it was made");
    assert!(first.asked_with_deadline() && second.asked_with_deadline());
}

#[tokio::test]
async fn a_change_that_nothing_names_is_repeated_only_if_it_was_certainly_not_done() {
    let node = Scripted::new([
        Act::Say(no_leader),
        Act::Say(api::status::overloaded),
        Act::Say(api::status::unknown_outcome),
    ]);
    let addrs = [nobody().await, node.serve().await];
    let failure = apply(&client(&addrs, 10_000), Effect::Unnamed).await.unwrap_err();
    assert_eq!(failure.reason, UNKNOWN_OUTCOME);
    assert_eq!(node.ids().len(), 3, "nothing after the unknown");
}

#[tokio::test]
async fn a_refusal_is_final() {
    let refuse = || api::status::rejected(&api::reason::bad_field("name", "it is none", "mend it"));
    let node = Scripted::new([Act::Say(refuse)]);
    let addrs = [node.serve().await, nobody().await];
    let failure = apply(&client(&addrs, 10_000), Effect::Named).await.unwrap_err();
    assert_eq!((failure.reason.as_str(), failure.field.as_str()), ("FIELD", "name"));
    assert_eq!(node.ids().len(), 1);
}

#[tokio::test]
async fn at_the_deadline_the_last_answer_is_told_unless_a_try_may_have_been_carried_out() {
    let many = |status: fn() -> Status| (0..64).map(move |_| Act::Say(status));
    let node = Scripted::new(many(no_leader));
    let failure = apply(&client(&[node.serve().await], 600), Effect::Named).await.unwrap_err();
    assert_eq!(failure.reason, NO_LEADER);
    assert!(!failure.remedy.is_empty() && failure.metadata.contains_key("tries"));
    let node = Scripted::new(many(api::status::overloaded));
    let failure = apply(&client(&[node.serve().await], 600), Effect::Named).await.unwrap_err();
    assert_eq!(failure.reason, OVERLOADED);
    assert!(node.ids().len() < 12, "it pauses: {}", node.ids().len());

    let lost = Act::Say(|| Status::unknown("it broke"));
    let node = Scripted::new(std::iter::once(lost).chain(many(no_leader)));
    let failure = apply(&client(&[node.serve().await], 600), Effect::Named).await.unwrap_err();
    assert_eq!(failure.reason, UNKNOWN_OUTCOME);
    assert!(failure.metadata["last_answer"].starts_with(NO_LEADER), "{failure:?}");
}

#[tokio::test]
async fn a_node_that_says_nothing_costs_the_deadline_and_no_more() {
    let node = Scripted::new([Act::Silence]);
    let began = Instant::now();
    let failure = apply(&client(&[node.serve().await], 300), Effect::Named).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(failure.reason, UNKNOWN_OUTCOME);
}

#[tokio::test]
async fn a_read_whose_connection_broke_is_simply_read_again() {
    let broke = || Act::Say(|| Status::unknown("it broke"));
    let node = Scripted::new([broke(), Act::Done]);
    let client = client(&[node.serve().await], 10_000);
    let read = client
        .call(|wire| async move { TenantsClient::new(wire).get(v1::GetRequest::default()).await });
    assert!(read.await.is_ok());
    let node = Scripted::new((0..64).map(|_| broke()));
    let client = self::client(&[node.serve().await], 300);
    let read = client
        .call(|wire| async move { TenantsClient::new(wire).get(v1::GetRequest::default()).await });
    assert_ne!(read.await.unwrap_err().reason, UNKNOWN_OUTCOME, "a read has no outcome");
}
