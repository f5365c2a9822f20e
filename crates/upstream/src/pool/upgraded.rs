//! A connection, or a stream of one, that has become a tunnel.
//!
//! A response to an upgrade or CONNECT carries its tunnel; [`upgraded`] takes it out. The tunnel holds the call's place
//! in the breaker's counts until it is dropped.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use attache_http::{Abort, Body};
use attache_http2::Reader;
use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::Response;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::h2::Lease;
use crate::{
    Error,
    attempt::Attempt,
    connect::Connection,
    limit::{Charge, ConnectionPermit},
};

thread_local! {
    /// Tunnels whose response is on its way to whoever takes them, by number.
    static WAITING: RefCell<(u64, HashMap<u64, Waiting>)> = RefCell::default();
}

/// What stands in a response's extensions. They want `Clone + Send + Sync`, which a tunnel is not: so it waits beside, and is
/// dropped with its response.
#[derive(Clone)]
struct Offer(Arc<Ticket>);

struct Ticket(u64);

impl Drop for Ticket {
    fn drop(&mut self) {
        // At the worker's end the list may be gone before the response.
        let _ = WAITING.try_with(|waiting| waiting.borrow_mut().1.remove(&self.0));
    }
}

fn offer(response: &mut Response<Body>, tunnel: Waiting) {
    let number = WAITING.with_borrow_mut(|(next, waiting)| {
        *next += 1;
        waiting.insert(*next, tunnel);
        *next
    });
    response.extensions_mut().insert(Offer(Arc::new(Ticket(number))));
}

enum Waiting {
    H1(H1Tunnel, Option<Charge>),
    H2(H2Tunnel, Option<Charge>),
}

pub(super) fn offer_h1(response: &mut Response<Body>, tunnel: H1Tunnel, in_flight: Option<Attempt>) {
    offer(response, Waiting::H1(tunnel, in_flight.and_then(Attempt::opened)));
}

pub(super) fn offer_h2(response: &mut Response<Body>, tunnel: H2Tunnel, in_flight: Option<Attempt>) {
    offer(response, Waiting::H2(tunnel, in_flight.and_then(Attempt::opened)));
}

/// The tunnel that a response (101, or 2xx to CONNECT) opened; `None` where it opened none.
pub async fn upgraded(response: &mut Response<Body>) -> Option<Result<Upgraded, Error>> {
    let offer = response.extensions_mut().remove::<Offer>()?;
    let waiting = WAITING.with_borrow_mut(|(_, waiting)| waiting.remove(&offer.0.0))?;
    let (io, charge) = match waiting {
        Waiting::H1(tunnel, charge) => (Io::H1(tunnel), charge),
        Waiting::H2(tunnel, charge) => (Io::H2(tunnel), charge),
    };
    Some(Ok(Upgraded { io, _charge: charge }))
}

/// The upstream's side of a tunnel.
#[derive(Debug)]
pub struct Upgraded {
    io: Io,
    _charge: Option<Charge>,
}

#[derive(Debug)]
enum Io {
    H1(H1Tunnel),
    H2(H2Tunnel),
}

impl Abort for Upgraded {
    fn abort(&mut self) {
        match &mut self.io {
            Io::H1(tunnel) => tunnel.io.abort(),
            Io::H2(tunnel) => tunnel.abort(),
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
            Io::H2(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::H1(io) => Pin::new(io).poll_write(cx, buf),
            Io::H2(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::H1(io) => Pin::new(io).poll_flush(cx),
            Io::H2(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::H1(io) => Pin::new(io).poll_shutdown(cx),
            Io::H2(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// An HTTP/1 connection as a tunnel. It is charged until it is dropped.
#[derive(Debug)]
pub(super) struct H1Tunnel {
    io: Connection,
    /// What came right behind the answer.
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

/// A stream of an HTTP/2 connection as a tunnel (RFC 9113 section 8.5, RFC 8441): bytes are DATA, the end is END_STREAM.
#[derive(Debug)]
pub(super) struct H2Tunnel {
    out: SendStream<Bytes>,
    received: RecvStream,
    reader: Reader,
    rest: Bytes,
    /// It is dropped as a reset.
    aborted: bool,
    _lease: Lease,
}

impl H2Tunnel {
    pub(super) const fn new(
        out: SendStream<Bytes>,
        received: RecvStream,
        reader: Reader,
        lease: Lease,
    ) -> Self {
        Self { out, received, reader, rest: Bytes::new(), aborted: false, _lease: lease }
    }
}

impl Abort for H2Tunnel {
    fn abort(&mut self) {
        self.aborted = true;
    }
}

impl Drop for H2Tunnel {
    fn drop(&mut self) {
        if self.aborted {
            self.out.send_reset(h2::Reason::CONNECT_ERROR);
        }
    }
}

fn broken(error: h2::Error) -> io::Error {
    if error.is_io() {
        error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
    } else {
        io::Error::new(io::ErrorKind::ConnectionReset, error)
    }
}

impl AsyncRead for H2Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.received.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => {
                    self.reader.took(data.len());
                    self.rest = data;
                }
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let n = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest.split_to(n));
        let _ = self.received.flow_control().release_capacity(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for H2Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        // A reset is to be seen also by a side that only writes.
        if let Poll::Ready(code) = self.out.poll_reset(cx).map_err(broken)? {
            return Poll::Ready(Err(broken(code.into())));
        }
        if self.out.capacity() == 0 {
            self.out.reserve_capacity(buf.len());
            while self.out.capacity() == 0 {
                match ready!(self.out.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                }
            }
        }
        let n = self.out.capacity().min(buf.len());
        let part = buf.get(..n).unwrap_or_default();
        self.out.send_data(Bytes::copy_from_slice(part), false).map_err(broken)?;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // the connection's task flushes
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.out.send_data(Bytes::new(), true).map_err(broken))
    }
}
