//! Serves one HTTP/1 connection: it reads, calls and answers one request after the other.
//!
//! It is a hand-written future. It makes progress when the socket, the service or a response's body is ready. While it waits for a request,
//! it holds the socket and the connection's state, and no buffer.
//!
//! - A refused head is answered in order, after the requests before it. Bytes after it are only read and dropped, for a moment at the end:
//!   closing a socket with unread bytes resets it, and the reset can destroy the answer on its way.
//! - A client that closes its side after its request still gets its answer (RFC 9112 section 9.6), unless `http.half_close` says otherwise.
//! - A body that breaks off never ends cleanly: attache writes what it has received, and then cuts the connection. With HTTP/1.0, only the
//!   end of the connection may show that a body is complete; if such a body is incomplete, attache resets the connection.

mod answering;
mod reading;

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use attache_config::model::HalfClose;
use attache_http::{
    Body, target_rule,
    time::{Sleep, sleep},
};
use attache_telemetry::metrics;
use attache_wire::{Fields, Response, outbox::BodyEncoder, server::RequestReader as Requests};
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    sync::oneshot,
};

use super::{
    client::Http1Io,
    context::ConnectionContext,
    encode::RequestTraits,
    tunnel::{Http1Tunnel, TunnelSignals},
};
use crate::{
    Protocol,
    exchange::{CountedBody, ExchangeReporter},
    reader::ServingContext,
    registry::{ConnectionOrder, OpenConnection},
    request::{EarlyRefusal, ListenerPermit},
    respond::{HttpService, RespondContext, panicked},
    stream::ClientStream,
};

/// For how long, and how many bytes, attache reads and drops after the last answer while the client still sends.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;
/// How many bytes of an unread body are read so that the connection can be used again.
const DRAIN_BYTES: usize = 64 << 10;

/// Serves the connection to its end, including the tunnel that it may become. With `deny`, the first request is refused.
pub(crate) fn serve<H: HttpService>(
    mut stream: ClientStream,
    reader: ServingContext,
    http: H,
    deny: Option<EarlyRefusal>,
    place: ListenerPermit,
) -> Http1Serving<H> {
    let http_options = &reader.settings.listener.http;
    stream.limit_writes(http_options.write_timeout);
    reader.live.sweepable.set(true);
    let client = Http1Io::new(stream, Requests::new(target_rule(http_options.target)));
    Http1Serving::Requests(Http1Connection {
        shared: ConnectionContext::new(RespondContext::new(reader, Protocol::Http1, None), client),
        http,
        state: Http1State::Between,
        timer: None,
        deny: deny.map(Box::new),
        looked: 0,
        closing: false,
        lingering: false,
        end_completes_body: false,
        place: Some(place),
    })
}

/// A connection that is served.
///
/// This is not an `async` block: such a block would hold its arguments twice, and memory per idle connection counts.
pub(crate) enum Http1Serving<H: HttpService> {
    /// The connection serves requests.
    Requests(Http1Connection<H>),
    /// The stream belongs to a tunnel. The receiver of the upgrade drives it, and the exchange lasts as long as the tunnel.
    Tunnel(Pin<Box<dyn Future<Output = ()>>>),
}

// Nothing needs to stay in place: the service's future is `Unpin`, and the tunnel's future is boxed.
impl<H: HttpService> Unpin for Http1Serving<H> {}

impl<H: HttpService> Future for Http1Serving<H> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        loop {
            match &mut *self {
                Self::Requests(connection) => {
                    connection.live().register(cx);
                    let Some((signals, finish)) = ready!(connection.poll(cx)) else { return Poll::Ready(()) };
                    let live = connection.live().clone();
                    *self = Self::Tunnel(Box::pin(until_tunnel_ends(live, signals, finish)));
                }
                Self::Tunnel(tunnel) => return tunnel.as_mut().poll(cx),
            }
        }
    }
}

/// Waits until a tunnel ends, or ends it when the connection is cut.
async fn until_tunnel_ends(
    live: Rc<OpenConnection>,
    signals: Arc<TunnelSignals>,
    mut finish: ExchangeReporter,
) {
    let mut gone = pin!(signals.gone.notified());
    poll_fn(|cx| {
        live.register(cx);
        if live.order() == ConnectionOrder::Cut {
            signals.cut();
            return Poll::Ready(());
        }
        gone.as_mut().poll(cx)
    })
    .await;
    if live.order() != ConnectionOrder::Cut {
        finish.complete();
    }
}

/// One connection's requests.
pub(crate) struct Http1Connection<H: HttpService> {
    shared: Rc<ConnectionContext>,
    http: H,
    state: Http1State<H::Future>,
    /// It runs while a head is incomplete; a head that arrives in one read needs no clock.
    timer: Option<Pin<Box<Sleep>>>,
    /// Boxed, because it is rare.
    deny: Option<Box<EarlyRefusal>>,
    /// How many bytes of an incomplete head were parsed.
    looked: u32,
    /// No request follows.
    closing: bool,
    /// At the end, the client's further bytes are read and dropped.
    lingering: bool,
    /// Only the end of the connection will show that the last body is complete, and that end isn't written yet.
    end_completes_body: bool,
    place: Option<ListenerPermit>,
}

enum Http1State<F> {
    /// It waits for a request.
    Between,
    /// The service handles a request.
    Called(PendingRequest<F>),
    /// It writes a response's body.
    Answering(ResponseBodyWriter),
    /// It writes the response to an upgrade.
    Switching(Option<(oneshot::Sender<Http1Tunnel>, ExchangeReporter)>),
    /// Everything is written, including the end of the last response.
    Shutdown,
    /// The client's further bytes are read and dropped.
    Lingering(Pin<Box<Sleep>>, usize),
}

