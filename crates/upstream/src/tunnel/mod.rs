//! Opaque bytes in both directions, until both sides have ended.
//!
//! Rules:
//! - If a tunnel ends in any other way than by the end of both sides, both are reset: a transfer that was cut must never look whole.
//! - The end of one side is passed on as an end of writing (half-close); the other direction continues until it ends itself.
//! - [`direction`] says how much one direction buffers, and how it moves bytes.
//! - If an upstream's connection ends before the first byte of either side was moved, attache connects to another
//!   endpoint, if there is one: no server has received a byte of the client. So idle clients don't notice that a server
//!   has ended. Each endpoint is tried once.
//! - If the upstream ends an opaque connection first, soon after its begin ([`AT_ONCE`]) and without a byte, the end is
//!   passed on, and reported as `upstream-reset`: the client got no answer. If the client ended first, nothing is
//!   reported: probes and one-way protocols do this.
//! - A side may not be read at the moment, because it has ended or the other side accepts no data. Then attache checks
//!   four times a second whether that side was reset. If the upstream's end was passed on before, the client has all
//!   bytes and is closed cleanly.
//! - The clock is read eight times per idle timeout, not per message.

mod bell;
mod direction;
mod splice;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use attache_http::{
    Abort,
    time::{sleep, sleep_until},
};
use attache_telemetry::Reason;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::unconstrained,
    time::Instant,
};

pub use self::{bell::PollOnWake, splice::PlainSocket};
use self::{
    bell::WakeFlag,
    direction::{Direction, DirectionError, with_scratch},
};
use crate::{
    connect::EndpointConnection, error::reason_or, limit::UnhealthyNotice, service::BareConnectionCharge,
};

/// A tunnel that did not end by a clean end of both sides, or whose upstream ended before its first byte.
#[derive(Debug)]
pub struct TunnelError {
    /// Why: `idle-timeout`, `endpoint-unhealthy`, `client-closed` or `upstream-reset`.
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
/// to the upstream, and back. Without a byte in either direction for `idle`, or up to an eighth more, it ends with
/// `idle-timeout`; zero means no limit. `closer` ends it with `endpoint-unhealthy`. If it ends in any other way than by
/// the end of both sides, or is dropped, both sides are reset.
pub async fn copy_both(
    client: impl AsyncRead + AsyncWrite + Abort + Unpin,
    upstream: impl AsyncRead + AsyncWrite + Abort + Unpin,
    idle: Duration,
    closer: UnhealthyNotice,
) -> Result<(u64, u64), TunnelError> {
    relay(client, |_| None, upstream, |_| None, TunnelRules { idle, answers: false }, closer, async || None)
        .await
}

/// The same for a bare connection, which may be replaced as long as it is unused. The client's bytes may be moved
/// directly from a socket: `socket` returns that socket, or `None` as long as bytes are buffered outside of it.
/// `answers`: the upstream has sent nothing yet, so its end without a byte is `upstream-reset`, with both sides ended
/// cleanly.
pub async fn copy_both_sockets<C: AsyncRead + AsyncWrite + Abort + Unpin>(
    client: C,
    socket: impl Fn(&C) -> Option<PlainSocket<'_>>,
    upstream: EndpointConnection,
    guard: &mut BareConnectionCharge,
    rules: TunnelRules,
) -> Result<(u64, u64), TunnelError> {
    let closer = guard.closer();
    let elsewhere = async || {
        let io = guard.elsewhere().await?;
        Some((io, guard.closer()))
    };
    relay(client, socket, upstream, EndpointConnection::socket, rules, closer, elsewhere).await
}

/// What ends a tunnel, and how its end is reported.
#[derive(Clone, Copy, Debug)]
pub struct TunnelRules {
    /// The longest time without a byte in either direction; zero means no limit.
    pub idle: Duration,
    /// The upstream has sent nothing yet.
    pub answers: bool,
}

/// An upstream that ends without a byte within this time after the tunnel's begin has not answered. One that ends later
/// may have closed an idle connection.
const AT_ONCE: Duration = Duration::from_secs(10);
/// The same if the client has not sent a byte either.
const AT_ONCE_UNASKED: Duration = Duration::from_secs(1);

/// How many times in an idle timeout attache checks whether a byte has come.
const LOOKS: u32 = 8;

/// How often attache checks whether a side that is not read was reset.
const ASK: Duration = Duration::from_millis(250);

/// Resets a side unless both have ended.
struct ResetOnDrop<T: Abort>(T, bool);

impl<T: Abort> Drop for ResetOnDrop<T> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.abort();
        }
    }
}

