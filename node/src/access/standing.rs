//! Streams that go on for long are let through for as long as their caller may, and no longer.
//!
//! A unary call is judged once, when it comes. What is streamed is judged again before each message that
//! leaves, and now and then while nothing does: a role that was taken away, a host that lost its trust and
//! a certificate that ended count for what is under way too.

use super::{Granted, authorized};
use crate::{Shared, refusal};
use api::{BoxStream, access::Requirement};
use consensus::Ledger;
use futures::{StreamExt, stream};
use identity::{Denied, Principal};
use model::{Name, State, Timestamp};
use std::time::Duration;
use tonic::Status;

/// What a call was let through on.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(super) principal: Option<Principal>,
    pub(super) requirement: &'static Requirement,
    pub(super) tenant: Option<Name>,
    /// When the caller's certificate ends, in Unix ms.
    pub(super) not_after_ms: Option<u64>,
}

impl Standing {
    /// Whether the certificate of the caller has not ended.
    pub(super) fn unexpired(&self, now: Timestamp) -> Result<(), Denied> {
        match self.not_after_ms {
            Some(end) if end <= now.0 => Err(Denied::Unauthenticated),
            _ => Ok(()),
        }
    }

    fn judge(&self, state: &State, now: Timestamp) -> Result<(), Denied> {
        self.unexpired(now)?;
        let need = (self.requirement, self.tenant.as_ref());
        authorized(state, self.principal.as_ref(), need)
    }
}

/// A stream that is judged. `inner` is dropped at the end, so that whoever feeds it learns of it.
struct Judged<L: Ledger, M> {
    shared: Shared<L>,
    standing: Standing,
    inner: Option<BoxStream<'static, Result<M, Status>>>,
}

impl<L: Ledger, M> Judged<L, M> {
    fn judge(&self) -> Result<(), Status> {
        let now = self.shared.clock.now();
        let judged = self.shared.ledger.read(|state| self.standing.judge(state, now));
        judged.map_err(refusal::of_denied)
    }

    async fn next(&mut self) -> Option<Result<M, Status>> {
        let pause = Duration::from_millis(self.shared.config.server.judge_ms);
        loop {
            let inner = self.inner.as_mut()?;
            let message = tokio::select! {
                biased;
                message = inner.next() => Some(message?),
                () = tokio::time::sleep(pause) => None,
            };
            if let Err(denied) = self.judge() {
                self.inner = None;
                return Some(Err(denied));
            }
            if message.is_some() {
                return message;
            }
        }
    }
}

impl<L: Ledger> Shared<L> {
    /// The stream, for as long as the caller of `call` may have it; then the refusal, and nothing more.
    pub(crate) fn while_granted<T, M: Send + 'static>(
        &self,
        call: &Granted<T>,
        inner: BoxStream<'static, Result<M, Status>>,
    ) -> BoxStream<'static, Result<M, Status>> {
        let standing = call.standing.clone();
        let judged = Judged { shared: self.clone(), standing, inner: Some(inner) };
        Box::pin(stream::unfold(judged, async |mut judged: Judged<L, M>| {
            judged.next().await.map(|message| (message, judged))
        }))
    }
}
