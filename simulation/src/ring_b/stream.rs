//! The message wire of sessions: gRPC's messages without HTTP/2 and TLS.
//!
//! An agent's calls go to the services of a node in this process, through the same codec and the same
//! access layer as over TCP. In between lies the simulated network: frames arrive late and in order, a
//! cut holds them, and a connection that is held for too long, or whose end is gone, breaks.

use super::net::{Net, Place};
use api::fabric::{AddressError, CallError, Calls};
use bytes::Bytes;
use hyper::body::Frame;
use identity::Peer;
use model::NodeId;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    codegen::http::{Request, Response},
};
use tower::ServiceExt as _;

/// How long a dial may take.
const DIAL: Duration = Duration::from_secs(2);
/// How long a connection outlives a cut: as HTTP/2's keepalive has it.
const HELD: Duration = Duration::from_secs(4);
/// Frames between two ends.
const FRAMES: usize = 16;

/// The address of a node's client port.
pub(super) fn client_addr(id: NodeId) -> String {
    format!("node-{id}:7400")
}

fn node_at(addr: &str) -> Option<NodeId> {
    addr.strip_prefix("node-")?.strip_suffix(":7400")?.parse().ok().map(NodeId)
}

/// The way of one life of an agent to the control nodes.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) net: Net,
    pub(super) edge: usize,
    pub(super) life: u64,
    pub(super) peer: Peer,
}

impl Way {
    /// Calls to an address.
    pub(super) fn calls(&self, addr: &str) -> Result<Calls, AddressError> {
        let (way, addr) = (self.clone(), addr.to_owned());
        let call = move |request: Request<Body>| {
            let (way, addr) = (way.clone(), addr.clone());
            async move { way.call(&addr, request).await }
        };
        Ok(Calls::new(tower::service_fn(call)))
    }

    async fn call(self, addr: &str, request: Request<Body>) -> Result<Response<Body>, CallError> {
        let refused = || CallError::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        let timed_out = || CallError::new(io::Error::from(io::ErrorKind::TimedOut));
        let id = node_at(addr).ok_or_else(refused)?;
        let (here, there) = (Place::Edge(self.edge), Place::Node(id));
        if !self.net.lives(here, self.life) {
            return Err(refused());
        }
        if !self.net.trip((here, there), DIAL).await {
            return Err(timed_out());
        }
        let door = self.net.door(id);
        if !self.net.trip((there, here), DIAL).await {
            return Err(timed_out());
        }
        let door = door.filter(|door| self.net.lives(there, door.life)).ok_or_else(refused)?;
        self.net.book.line(format_args!("{here}>{there} connected"));
        self.net.book.count(|figures| figures.sessions += 1);
        let broken = self.net.connect(here, there);
        let out = Link { net: self.net.clone(), from: here, to: there, broken: broken.clone() };
        let back = Link { net: self.net.clone(), from: there, to: here, broken };
        let calls = door.port.connect(Some(self.peer.clone())).map_err(CallError::new)?;
        let response = calls.oneshot(request.map(|body| out.carry(body))).await?;
        Ok(response.map(|body| back.carry(body)))
    }
}

/// One direction of a connection.
struct Link {
    net: Net,
    from: Place,
    to: Place,
    broken: CancellationToken,
}

type Arrived = Result<Frame<Bytes>, io::Error>;

impl Link {
    /// The body as it arrives at the other end.
    fn carry(self, body: Body) -> Body {
        let (sender, frames) = mpsc::channel(FRAMES);
        tokio::spawn(self.pump(body, sender));
        Body::new(Arriving(frames))
    }

    async fn pump(self, mut body: Body, out: mpsc::Sender<Arrived>) {
        loop {
            let next = std::future::poll_fn(|cx| {
                tonic::codegen::Body::poll_frame(Pin::new(&mut body), cx)
            });
            let next = tokio::select! {
                biased;
                () = self.broken.cancelled() => return self.reset(out).await,
                () = out.closed() => return,
                next = next => next,
            };
            let arrived = tokio::select! {
                biased;
                () = self.broken.cancelled() => false,
                arrived = self.net.trip((self.from, self.to), HELD) => arrived,
            };
            if !arrived {
                self.broken.cancel();
                return self.reset(out).await;
            }
            let bytes = match &next {
                None => return self.note("ends"),
                Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) => 0,
            };
            if self.net.book.trace.is_kept() {
                self.note(&format!("{bytes} bytes"));
            }
            let arrived = match next {
                Some(Ok(frame)) => Ok(frame),
                _ => Err(io::ErrorKind::ConnectionReset.into()),
            };
            if out.send(arrived).await.is_err() {
                return;
            }
        }
    }

    async fn reset(&self, out: mpsc::Sender<Arrived>) {
        self.note("is reset");
        // The other end may be gone, or too full to hear of it: it sees the end of the stream then.
        drop(out.try_send(Err(io::ErrorKind::ConnectionReset.into())));
    }

    fn note(&self, what: &str) {
        self.net.book.line(format_args!("{}>{} session {what}", self.from, self.to));
    }
}

/// A body at the end where it arrives.
struct Arriving(mpsc::Receiver<Arrived>);

impl tonic::codegen::Body for Arriving {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Arrived>> {
        self.0.poll_recv(cx)
    }
}
