//! The message wire between control nodes: `consensus::Transport` over the simulated network.
//!
//! A call is two messages. Each may be late, lost, or held until its link is mended, whatever its caller
//! does in the meantime; one of Raft's may arrive twice. What a dead node left under way does not arrive.

use super::{
    control::FOLDER,
    net::{Door, Net, Place, Travel},
};
use api::BoxFuture;
use bytes::Bytes;
use consensus::{Method, Promise, Target, Transport, TransportError};
use model::NodeId;
use std::{path::Path, time::Duration};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until, timeout_at},
};

/// The wire as one life of a node has it.
pub(super) struct Messages {
    pub(super) me: NodeId,
    pub(super) life: u64,
    pub(super) net: Net,
}

type Answer = Result<Bytes, TransportError>;

impl Transport for Messages {
    fn call(
        &self,
        to: &Target,
        method: Method,
        body: Bytes,
        deadline: Instant,
    ) -> BoxFuture<'static, Answer> {
        let call =
            Call { net: self.net.clone(), from: self.me, life: self.life, to: to.id, method };
        Box::pin(call.carry_out(body, deadline))
    }
}

#[derive(Clone)]
struct Call {
    net: Net,
    from: NodeId,
    life: u64,
    to: NodeId,
    method: Method,
}

impl Call {
    fn out(&self) -> (Place, Place) {
        (Place::Node(self.from), Place::Node(self.to))
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        let (from, to) = self.out();
        self.net.book.line(format_args!("{from}>{to} {} {what}", self.method.as_str()));
    }

    async fn carry_out(self, body: Bytes, deadline: Instant) -> Answer {
        let to = self.to;
        let lost = || TransportError::Lost { to, reason: "no answer".to_owned() };
        let (sender, answer) = oneshot::channel();
        if self.net.lives(Place::Node(self.from), self.life) {
            self.note(format_args!("{} bytes {:08x}", body.len(), hash(&body)));
            self.net.book.count(|figures| figures.messages += 1);
            let raft = !matches!(self.method, Method::Propose | Method::Linearize);
            if raft && self.net.is_repeated() {
                tokio::spawn(self.clone().deliver(body.clone(), None));
            }
            tokio::spawn(self.deliver(body, Some(sender)));
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                sleep_until(deadline).await;
                Err(lost())
            }
            Err(_) => Err(lost()),
        }
    }

    /// There and back. A caller whose sender is dropped waits in vain.
    async fn deliver(self, body: Bytes, caller: Option<oneshot::Sender<Answer>>) {
        let (from, to) = self.out();
        if !self.arrives(from, to).await {
            return self.note(format_args!("is lost"));
        }
        let Some(door) = self.net.door(self.to) else {
            let reason = "connection refused".to_owned();
            let refused = Err(TransportError::Unreachable { to: self.to, reason });
            return self.answer(caller, refused).await;
        };
        let handled = door.peers.handle(self.method, body.clone()).await;
        if !self.net.lives(to, door.life) {
            let reason = "connection reset".to_owned();
            return self.answer(caller, Err(TransportError::Lost { to: self.to, reason })).await;
        }
        if let Ok(answer) = &handled
            && (self.method == Method::Vote
                || self.method == Method::Append && self.net.is_checked())
        {
            let kept = self.keeps(&door, &body, answer).await;
            self.net.book.judge("egress", kept.map_err(|why| format!("{to} {why}")));
        }
        let refused = |error: consensus::ServiceError| TransportError::Refused {
            to: self.to,
            reason: error.to_string(),
        };
        self.answer(caller, handled.map_err(refused)).await;
    }

    /// Nothing promised leaves a node before its disk holds it.
    async fn keeps(&self, door: &Door, request: &[u8], answer: &[u8]) -> Result<(), String> {
        let unread = |fault: storage::Fault| fault.to_string();
        let promise = Promise::of(self.method, request, answer).map_err(unread)?;
        let Some(promise) = promise else { return Ok(()) };
        let durable = door.disk.fork_durable();
        let broken = promise.broken_by(&durable, Path::new(FOLDER)).await.map_err(unread)?;
        broken.map_or(Ok(()), Err)
    }

    async fn answer(&self, caller: Option<oneshot::Sender<Answer>>, answer: Answer) {
        let Some(caller) = caller else { return };
        let (to, from) = self.out();
        if !self.arrives(from, to).await {
            return self.note(format_args!("has its answer lost"));
        }
        match &answer {
            Ok(body) => {
                self.note(format_args!("is answered {} bytes {:08x}", body.len(), hash(body)));
            }
            Err(error) => self.note(format_args!("is answered {error}")),
        }
        // The caller may have gone.
        drop(caller.send(answer));
    }

    /// One message travels. Those that meet a cut are held or lost.
    async fn arrives(&self, from: Place, to: Place) -> bool {
        let arrives = match self.net.travel(from, to) {
            Travel::Lost => false,
            Travel::Arrives(pause) => {
                sleep(pause).await;
                if self.net.is_cut(from, to) && self.net.permille(500) {
                    self.net.until_mended(from, to).await;
                    sleep(Duration::from_millis(1)).await;
                }
                !self.net.is_cut(from, to)
            }
        };
        if !arrives {
            self.net.book.count(|figures| figures.lost += 1);
        }
        arrives
    }
}

/// FNV-1a, for the trace.
pub(super) fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
