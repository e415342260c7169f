//! Bytes between machines: the seam below TLS and HTTP/2.
//!
//! Product code dials and listens through [`Fabric`] only, so that simulation can put a network of its
//! own under real tonic. [`Tcp`] is the real one. [`channel`] makes a lazy gRPC channel over a fabric,
//! [`accept`] turns a listener into connections with a proven caller, and [`server`] a server builder
//! with the same bounds. TLS is not known here: it comes in as a closure from `identity`'s callers.

mod conn;
mod tcp;

pub use conn::Conn;
pub use tcp::{Tcp, TcpConfig};

use futures::{FutureExt, StreamExt, TryFutureExt, stream};
use hyper_util::rt::TokioIo;
use std::{future::Future, io, pin::Pin, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::{
    body::Body,
    transport::{Channel, Endpoint, Server},
};
use tower::{ServiceExt as _, util::BoxCloneSyncService};

/// A future in a box.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A stream in a box.
pub type BoxStream<'a, T> = Pin<Box<dyn futures::Stream<Item = T> + Send + 'a>>;

/// Connections that a listener hands over, one by one.
pub type Incoming<Io> = BoxStream<'static, io::Result<Io>>;

/// Byte streams by address. The real one is TCP, simulation has its own.
pub trait Fabric: Clone + Send + Sync + 'static {
    /// One connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Connects to `addr`, a `host:port`. Bounded in time by the implementation.
    ///
    /// # Errors
    /// Whatever keeps the connection from being made.
    fn dial(&self, addr: String) -> BoxFuture<'static, io::Result<Self::Io>>;

    /// Listens on `addr`. Dropping the stream stops listening.
    ///
    /// # Errors
    /// When the address cannot be listened on. An error inside the stream concerns one connection;
    /// the stream goes on.
    fn listen(&self, addr: String) -> BoxFuture<'static, io::Result<Incoming<Self::Io>>>;
}

/// Bounds of gRPC connections, for both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireConfig {
    /// Longest dial with TLS handshake, in ms.
    pub connect_timeout_ms: u64,
    /// Time without a frame after which an HTTP/2 ping is sent, in ms.
    pub keepalive_every_ms: u64,
    /// Time without an answer to it after which the connection is dropped, in ms.
    pub keepalive_timeout_ms: u64,
    /// Longest call of any kind, in ms; `None` for connections that carry sessions, watches or logs,
    /// whose calls bring their own deadlines.
    pub call_timeout_ms: Option<u64>,
    /// Calls at a time on one connection (server side).
    pub streams_max: u32,
    /// Bytes in flight per stream.
    pub stream_window_bytes: u32,
    /// Bytes in flight per connection.
    pub connection_window_bytes: u32,
    /// Bytes of all headers of a message: errors travel in them.
    pub headers_bytes_max: u32,
}

impl Default for WireConfig {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 2_000,
            keepalive_every_ms: 2_000,
            keepalive_timeout_ms: 2_000,
            call_timeout_ms: None,
            streams_max: 256,
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 4 << 20,
            headers_bytes_max: 64 << 10,
        }
    }
}

/// A gRPC channel to `addr` that connects when first used and again whenever it has to.
///
/// `wrap` gets each dialled connection and makes of it what is spoken over, usually a TLS stream; see
/// [`plain`] for none. Its time counts into `connect_timeout_ms`.
///
/// # Errors
/// When `addr` is not a `host:port`.
pub fn channel<F, W, T>(
    fabric: &F,
    addr: &str,
    wrap: W,
    config: WireConfig,
) -> Result<Channel, AddressError>
where
    F: Fabric,
    W: Fn(F::Io) -> BoxFuture<'static, io::Result<T>> + Clone + Send + Sync + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let fabric = fabric.clone();
    let address = addr.to_owned();
    let limit = Duration::from_millis(config.connect_timeout_ms);
    let connect = move |_uri: http::Uri| {
        let dial = fabric.dial(address.clone());
        let wrap = wrap.clone();
        tokio::time::timeout(limit, dial.and_then(wrap)).map(|done| match done {
            Ok(connected) => connected.map(TokioIo::new),
            Err(_elapsed) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        })
    };
    Ok(endpoint(addr, config)?.connect_with_connector_lazy(tower::service_fn(connect)))
}

