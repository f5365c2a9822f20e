//! One HTTP/1 connection: its requests one after the other, each read, called, and answered.
//!
//! It is a hand-written future, which makes progress when the socket, the service or an answer's body is ready. While it waits for a
//! request it holds the socket and the connection's state, and no buffer.
//!
//! - A refused head is answered in its order, after the requests before it. Bytes after it are only read and dropped for a moment at the
//!   end: closing a socket with unread bytes resets it, and can destroy the answer on its way.
//! - A client that closes its side after its request gets its answer (RFC 9112 section 9.6), unless `http.half_close` says otherwise.
//! - A body that breaks off never ends cleanly: attache writes what it has received, and then cuts the connection. If only the end of the
//!   connection says that a body is complete (HTTP/1.0), attache resets the connection in every other case.

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

use attache_config::model::{HalfClose, TargetPolicy};
use attache_http::{
    Body,
    time::{Sleep, sleep},
};
use attache_telemetry::metrics;
use attache_wire::{Fields, Response, outbox::Encoder, request::Target, server::Reader as Requests};
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    sync::oneshot,
};

use super::{
    client::Client,
    context::Shared,
    encode::RequestTraits,
    tunnel::{Signals, Tunnel},
};
use crate::{
    Protocol,
    exchange::{CountedBody, Finish},
    reader::Reader,
    registry::{OpenConnection, Order},
    request::{ListenerPermit, Refusal},
    respond::{Context, HttpService, panicked},
    stream::Stream,
};

/// How long, and how much, is read and thrown away after the last answer of a connection that still sends.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;
/// Bytes of an unread body that are read so that the connection can be used again.
const DRAIN_BYTES: usize = 64 << 10;

/// Serves the connection to its end, including the tunnel that it may become. With `deny`, the first request is refused.
pub(crate) fn serve<H: HttpService>(
    mut stream: Stream,
    reader: Reader,
    http: H,
    deny: Option<Refusal>,
    place: ListenerPermit,
) -> Serving<H> {
    let http_options = &reader.settings.listener.http;
    let target = match http_options.target {
        TargetPolicy::Strict => Target::Strict,
        TargetPolicy::Lenient => Target::Lenient,
    };
    stream.limit_writes(http_options.write_timeout);
    reader.live.sweepable.set(true);
    let client = Client::new(stream, Requests::new(target));
    Serving::Requests(Connection {
        shared: Shared::new(Context::new(reader, Protocol::Http1, None), client),
        http,
        state: State::Between,
        timer: None,
        deny: deny.map(Box::new),
        looked: 0,
        closing: false,
        lingering: false,
        owes_an_end: false,
        place: Some(place),
    })
}

/// A connection that is served.
///
/// Not an `async` block: that would hold what it begins with twice, and memory per idle connection counts.
pub(crate) enum Serving<H: HttpService> {
    /// Its requests.
    Requests(Connection<H>),
    /// Its stream belongs to a tunnel, which the receiver of the upgrade drives; the exchange lasts as long.
    Tunnel(Pin<Box<dyn Future<Output = ()>>>),
}

// Nothing is pinned in place: the service's future is `Unpin`, and the tunnel's has a box.
impl<H: HttpService> Unpin for Serving<H> {}

impl<H: HttpService> Future for Serving<H> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        loop {
            match &mut *self {
                Self::Requests(connection) => {
                    connection.live().register(cx);
                    let Some((signals, finish)) = ready!(connection.poll(cx)) else { return Poll::Ready(()) };
                    let live = connection.live().clone();
                    *self = Self::Tunnel(Box::pin(until_gone(live, signals, finish)));
                }
                Self::Tunnel(tunnel) => return tunnel.as_mut().poll(cx),
            }
        }
    }
}

/// Waits for a tunnel's end, or ends it when the connection is cut.
async fn until_gone(live: Rc<OpenConnection>, signals: Arc<Signals>, mut finish: Finish) {
    let mut gone = pin!(signals.gone.notified());
    poll_fn(|cx| {
        live.register(cx);
        if live.order() == Order::Cut {
            signals.cut();
            return Poll::Ready(());
        }
        gone.as_mut().poll(cx)
    })
    .await;
    if live.order() != Order::Cut {
        finish.complete();
    }
}