/// How a turn of a tunnel ended.
enum TunnelEnd {
    Over(Result<(), (Reason, Option<io::Error>)>),
    /// The upstream was reset after its end, which was passed on to the client.
    Left(io::Error),
    /// The upstream's side ended before either side's first byte. With the error, if it was not a clean end.
    Unused(Option<(Reason, Option<io::Error>)>),
}

impl TunnelEnd {
    fn failed(error: (Reason, Option<io::Error>), unused: bool) -> Self {
        if unused { Self::Unused(Some(error)) } else { Self::Over(Err(error)) }
    }
}

async fn relay<C: AsyncRead + AsyncWrite + Abort + Unpin, U: AsyncRead + AsyncWrite + Abort + Unpin>(
    client: C,
    client_socket: impl Fn(&C) -> Option<PlainSocket<'_>>,
    upstream: U,
    upstream_socket: impl Fn(&U) -> Option<PlainSocket<'_>>,
    TunnelRules { idle, answers }: TunnelRules,
    mut closer: UnhealthyNotice,
    mut elsewhere: impl AsyncFnMut() -> Option<(U, UnhealthyNotice)>,
) -> Result<(u64, u64), TunnelError> {
    let (mut client, mut upstream) = (ResetOnDrop(client, false), ResetOnDrop(upstream, false));
    let (mut out, mut back) = (Direction::default(), Direction::keeping_its_end());
    let look = idle / LOOKS;
    let mut begun = Instant::now();
    let mut timer = pin!(sleep_until(begun + look));
    let mut unanswered = None;
    let (mut seen, mut quiet) = (0, 0);
    // Made only for a tunnel that needs it; most don't.
    let mut ask = None;
    let mut was_deaf = false;
    let mut whole = false;
    let mut bell = WakeFlag::new();
    let result = loop {
        let turn = {
            let mut cut = pin!(unconstrained(closer.closed()));
            let mut begins = true;
            let mut poll = |cx: &mut Context<'_>, scratch: &mut [u8]| {
                let (client, upstream) = (&mut client.0, &mut upstream.0);
                let rings = bell.has_rung(cx) | std::mem::take(&mut begins);
                let sent = out.poll(
                    cx,
                    (Pin::new(&mut *client), &client_socket),
                    (Pin::new(&mut *upstream), &upstream_socket),
                    scratch,
                    !rings,
                );
                if let Poll::Ready(Err(side)) = sent {
                    return Poll::Ready(sending_failed(side, &out, &back));
                }
                let received = back.poll(
                    cx,
                    (Pin::new(&mut *upstream), &upstream_socket),
                    (Pin::new(&mut *client), &client_socket),
                    scratch,
                    !rings,
                );
                if let Poll::Ready(Err(side)) = received {
                    return Poll::Ready(receiving_failed(side, &out, &back));
                }
                if back.keeps_an_end() {
                    if out.is_unused() {
                        return Poll::Ready(TunnelEnd::Unused(None));
                    }
                    let lasted = begun.elapsed();
                    unanswered = (!out.is_done() && lasted < AT_ONCE).then_some(lasted);
                    back.tell_its_end();
                    cx.waker().wake_by_ref();
                }
                if sent.is_ready() && received.is_ready() {
                    return Poll::Ready(TunnelEnd::Over(Ok(())));
                }
                let is_deaf = out.is_deaf() || back.is_deaf();
                if !rings && (was_deaf || !is_deaf) {
                    was_deaf = is_deaf;
                    return Poll::Pending;
                }
                was_deaf = is_deaf;
                let cx = &mut bell.context();
                if cut.as_mut().poll(cx).is_ready() {
                    let cause = io::Error::other("the upstream says `on_unhealthy: close`");
                    return Poll::Ready(TunnelEnd::Over(Err((Reason::EndpointUnhealthy, Some(cause)))));
                }
                if is_deaf {
                    let ask = ask.get_or_insert_with(|| Box::pin(sleep(ASK)));
                    while ask.as_mut().poll(cx).is_ready() {
                        if let Some(end) = broken_side(&*client, &*upstream, &out, &back) {
                            return Poll::Ready(end);
                        }
                        ask.as_mut().reset(Instant::now() + ASK);
                    }
                }
                if !idle.is_zero() {
                    while timer.as_mut().poll(cx).is_ready() {
                        let copied = out.copied + back.copied;
                        // A byte may have come at any time since the last check.
                        quiet = if copied == seen { quiet + 1 } else { 0 };
                        if quiet >= LOOKS {
                            let cause = io::Error::other(format!(
                                "no byte either way for the idle timeout ({idle:?})"
                            ));
                            return Poll::Ready(TunnelEnd::Over(Err((Reason::IdleTimeout, Some(cause)))));
                        }
                        seen = copied;
                        timer.as_mut().reset(Instant::now() + look);
                    }
                }
                Poll::Pending
            };
            std::future::poll_fn(|cx| with_scratch(|scratch| poll(cx, scratch))).await
        };
        match turn {
            TunnelEnd::Over(result) => break result,
            TunnelEnd::Left(error) => {
                whole = true;
                break Err((reason_or(&error, Reason::UpstreamReset), Some(error)));
            }
            TunnelEnd::Unused(error) => match (elsewhere().await, error) {
                (Some(other), _) => {
                    (upstream.0, closer) = other;
                    back = Direction::keeping_its_end();
                    begun = Instant::now();
                }
                (None, Some(error)) => break Err(error),
                (None, None) => {
                    let lasted = begun.elapsed();
                    unanswered = (lasted < AT_ONCE_UNASKED).then_some(lasted);
                    back.tell_its_end();
                }
            },
        }
    };
    (client.1, upstream.1) = (result.is_ok() || whole, result.is_ok());
    let copied = (out.copied, back.copied);
    let result = match unanswered.filter(|_| answers && result.is_ok()) {
        Some(lasted) => Err((Reason::UpstreamReset, Some(closed_at_once(lasted)))),
        None => result,
    };
    result.map(|()| copied).map_err(|(reason, source)| TunnelError { reason, copied, source })
}

