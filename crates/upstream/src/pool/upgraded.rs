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
use attache_http2::Tunnel;
use attache_wire::Response;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::h2::Lease;
use crate::{
    Error,
    attempt::Attempt,
    connect::Connection,
    limit::{Charge, Closer, ConnectionPermit},
};

fn offer(response: &mut Response<Body>, tunnel: Waiting) {
    response.head_mut().carried = Some(Box::new(tunnel));
}

/// What a response carries.
enum Waiting {
    H1(H1Tunnel, Option<Charge>),
    H2(Tunnel, Lease, Option<Charge>),
}

pub(super) fn offer_h1(response: &mut Response<Body>, tunnel: H1Tunnel, in_flight: Option<Attempt>) {
    offer(response, Waiting::H1(tunnel, in_flight.and_then(Attempt::opened)));
}

pub(super) fn offer_h2(
    response: &mut Response<Body>,
    tunnel: Tunnel,
    lease: Lease,
    in_flight: Option<Attempt>,
) {
    offer(response, Waiting::H2(tunnel, lease, in_flight.and_then(Attempt::opened)));
}

/// The tunnel that a response (101, or 2xx to CONNECT) opened; `None` where it opened none.
pub async fn upgraded(response: &mut Response<Body>) -> Option<Result<Upgraded, Error>> {
    let waiting = response.head_mut().carried.take()?.downcast::<Waiting>().ok()?;
    let (io, charge) = match *waiting {
        Waiting::H1(tunnel, charge) => (Io::H1(tunnel), charge),
        Waiting::H2(tunnel, lease, charge) => (Io::H2(tunnel, lease), charge),
    };
    Some(Ok(Upgraded { io, charge }))
}

/// The upstream's side of a tunnel.
#[derive(Debug)]
pub struct Upgraded {
    io: Io,
    charge: Option<Charge>,
}

impl Upgraded {
    /// Learns when this tunnel is to be closed.
    pub fn closer(&self) -> Closer {
        self.charge.as_ref().map_or_else(Closer::default, Charge::closer)
    }
}

#[derive(Debug)]
enum Io {
    H1(H1Tunnel),
    /// A stream, and its permit on the connection.
    H2(Tunnel, #[expect(dead_code, reason = "held")] Lease),
}

impl Abort for Upgraded {
    fn abort(&mut self) {
        match &mut self.io {
            Io::H1(tunnel) => tunnel.io.abort(),
            Io::H2(tunnel, _) => tunnel.abort(),
        }
    }

    fn broken(&self) -> Option<io::Error> {
        match &self.io {
            Io::H1(tunnel) => tunnel.io.broken(),
            Io::H2(tunnel, _) => tunnel.broken(),
        }
    }

    fn is_quiet(&self) -> bool {
        match &self.io {
            Io::H1(tunnel) => tunnel.rest.is_empty() && tunnel.io.is_quiet(),
            Io::H2(..) => false,
        }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::H1(io) => Pin::new(io).poll_read(cx, buf),
            Io::H2(io, _) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::H1(io) => Pin::new(io).poll_write(cx, buf),
            Io::H2(io, _) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::H1(io) => Pin::new(io).poll_flush(cx),
            Io::H2(io, _) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::H1(io) => Pin::new(io).poll_shutdown(cx),
            Io::H2(io, _) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// An HTTP/1 connection as a tunnel. It counts as an open connection until it is dropped.
#[derive(Debug)]
pub(super) struct H1Tunnel {
    io: Connection,
    /// The bytes that came directly after the answer.
    rest: Bytes,
    _permit: ConnectionPermit,
}

impl H1Tunnel {
    pub(super) const fn new(io: Connection, rest: Bytes, permit: ConnectionPermit) -> Self {
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
