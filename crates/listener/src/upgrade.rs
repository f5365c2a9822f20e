//! The client's side of an upgrade or CONNECT, after its request was answered.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use attache_http::Abort;
use attache_http2::Http2Tunnel;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

use crate::http1;

/// It becomes the client's side of the tunnel when the request is answered with a switch of protocols.
#[derive(Debug)]
pub struct OnUpgrade(PendingTunnel);

#[derive(Debug)]
enum PendingTunnel {
    Http1(oneshot::Receiver<http1::Http1Tunnel>),
    Http2(oneshot::Receiver<Http2Tunnel>),
}

impl OnUpgrade {
    pub(crate) const fn http1(pending: oneshot::Receiver<http1::Http1Tunnel>) -> Self {
        Self(PendingTunnel::Http1(pending))
    }

    pub(crate) const fn http2(pending: oneshot::Receiver<Http2Tunnel>) -> Self {
        Self(PendingTunnel::Http2(pending))
    }
}

/// The request was answered without a tunnel, or its client left before.
#[derive(Debug)]
pub struct NotUpgraded;

impl fmt::Display for NotUpgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client left before its tunnel was open")
    }
}

impl std::error::Error for NotUpgraded {}

impl Future for OnUpgrade {
    type Output = Result<ClientTunnel, NotUpgraded>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let io = match &mut self.0 {
            PendingTunnel::Http1(pending) => ready!(Pin::new(pending).poll(cx)).map(ClientTunnelIo::Http1),
            PendingTunnel::Http2(pending) => ready!(Pin::new(pending).poll(cx)).map(ClientTunnelIo::Http2),
        };
        Poll::Ready(io.map(ClientTunnel).map_err(|_| NotUpgraded))
    }
}

/// The client's side of a tunnel.
#[derive(Debug)]
pub struct ClientTunnel(ClientTunnelIo);

#[derive(Debug)]
enum ClientTunnelIo {
    Http1(http1::Http1Tunnel),
    Http2(Http2Tunnel),
}

macro_rules! each {
    ($self:expr, $io:ident => $body:expr) => {
        match &mut $self.0 {
            ClientTunnelIo::Http1($io) => $body,
            ClientTunnelIo::Http2($io) => $body,
        }
    };
}

impl Abort for ClientTunnel {
    fn abort(&mut self) {
        each!(self, io => io.abort());
    }

    fn broken(&self) -> Option<io::Error> {
        match &self.0 {
            ClientTunnelIo::Http1(tunnel) => tunnel.broken(),
            ClientTunnelIo::Http2(tunnel) => tunnel.broken(),
        }
    }

    fn is_quiet(&self) -> bool {
        match &self.0 {
            ClientTunnelIo::Http1(tunnel) => tunnel.is_quiet(),
            ClientTunnelIo::Http2(_) => false,
        }
    }
}

impl AsyncRead for ClientTunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for ClientTunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}
