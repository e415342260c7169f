//! The tower layer around all services of a port.
//!
//! Nothing reaches a service but through here. What it learned goes along in the request; an answer
//! of a service that did not ask for its grant does not leave.

use super::{Connection, Passed, authorized, caller_of};
use crate::{Shared, refusal};
use api::access::{RequiredScope, Requirement};
use consensus::Ledger;
use identity::Principal;
use model::{Caller, Digest};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};
use tokio::{sync::Semaphore, time::Instant};
use tonic::{
    Status,
    body::Body,
    codegen::{
        BoxFuture,
        http::{Request, Response},
    },
};
use tower::{Layer, Service};

/// Makes a [`Gate`] of each service.
#[derive(Clone)]
pub(crate) struct Access<L: Ledger> {
    shared: Shared<L>,
    /// Calls of operators and strangers at a time; a stream counts until it begins.
    calls: Arc<Semaphore>,
    /// The same of agents and control nodes: a crowd of operators keeps none of them out.
    house_calls: Arc<Semaphore>,
}

impl<L: Ledger> Access<L> {
    pub(crate) fn new(shared: Shared<L>) -> Self {
        let slots = |max: usize| Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        let server = &shared.config.server;
        let (calls, house_calls) = (slots(server.calls_max), slots(server.agent_calls_max));
        Self { shared, calls, house_calls }
    }

    /// The slots that a call takes one of.
    fn slots(&self, request: &Request<Body>) -> &Arc<Semaphore> {
        let connection = request.extensions().get::<Connection>();
        match connection.and_then(|it| it.peer.as_deref()).map(|peer| &peer.principal) {
            Some(Principal::Agent { .. } | Principal::Node { .. }) => &self.house_calls,
            Some(Principal::Operator { .. }) | None => &self.calls,
        }
    }
}

impl<L: Ledger, S> Layer<S> for Access<L> {
    type Service = Gate<L, S>;

    fn layer(&self, inner: S) -> Gate<L, S> {
        Gate { access: self.clone(), inner }
    }
}

/// Judges each call before `inner` sees it.
#[derive(Clone)]
pub(crate) struct Gate<L: Ledger, S> {
    access: Access<L>,
    inner: S,
}

impl<L, S> Service<Request<Body>> for Gate<L, S>
where
    L: Ledger,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send,
    S: 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The clone takes the place of the service that is ready and is used here.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let access = self.access.clone();
        Box::pin(async move {
            let Ok(_call) = access.slots(&request).clone().try_acquire_owned() else {
                let full = refusal::of_ledger(&consensus::Error::Overloaded);
                return Ok(full.into_http());
            };
            let asked = Asked::of(&request, &access.shared);
            let passed = match access.pass(asked).await {
                Ok(passed) => passed,
                Err(refused) => return Ok(refused.into_http()),
            };
            let granted = passed.granted.clone();
            request.extensions_mut().insert(passed);
            let response = inner.call(request).await?;
            if succeeds(&response) && !granted.load(Ordering::Relaxed) {
                tracing::error!("a service answered without asking whether it may");
                return Ok(Status::internal("the service did not ask for a grant").into_http());
            }
            Ok(response)
        })
    }
}

/// What is known of a call before its request is read.
struct Asked {
    requirement: Option<&'static Requirement>,
    connection: Option<Connection>,
    deadline: Instant,
}

impl Asked {
    fn of<L: Ledger>(request: &Request<Body>, shared: &Shared<L>) -> Self {
        Self {
            requirement: api::access::requirement(request.uri().path()),
            connection: request.extensions().get::<Connection>().cloned(),
            deadline: shared.deadline(request.headers()),
        }
    }
}

impl<L: Ledger> Access<L> {
    /// Judges what can be judged before the request is read.
    async fn pass(&self, asked: Asked) -> Result<Passed, Status> {
        let requirement =
            asked.requirement.ok_or_else(|| Status::unimplemented("there is no such method"))?;
        let connection =
            asked.connection.ok_or_else(|| Status::internal("the connection has no caller"))?;
        let peer = connection.peer.as_deref();
        if peer.is_some_and(|peer| peer.not_after_ms <= self.shared.clock.now().0) {
            // The connection has outlived the certificate it was opened with.
            return Err(refusal::of_denied(identity::Denied::Unauthenticated));
        }
        let principal = peer.map(|peer| peer.principal.clone());
        let caller = match &principal {
            Some(principal) => caller_of(principal)
                .ok_or_else(|| refusal::of_denied(identity::Denied::Unauthenticated))?,
            // Only enrolment is open to callers without a certificate: this node acts for them.
            None => Caller::Node(self.shared.node_id),
        };
        let need = (requirement, None);
        if requirement.scope == RequiredScope::Cluster && requirement.role.is_some() {
            self.shared.judge(principal.as_ref(), need, asked.deadline).await?;
        } else {
            // A role in a tenant is judged when the tenant is known.
            let judged =
                self.shared.ledger.read(|state| authorized(state, principal.as_ref(), need));
            judged.map_err(refusal::of_denied)?;
        }
        let key = peer.map(|peer| Digest(peer.key_sha256));
        let not_after_ms = peer.map(|peer| peer.not_after_ms);
        let granted = Arc::new(AtomicBool::new(false));
        Ok(Passed { principal, key, caller, requirement, not_after_ms, granted })
    }
}

/// Whether the answer is none of an error: those have their status in the headers.
fn succeeds(response: &Response<Body>) -> bool {
    let status = response.headers().get("grpc-status");
    status.is_none_or(|status| status.as_bytes() == b"0")
}
