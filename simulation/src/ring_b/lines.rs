//! The byte wire: byte streams below real gRPC and HTTP/2, in the clear.
//!
//! A line is in order and whole until it breaks. A cut holds what is under way; one that lasts breaks the
//! line, as a kernel's patience does. Who dials is said to the listener instead of proved.

use super::net::{Net, Place};
use api::{BoxFuture, Fabric, Incoming};
use identity::Peer;
use model::NodeId;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

/// How long a dial may take.
const DIAL: Duration = Duration::from_secs(2);
/// How long a line outlives a cut.
const HELD: Duration = Duration::from_secs(8);
/// Bytes under way in one direction.
const WINDOW: usize = 64 << 10;
/// Bytes that travel at once.
const PART: usize = 16 << 10;

/// One end of a line, with who is at the other.
pub(super) type Line = (DuplexStream, Option<Peer>);

/// Where dials to a node end.
#[derive(Clone)]
pub(super) struct Listening {
    pub(super) client: mpsc::Sender<Line>,
    pub(super) peer: mpsc::Sender<Line>,
}

/// The lines of one life of a node or an agent.
#[derive(Clone)]
pub(super) struct Lines {
    pub(super) net: Net,
    pub(super) here: Place,
    pub(super) life: u64,
    /// Who dials.
    pub(super) peer: Option<Peer>,
}

/// The node at an address, and whether it is its client port.
fn at(addr: &str) -> Option<(NodeId, bool)> {
    let (id, port) = addr.strip_prefix("node-")?.split_once(':')?;
    Some((NodeId(id.parse().ok()?), port == "7400"))
}

impl Lines {
    async fn connect(self, addr: String) -> io::Result<DuplexStream> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let timed_out = || io::Error::from(io::ErrorKind::TimedOut);
        let (id, is_client) = at(&addr).ok_or_else(refused)?;
        let (here, there) = (self.here, Place::Node(id));
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
        let listening = door.listening.ok_or_else(refused)?;
        let broken = self.net.connect(here, there);
        let (near, one) = tokio::io::duplex(WINDOW);
        let (other, far) = tokio::io::duplex(WINDOW);
        let (from_near, to_near) = tokio::io::split(one);
        let (from_far, to_far) = tokio::io::split(other);
        let link = |from, to| Link { net: self.net.clone(), from, to, broken: broken.clone() };
        tokio::spawn(link(here, there).pump(from_near, to_far));
        tokio::spawn(link(there, here).pump(from_far, to_near));
        let listener = if is_client { listening.client } else { listening.peer };
        listener.send((far, self.peer.clone())).await.map_err(|_| refused())?;
        self.net.book.line(format_args!("{here}>{there} connected"));
        if is_client {
            self.net.book.count(|figures| figures.sessions += 1);
        }
        Ok(near)
    }
}

impl Fabric for Lines {
    type Io = DuplexStream;

    fn dial(&self, addr: String) -> BoxFuture<'static, io::Result<DuplexStream>> {
        Box::pin(self.clone().connect(addr))
    }

    fn listen(&self, _addr: String) -> BoxFuture<'static, io::Result<Incoming<DuplexStream>>> {
        // Nodes listen where they are started.
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }
}

/// One direction of a line.
struct Link {
    net: Net,
    from: Place,
    to: Place,
    broken: CancellationToken,
}

impl Link {
    async fn pump(self, mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>) {
        let mut part = vec![0; PART];
        loop {
            let read = tokio::select! {
                biased;
                () = self.broken.cancelled() => return,
                read = from.read(&mut part) => read.unwrap_or(0),
            };
            let arrived = tokio::select! {
                biased;
                () = self.broken.cancelled() => return,
                arrived = self.net.trip((self.from, self.to), HELD) => arrived,
            };
            if !arrived {
                return self.broken.cancel();
            }
            let written = match read {
                0 => to.shutdown().await,
                read => {
                    self.note(read, &part[..read]);
                    to.write_all(&part[..read]).await
                }
            };
            if read == 0 || written.is_err() {
                return;
            }
        }
    }

    fn note(&self, count: usize, bytes: &[u8]) {
        let hash = super::wire::hash(bytes);
        self.net.book.count(|figures| figures.messages += 1);
        self.net.book.line(format_args!("{}>{} {count} bytes {hash:08x}", self.from, self.to));
    }
}