/// A request that runs.
struct PendingRequest<F> {
    /// `None` after it has panicked.
    future: Option<F>,
    /// A response that waits for its turn.
    answer: Option<Response<Body>>,
    finish: ExchangeReporter,
    asked: RequestTraits,
    tunnel: Option<oneshot::Sender<Http1Tunnel>>,
    refused: bool,
}

/// A response's body that is being written.
struct ResponseBodyWriter {
    body: CountedBody,
    encoder: BodyEncoder,
    /// The announced trailers, if the client accepts trailers.
    announced: Option<Box<Fields>>,
}

/// How the HTTP part of a connection ends: there is nothing more to do, or it becomes a tunnel.
type Http1End = Option<(Arc<TunnelSignals>, ExchangeReporter)>;

impl<H: HttpService> Drop for Http1Connection<H> {
    fn drop(&mut self) {
        // The running request is dropped first, because it may hold the client's body.
        self.state = Http1State::Between;
        let mut client = self.shared.client.borrow_mut();
        if self.end_completes_body {
            client.stream.reset();
        }
        client.close();
    }
}

impl<H: HttpService> Http1Connection<H> {
    fn live(&self) -> &Rc<OpenConnection> {
        self.shared.live()
    }

    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Http1End> {
        if self.live().order() == ConnectionOrder::Cut {
            return Poll::Ready(None);
        }
        loop {
            let next = match &mut self.state {
                Http1State::Between => ready!(self.poll_between(cx)),
                Http1State::Called(_) => ready!(self.poll_called(cx)),
                Http1State::Answering(_) => ready!(self.poll_answering(cx)),
                Http1State::Switching(_) => return self.poll_switching(cx),
                Http1State::Shutdown => ready!(self.poll_shutdown(cx)),
                Http1State::Lingering(timer, left) => {
                    ready!(poll_linger(&mut self.shared.client.borrow_mut().stream, timer, left, cx));
                    return Poll::Ready(None);
                }
            };
            match next {
                Some(state) => self.state = state,
                None => return Poll::Ready(None),
            }
        }
    }

    /// Waits for the service's response.
    fn poll_called(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<Http1State<H::Future>>> {
        let Http1State::Called(call) = &mut self.state else { return Poll::Ready(None) };
        if let Some(answer) = call.answer.take() {
            self.shared.close_hints();
            return Poll::Ready(self.answer(answer));
        }
        let polled = match &mut call.future {
            Some(future) => catch_unwind(AssertUnwindSafe(|| Pin::new(future).poll(cx))).ok(),
            None => None,
        };
        let answer = match polled {
            Some(Poll::Ready(Ok(answer))) => {
                // The future is no longer needed, and would keep the request's memory.
                call.future = None;
                // The response is written after the other requests that are ready: so the responses of one turn of the runtime are sent
                // together, and clients are woken less often. If nothing else is ready, that is at once.
                call.answer = Some(answer);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Poll::Pending) => {
                let polled = self.poll_meanwhile(cx);
                if self.shared.client.borrow().ended
                    && let Http1State::Called(call) = &self.state
                {
                    metrics().client_left(&call.finish.exchange);
                }
                return polled;
            }
            None => {
                call.future = None;
                call.refused = true;
                panicked(&call.finish.exchange, self.shared.context.reader())
            }
        };
        self.shared.close_hints();
        Poll::Ready(self.answer(answer))
    }

    /// While the service works, 1xx responses are written, and the client may leave.
    fn poll_meanwhile(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<Http1State<H::Future>>> {
        let mut client = self.shared.client.borrow_mut();
        let client = &mut *client;
        client.woken_by(cx);
        if client.wanted {
            client.wanted = false;
            client.head().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        loop {
            match client.poll_write(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.shared.live().note_stalled(&error);
                    return Poll::Ready(None);
                }
                Poll::Pending => break,
            }
            let Some(hints) = self.shared.take_hints() else { break };
            client.head().extend_from_slice(&hints);
        }
        let body_is_through = client.reader.at_start() || client.reader.is_switching();
        if body_is_through && client.poll_left(cx).is_ready() {
            return Poll::Ready(None);
        }
        let cut = self.shared.context.settings().listener.http.half_close == HalfClose::Cut;
        if cut && client.ended { Poll::Ready(None) } else { Poll::Pending }
    }

    fn poll_shutdown(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<Http1State<H::Future>>> {
        let mut client = self.shared.client.borrow_mut();
        let client = &mut *client;
        if ready!(client.poll_write(cx)).is_err() {
            return Poll::Ready(None);
        }
        self.end_completes_body = false;
        if ready!(Pin::new(&mut client.stream).poll_shutdown(cx)).is_err() {
            return Poll::Ready(None);
        }
        let unread = self.lingering || !client.reader.at_start() || !client.buf.is_empty();
        if !unread || client.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Http1State::Lingering(Box::pin(sleep(LINGER)), LINGER_BYTES)))
    }

    #[cold]
    fn note(&self, error: &std::io::Error) {
        self.live().note_stalled(error);
        let listener = &self.shared.context.settings().listener.name;
        tracing::debug!(%listener, %error, "an HTTP/1 connection ended");
    }
}

/// Reads and drops what a client still sends, so that the close doesn't reset the connection.
fn poll_linger(
    stream: &mut ClientStream,
    timer: &mut Pin<Box<Sleep>>,
    left: &mut usize,
    cx: &mut task::Context<'_>,
) -> Poll<()> {
    let mut space = [0; 4096];
    loop {
        let mut buf = ReadBuf::new(&mut space);
        match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) if !buf.filled().is_empty() && *left > buf.filled().len() => {
                *left -= buf.filled().len();
            }
            Poll::Ready(_) => return Poll::Ready(()),
            Poll::Pending => return timer.as_mut().poll(cx),
        }
    }
}
