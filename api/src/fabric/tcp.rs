//! The real fabric: TCP, without delay, with keepalive, with a bound on connecting.

use crate::fabric::{BoxFuture, Fabric, Incoming};
use futures::StreamExt;
use std::{io, net::SocketAddr, time::Duration};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

/// Bounds of [`Tcp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpConfig {
    /// Longest attempt at all addresses of a name together, in ms.
    pub connect_timeout_ms: u64,
    /// Connections the kernel keeps that were not yet accepted.
    pub backlog_max: u32,
    /// Pause after a failed accept, in ms: out of descriptors, say, which a hot loop would not mend.
    pub accept_pause_ms: u64,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self { connect_timeout_ms: 2_000, backlog_max: 1_024, accept_pause_ms: 100 }
    }
}

/// TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp {
    config: TcpConfig,
}

impl Tcp {
    /// TCP with these bounds.
    pub fn new(config: TcpConfig) -> Self {
        Self { config }
    }

    /// Listens like [`Fabric::listen`] and says on which address: port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(&self, addr: &str) -> io::Result<(SocketAddr, Incoming<TcpStream>)> {
        let listener = listener(addr, self.config.backlog_max).await?;
        let local = listener.local_addr()?;
        let pause = Duration::from_millis(self.config.accept_pause_ms);
        let incoming = futures::stream::unfold(listener, move |listener| async move {
            let accepted = match listener.accept().await {
                Ok((stream, _from)) => stream.set_nodelay(true).map(|()| stream),
                Err(error) => {
                    tokio::time::sleep(pause).await;
                    Err(error)
                }
            };
            Some((accepted, listener))
        });
        Ok((local, incoming.boxed()))
    }
}

impl Fabric for Tcp {
    type Io = TcpStream;

    fn dial(&self, addr: String) -> BoxFuture<'static, io::Result<TcpStream>> {
        let limit = Duration::from_millis(self.config.connect_timeout_ms);
        Box::pin(async move {
            match tokio::time::timeout(limit, connect(&addr)).await {
                Ok(connected) => connected,
                Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }

    fn listen(&self, addr: String) -> BoxFuture<'static, io::Result<Incoming<TcpStream>>> {
        let tcp = *self;
        Box::pin(async move { tcp.bind(&addr).await.map(|(_local, incoming)| incoming) })
    }
}

/// Tries the addresses of a name one after the other.
async fn connect(addr: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in lookup_host(addr).await? {
        let socket = socket_for(address)?;
        socket.set_keepalive(true)?;
        socket.set_nodelay(true)?;
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn listener(addr: &str, backlog: u32) -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in lookup_host(addr).await? {
        let socket = socket_for(address)?;
        socket.set_reuseaddr(true)?;
        socket.set_keepalive(true)?;
        match socket.bind(address).and_then(|()| socket.listen(backlog)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn socket_for(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}
