//! Opaque bytes, both ways, until both sides have said their last.
//!
//! Rules:
//! - One side's end is passed on as an end of writing (half-close); the other direction goes on until its own end.
//! - What one direction holds, and how its bytes go, is in [`direction`].
//! - The clock is read once per idle interval, not per message.

mod direction;
mod splice;
#[cfg(test)]
mod tests;

use std::{fmt, io, pin::pin, task::Poll, time::Duration};

use attache_telemetry::Reason;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until},
};

use self::direction::{Direction, Side};
pub use self::splice::Socket;
use crate::{connect::Connection, error::reason_or};

/// A tunnel that ended otherwise than by both sides' ends.
#[derive(Debug)]
pub struct TunnelError {
    /// Why: `idle-timeout`, `client-closed` or `upstream-reset`.
    pub reason: Reason,
    /// Bytes that went from the client to the upstream, and back.
    pub copied: (u64, u64),
    source: Option<io::Error>,
}

impl fmt::Display for TunnelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the tunnel was cut: {}", self.reason)
    }
}

impl std::error::Error for TunnelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// Relays between a client and an upstream until both directions have ended; says how many bytes went from the client
/// to the upstream, and back. No byte either way for a whole interval of `idle`, so for between one and two times as long,
/// ends it with `idle-timeout`; zero waits for ever.
pub async fn copy_both(
    client: impl AsyncRead + AsyncWrite,
    upstream: impl AsyncRead + AsyncWrite,
    idle: Duration,
) -> Result<(u64, u64), TunnelError> {
    relay(client, |_| None, upstream, |_| None, idle).await
}

/// The same where the client's bytes may come from a socket as they are: `socket` says from which one, and `None` as long as
/// bytes are kept outside of it.
pub async fn copy_both_sockets<C: AsyncRead + AsyncWrite>(
    client: C,
    socket: impl Fn(&C) -> Option<Socket<'_>>,
    upstream: Connection,
    idle: Duration,
) -> Result<(u64, u64), TunnelError> {
    relay(client, socket, upstream, Connection::socket, idle).await
}

async fn relay<C: AsyncRead + AsyncWrite, U: AsyncRead + AsyncWrite>(
    client: C,
    client_socket: impl Fn(&C) -> Option<Socket<'_>>,
    upstream: U,
    upstream_socket: impl Fn(&U) -> Option<Socket<'_>>,
    idle: Duration,
) -> Result<(u64, u64), TunnelError> {
    let (mut client, mut upstream) = (pin!(client), pin!(upstream));
    let (mut out, mut back) = (Direction::default(), Direction::default());
    let mut timer = pin!(sleep_until(Instant::now() + idle));
    let mut seen = 0;
    let result = std::future::poll_fn(|cx| {
        let sent = out.poll(cx, (client.as_mut(), &client_socket), (upstream.as_mut(), &upstream_socket));
        if let Poll::Ready(Err(side)) = sent {
            return Poll::Ready(Err(side.map(Reason::ClientClosed, Reason::UpstreamReset)));
        }
        let received =
            back.poll(cx, (upstream.as_mut(), &upstream_socket), (client.as_mut(), &client_socket));
        if let Poll::Ready(Err(side)) = received {
            let upstream = match &side {
                Side::Reader(error) => reason_or(error, Reason::UpstreamReset),
                Side::Writer(_) => Reason::UpstreamReset,
            };
            return Poll::Ready(Err(side.map(upstream, Reason::ClientClosed)));
        }
        if sent.is_ready() && received.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if !idle.is_zero() {
            while timer.as_mut().poll(cx).is_ready() {
                let copied = out.copied + back.copied;
                if copied == seen {
                    return Poll::Ready(Err((Reason::IdleTimeout, None)));
                }
                seen = copied;
                timer.as_mut().reset(Instant::now() + idle);
            }
        }
        Poll::Pending
    })
    .await;
    let copied = (out.copied, back.copied);
    result.map(|()| copied).map_err(|(reason, source)| TunnelError { reason, copied, source })
}
