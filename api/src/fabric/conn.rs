//! A connection that remembers who is at its other end, for tonic to put into each request.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// A connection and its caller. A service finds the caller by `request.extensions().get::<P>()`.
#[derive(Debug)]
pub struct Conn<T, P> {
    io: T,
    caller: P,
}

impl<T, P> Conn<T, P> {
    /// Says that `caller` is at the other end of `io`.
    pub fn new(io: T, caller: P) -> Self {
        Self { io, caller }
    }
}

impl<T, P: Clone + Send + Sync + 'static> Connected for Conn<T, P> {
    type ConnectInfo = P;

    fn connect_info(&self) -> P {
        self.caller.clone()
    }
}

impl<T: AsyncRead + Unpin, P: Unpin> AsyncRead for Conn<T, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin, P: Unpin> AsyncWrite for Conn<T, P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
