//! A connection, or a stream of one, that has become a tunnel.
//!
//! A response to an upgrade or CONNECT carries its tunnel; [`upgraded`] takes it out. The tunnel counts as a running
//! call until it is dropped.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use attache_http::{Abort, Body};
use attache_http2::Http2Tunnel;
use attache_wire::Response;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::h2::StreamPermit;
use crate::{
    Error,
    attempt::Attempt,
    connect::EndpointConnection,
    limit::{Charge, ConnectionPermit, UnhealthyNotice},
};

fn offer(response: &mut Response<Body>, tunnel: PendingUpgrade) {
    response.head_mut().carried = Some(Box::new(tunnel));
}

/// What a response carries.
enum PendingUpgrade {
    H1(H1Tunnel, Option<Charge>),
    H2(Http2Tunnel, StreamPermit, Option<Charge>),
}

pub(super) fn offer_h1(response: &mut Response<Body>, tunnel: H1Tunnel, in_flight: Option<Attempt>) {
    offer(response, PendingUpgrade::H1(tunnel, in_flight.and_then(Attempt::opened)));
}

pub(super) fn offer_h2(
    response: &mut Response<Body>,
    tunnel: Http2Tunnel,
    lease: StreamPermit,
    in_flight: Option<Attempt>,
) {
    offer(response, PendingUpgrade::H2(tunnel, lease, in_flight.and_then(Attempt::opened)));
}

/// The tunnel that a response (101, or 2xx to CONNECT) opened; `None` where it opened none.
pub async fn upgraded(response: &mut Response<Body>) -> Option<Result<UpstreamTunnel, Error>> {
    let waiting = response.head_mut().carried.take()?.downcast::<PendingUpgrade>().ok()?;
    let (io, charge) = match *waiting {
        PendingUpgrade::H1(tunnel, charge) => (UpstreamTunnelIo::H1(tunnel), charge),
        PendingUpgrade::H2(tunnel, lease, charge) => (UpstreamTunnelIo::H2(tunnel, lease), charge),
    };
    Some(Ok(UpstreamTunnel { io, charge }))
}

/// The upstream's side of a tunnel.
#[derive(Debug)]
pub struct UpstreamTunnel {
    io: UpstreamTunnelIo,
    charge: Option<Charge>,
}

impl UpstreamTunnel {
    /// Learns when this tunnel is to be closed.
    pub fn closer(&self) -> UnhealthyNotice {
        self.charge.as_ref().map_or_else(UnhealthyNotice::default, Charge::closer)
    }
}

#[derive(Debug)]
enum UpstreamTunnelIo {
    H1(H1Tunnel),
    /// A stream, and its permit on the connection.
    H2(Http2Tunnel, #[expect(dead_code, reason = "held")] StreamPermit),
}

impl Abort for UpstreamTunnel {
    fn abort(&mut self) {
        match &mut self.io {
            UpstreamTunnelIo::H1(tunnel) => tunnel.io.abort(),
            UpstreamTunnelIo::H2(tunnel, _) => tunnel.abort(),
        }
    }

    fn broken(&self) -> Option<io::Error> {
        match &self.io {
            UpstreamTunnelIo::H1(tunnel) => tunnel.io.broken(),
            UpstreamTunnelIo::H2(tunnel, _) => tunnel.broken(),
        }
    }

    fn is_quiet(&self) -> bool {
        match &self.io {
            UpstreamTunnelIo::H1(tunnel) => tunnel.rest.is_empty() && tunnel.io.is_quiet(),
            UpstreamTunnelIo::H2(..) => false,
        }
    }
}

impl AsyncRead for UpstreamTunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.io {
            UpstreamTunnelIo::H1(io) => Pin::new(io).poll_read(cx, buf),
            UpstreamTunnelIo::H2(io, _) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for UpstreamTunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            UpstreamTunnelIo::H1(io) => Pin::new(io).poll_write(cx, buf),
            UpstreamTunnelIo::H2(io, _) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            UpstreamTunnelIo::H1(io) => Pin::new(io).poll_flush(cx),
            UpstreamTunnelIo::H2(io, _) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            UpstreamTunnelIo::H1(io) => Pin::new(io).poll_shutdown(cx),
            UpstreamTunnelIo::H2(io, _) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// An HTTP/1 connection as a tunnel. It counts as an open connection until it is dropped.
#[derive(Debug)]
pub(super) struct H1Tunnel {
    io: EndpointConnection,
    /// The bytes that came directly after the answer.
    rest: Bytes,
    _permit: ConnectionPermit,
}

impl H1Tunnel {
    pub(super) const fn new(io: EndpointConnection, rest: Bytes, permit: ConnectionPermit) -> Self {
        Self { io, rest, _permit: permit }
    }
}

impl AsyncRead for H1Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let n = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest.split_to(n));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for H1Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