/// Why a call did not get an answer at all.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CallError(Box<dyn std::error::Error + Send + Sync>);

impl CallError {
    /// For this reason.
    pub fn new(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(why.into())
    }
}

/// Calls to one server, whatever carries them: a gRPC channel, or the server itself when both ends are
/// in one process. Generated clients take it as they take a channel.
pub type Calls = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, CallError>;

/// Calls by a channel.
pub fn calls(channel: Channel) -> Calls {
    Calls::new(channel.map_err(CallError::new))
}

/// A text that is not a `host:port`.
#[derive(Debug, thiserror::Error)]
#[error("an address is host:port")]
pub struct AddressError(#[source] tonic::transport::Error);

fn endpoint(addr: &str, config: WireConfig) -> Result<Endpoint, AddressError> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))
        .map_err(AddressError)?
        .http2_keep_alive_interval(Duration::from_millis(config.keepalive_every_ms))
        .keep_alive_timeout(Duration::from_millis(config.keepalive_timeout_ms))
        .keep_alive_while_idle(true)
        .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
        .http2_max_header_list_size(config.headers_bytes_max)
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes);
    Ok(match config.call_timeout_ms {
        Some(timeout_ms) => endpoint.timeout(Duration::from_millis(timeout_ms)),
        None => endpoint,
    })
}

/// The `wrap` of [`channel`] that adds nothing: tests only speak in the clear.
pub fn plain<Io: Send + 'static>(io: Io) -> BoxFuture<'static, io::Result<Io>> {
    Box::pin(std::future::ready(Ok(io)))
}

/// A gRPC server builder with the same bounds.
pub fn server(config: WireConfig) -> Server {
    let server = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_millis(config.keepalive_every_ms)))
        .http2_keepalive_timeout(Some(Duration::from_millis(config.keepalive_timeout_ms)))
        .max_concurrent_streams(config.streams_max)
        .http2_max_header_list_size(config.headers_bytes_max)
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes);
    match config.call_timeout_ms {
        Some(timeout_ms) => server.timeout(Duration::from_millis(timeout_ms)),
        None => server,
    }
}

/// Bounds of [`accept`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptConfig {
    /// Handshakes at a time; further callers wait in the kernel's queue.
    pub handshakes_max: usize,
    /// Longest handshake, in ms: a caller that says nothing holds a slot no longer.
    pub handshake_timeout_ms: u64,
}

impl Default for AcceptConfig {
    fn default() -> Self {
        Self { handshakes_max: 64, handshake_timeout_ms: 5_000 }
    }
}

/// Connections for tonic's `serve_with_incoming`: each goes through `handshake`, which says who the
/// caller is; handshakes run side by side. One that fails or takes too long ends that connection and
/// nothing else, so the stream yields no errors; `handshake` logs what is worth it.
pub fn accept<Io, H, T, P>(
    incoming: Incoming<Io>,
    handshake: H,
    config: AcceptConfig,
) -> impl futures::Stream<Item = io::Result<Conn<T, P>>> + Send
where
    Io: Send + 'static,
    H: Fn(Io) -> BoxFuture<'static, io::Result<(T, P)>> + Clone + Send + Sync + 'static,
    T: Send + 'static,
    P: Send + 'static,
{
    let limit = Duration::from_millis(config.handshake_timeout_ms);
    incoming
        .map(move |io| {
            let handshake = handshake.clone();
            async move {
                let (io, caller) =
                    tokio::time::timeout(limit, handshake(io.ok()?)).await.ok()?.ok()?;
                Some(Ok(Conn::new(io, caller)))
            }
        })
        .buffer_unordered(config.handshakes_max.max(1))
        .flat_map(stream::iter)
}

#[cfg(test)]
#[path = "fabric/tests.rs"]
mod tests;