/// The client could not be read, or the upstream not be written to.
fn sending_failed(side: DirectionError, out: &Direction, back: &Direction) -> TunnelEnd {
    let side = match side {
        DirectionError::Writer(error) if back.is_done() => return TunnelEnd::Left(error),
        side => side,
    };
    let unused = matches!(side, DirectionError::Writer(_)) && out.is_unused() && back.is_unused();
    TunnelEnd::failed(side.map(Reason::ClientClosed, Reason::UpstreamReset), unused)
}

/// The upstream could not be read, or the client not be written to.
fn receiving_failed(side: DirectionError, out: &Direction, back: &Direction) -> TunnelEnd {
    let unused = matches!(side, DirectionError::Reader(_)) && out.is_unused() && back.is_unused();
    let upstream = match &side {
        DirectionError::Reader(error) => reason_or(error, Reason::UpstreamReset),
        DirectionError::Writer(_) => Reason::UpstreamReset,
    };
    TunnelEnd::failed(side.map(upstream, Reason::ClientClosed), unused)
}

/// A side that is not read has reset its connection.
fn broken_side(
    client: &impl Abort,
    upstream: &impl Abort,
    out: &Direction,
    back: &Direction,
) -> Option<TunnelEnd> {
    if out.is_deaf()
        && let Some(error) = client.broken()
    {
        return Some(TunnelEnd::Over(Err((Reason::ClientClosed, Some(error)))));
    }
    let error = if back.is_deaf() { upstream.broken()? } else { return None };
    Some(if back.is_done() {
        TunnelEnd::Left(error)
    } else {
        TunnelEnd::Over(Err((reason_or(&error, Reason::UpstreamReset), Some(error))))
    })
}

fn closed_at_once(lasted: Duration) -> io::Error {
    let lasted = Duration::from_millis(lasted.as_millis() as u64);
    io::Error::other(format!(
        "the upstream took the connection and closed it after {lasted:?}, without a byte"
    ))
}