/// One connection's requests.
pub(crate) struct Connection<H: HttpService> {
    shared: Rc<Shared>,
    http: H,
    state: State<H::Future>,
    /// Runs while a head is gathered; a head that comes whole costs no clock.
    timer: Option<Pin<Box<Sleep>>>,
    /// Boxed, since it is seldom there.
    deny: Option<Box<Refusal>>,
    /// Bytes of a head that were parsed, and are no complete one.
    looked: u32,
    /// No request follows.
    closing: bool,
    /// What the client still sends is thrown away at the end.
    lingering: bool,
    /// The connection's end will say that the last answer is whole, and it isn't written yet.
    owes_an_end: bool,
    place: Option<ListenerPermit>,
}

enum State<F> {
    /// Before a request.
    Between,
    /// The service has a request.
    Called(Call<F>),
    /// An answer's body is written.
    Answering(Answer),
    /// The answer to an upgrade is written.
    Switching(Option<(oneshot::Sender<Tunnel>, Finish)>),
    /// Everything is written, including the end.
    Shutdown,
    /// What the client still sends is thrown away.
    Lingering(Pin<Box<Sleep>>, usize),
}

/// A request that runs.
struct Call<F> {
    /// `None` once it has panicked.
    future: Option<F>,
    /// An answer that waits for its turn.
    answer: Option<Response<Body>>,
    finish: Finish,
    asked: RequestTraits,
    tunnel: Option<oneshot::Sender<Tunnel>>,
    refused: bool,
}

/// An answer's body on its way.
struct Answer {
    body: CountedBody,
    encoder: Encoder,
    /// The trailers that were announced, where the client takes any.
    announced: Option<Box<Fields>>,
}

/// What ends a connection's own part: nothing more to do, or a tunnel.
type Ended = Option<(Arc<Signals>, Finish)>;

impl<H: HttpService> Drop for Connection<H> {
    fn drop(&mut self) {
        // What runs goes first, since it may hold the client's body.
        self.state = State::Between;
        let mut client = self.shared.client.borrow_mut();
        if self.owes_an_end {
            client.stream.reset();
        }
        client.close();
    }
}

impl<H: HttpService> Connection<H> {
    fn live(&self) -> &Rc<OpenConnection> {
        self.shared.live()
    }

    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Ended> {
        if self.live().order() == Order::Cut {
            return Poll::Ready(None);
        }
        loop {
            let next = match &mut self.state {
                State::Between => ready!(self.poll_between(cx)),
                State::Called(_) => ready!(self.poll_called(cx)),
                State::Answering(_) => ready!(self.poll_answering(cx)),
                State::Switching(_) => return self.poll_switching(cx),
                State::Shutdown => ready!(self.poll_shutdown(cx)),
                State::Lingering(timer, left) => {
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

    /// Waits for the service's answer.
    fn poll_called(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<State<H::Future>>> {
        let State::Called(call) = &mut self.state else { return Poll::Ready(None) };
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
                // What it was made of has no use any more, and keeps the request's memory.
                call.future = None;
                // Its turn comes after the requests that are there already: answers of one turn of the runtime go out together, and
                // clients are woken less often. Where nothing else is ready, that is now.
                call.answer = Some(answer);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Poll::Pending) => {
                let polled = self.poll_meanwhile(cx);
                if self.shared.client.borrow().ended
                    && let State::Called(call) = &self.state
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

    /// While the service works: 1xx answers go out, and the client may leave.
    fn poll_meanwhile(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<State<H::Future>>> {
        let mut client = self.shared.client.borrow_mut();
        let client = &mut *client;
        client.told_by(cx);
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

    fn poll_shutdown(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<State<H::Future>>> {
        let mut client = self.shared.client.borrow_mut();
        let client = &mut *client;
        if ready!(client.poll_write(cx)).is_err() {
            return Poll::Ready(None);
        }
        self.owes_an_end = false;
        if ready!(Pin::new(&mut client.stream).poll_shutdown(cx)).is_err() {
            return Poll::Ready(None);
        }
        let unread = self.lingering || !client.reader.at_start() || !client.buf.is_empty();
        if !unread || client.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(State::Lingering(Box::pin(sleep(LINGER)), LINGER_BYTES)))
    }

    #[cold]
    fn note(&self, error: &std::io::Error) {
        self.live().note_stalled(error);
        let listener = &self.shared.context.settings().listener.name;
        tracing::debug!(%listener, %error, "an HTTP/1 connection ended");
    }
}

/// Reads and throws away what a client still sends, so that the close doesn't reset.
fn poll_linger(
    stream: &mut Stream,
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
