//! One HTTP/1 connection: its requests one after the other, each read, called, and answered.
//!
//! A future by hand, which moves when the socket, the service or an answer's body can. While it waits for a request it holds the socket and
//! what belongs to the connection, and no buffer.
//!
//! - A refused head is answered in its order, after the requests before it, and nothing after it is ever read but thrown away for a
//!   moment at the end: closing a socket with unread bytes resets it and can destroy the answer on its way.
//! - A client that closes its side after its request gets its answer (RFC 9112 section 9.6), unless `http.half_close` says otherwise.
//! - A body that breaks off is never ended cleanly: what came of it is written, and then the connection is cut.

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
use attache_http::Body;
use attache_telemetry::Reason;
use attache_wire::{
    Fields, Limits, Request, Response, buffers, header::TRAILER, outbox::Encoder, request::Target,
    server::Reader as Requests,
};
use http::{Method, StatusCode};
use http_body::Body as _;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    sync::oneshot,
    time::{Sleep, sleep},
};

use super::{
    body::Incoming,
    client::{Client, refusal},
    context::Shared,
    encode::{self, Asked},
    tunnel::{Signals, Tunnel},
};
use crate::{
    HttpRequest,
    exchange::{Finish, Sent},
    live::{Live, Order},
    reader::Reader,
    request::{Place, Refusal},
    respond::{Context, HttpService, panicked},
    stream::Stream,
    upgrade::OnUpgrade,
};

/// How long, and how much, is read and thrown away after the last answer of a connection that still sends.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;
/// Bytes of a body that nobody wanted which are read so that the connection can be used again.
const DRAIN_BYTES: usize = 64 << 10;
const HEADER_TIMEOUT: Refusal =
    Refusal::new(Reason::HeaderTimeout, "The request's head did not arrive in time.");

/// Serves the connection to its end, that of the tunnel that it may become included. With `deny`, whatever comes first is refused.
pub(crate) fn serve<H: HttpService>(
    mut stream: Stream,
    reader: Reader,
    http: H,
    deny: Option<Refusal>,
    place: Place,
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
        shared: Shared::new(Context::new(reader, "http1", None), client),
        http,
        state: State::Between,
        timer: None,
        deny: deny.map(Box::new),
        looked: 0,
        closing: false,
        lingering: false,
        place: Some(place),
    })
}

/// A connection that is served.
///
/// Not an `async` block: that would hold what it begins with twice, and memory per idle connection counts.
pub(crate) enum Serving<H: HttpService> {
    /// Its requests.
    Requests(Connection<H>),
    /// Its stream is a tunnel's, driven by whoever took the upgrade; the exchange lasts as long.
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
async fn until_gone(live: Rc<Live>, signals: Arc<Signals>, mut finish: Finish) {
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
    /// Bytes of a head that were looked at, and are no whole one.
    looked: usize,
    /// No request follows.
    closing: bool,
    /// What the client still sends is thrown away at the end.
    lingering: bool,
    place: Option<Place>,
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
    /// Everything is written, and the client is told so.
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
    asked: Asked,
    tunnel: Option<oneshot::Sender<Tunnel>>,
    refused: bool,
}

/// An answer's body on its way.
struct Answer {
    body: Sent,
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
        self.shared.client.borrow_mut().close();
    }
}

impl<H: HttpService> Connection<H> {
    fn live(&self) -> &Rc<Live> {
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

    /// Writes what is left of the last answer, then waits for a request. `None` at the connection's end.
    fn poll_between(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<State<H::Future>>> {
        if let Err(error) = ready!(self.shared.client.borrow_mut().poll_write(cx)) {
            self.note(&error);
            return Poll::Ready(None);
        }
        if self.closing {
            return Poll::Ready(Some(State::Shutdown));
        }
        if let Some(refusal) = self.deny.take() {
            return Poll::Ready(Some(self.refuse(*refusal)));
        }
        if !self.shared.client.borrow().reader.at_start() && !ready!(self.poll_rest(cx)) {
            self.lingering = true;
            return Poll::Ready(Some(State::Shutdown));
        }
        let limits = &self.shared.context.settings().listener.http.limits;
        let limits =
            Limits { line: limits.request_line, size: limits.headers_size, count: limits.headers_count };
        let mut client = self.shared.client.borrow_mut();
        loop {
            let fresh = client.buf.len() > self.looked;
            if fresh && (self.looked == 0 || client.reader.is_worth_a_look(&client.buf, self.looked, &limits))
            {
                let state = &mut *client;
                match state.reader.head(&mut state.buf, &limits) {
                    Ok(Some((head, parts))) => {
                        self.looked = 0;
                        self.timer = None;
                        drop(client);
                        return Poll::Ready(Some(self.call(parts, &head)));
                    }
                    Ok(None) => self.looked = client.buf.len(),
                    Err(fault) => {
                        drop(client);
                        return Poll::Ready(Some(self.refuse(refusal(fault))));
                    }
                }
            }
            match client.poll_fill(cx) {
                Poll::Ready(Ok(0)) if client.buf.is_empty() => return Poll::Ready(Some(State::Shutdown)),
                // The client left in the middle of a head.
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending if client.buf.is_empty() => {
                    // While it waits for a request, it holds no buffer.
                    buffers::put(&mut client.buf);
                    // Before the order to finish is followed, so that a request that has just come is still answered.
                    if self.shared.live().order() >= Order::Finish {
                        return Poll::Ready(Some(State::Shutdown));
                    }
                    return Poll::Pending;
                }
                Poll::Pending => {
                    let timeout = self.shared.context.settings().listener.http.header_timeout;
                    let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
                    ready!(timer.as_mut().poll(cx));
                    drop(client);
                    return Poll::Ready(Some(self.refuse(HEADER_TIMEOUT)));
                }
            }
        }
    }

    /// The last request's body isn't through: waits for whoever reads it, or throws away the rest if that is little. Whether another
    /// request can follow.
    fn poll_rest(&mut self, cx: &mut task::Context<'_>) -> Poll<bool> {
        let mut client = self.shared.client.borrow_mut();
        let client = &mut *client;
        if client.reader.is_switching() {
            client.reader.resume();
            return Poll::Ready(true);
        }
        if client.body_held {
            client.told_by(cx);
            return Poll::Pending;
        }
        if client.expects {
            // It was never asked for, and whether it comes is not known.
            return Poll::Ready(false);
        }
        let mut thrown = 0;
        while !client.reader.at_start() {
            match client.reader.piece(&mut client.buf) {
                Ok(attache_wire::body::Piece::More) => match client.poll_fill(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    _ => return Poll::Ready(false),
                },
                Ok(attache_wire::body::Piece::Data(data)) => thrown += data.len(),
                Ok(_) => {}
                Err(_) => return Poll::Ready(false),
            }
            if thrown > DRAIN_BYTES {
                return Poll::Ready(false);
            }
            if client.reader.is_switching() {
                client.reader.resume();
            }
        }
        Poll::Ready(true)
    }

    /// Answers what came with a refusal.
    #[cold]
    fn refuse(&mut self, refusal: Refusal) -> State<H::Future> {
        self.timer = None;
        self.lingering = true;
        self.live().ends_by(refusal.reason);
        let asked = Asked {
            head: false,
            connect: false,
            http11: true,
            takes_trailers: false,
            persists: false,
            may_switch: false,
        };
        self.run(Request::new(Body::empty()), asked, Some(refusal))
    }

    fn call(
        &mut self,
        parts: Rc<attache_wire::RequestHead>,
        head: &attache_wire::request::Head,
    ) -> State<H::Future> {
        {
            let mut client = self.shared.client.borrow_mut();
            client.expects = head.expects;
            client.wanted = false;
            client.broken = None;
        }
        let asked = Asked {
            head: parts.method == Method::HEAD,
            connect: parts.method == Method::CONNECT,
            http11: head.http11,
            takes_trailers: head.takes_trailers,
            persists: head.persists,
            may_switch: head.may_switch,
        };
        self.run(Request::from_parts(parts, Body::empty()), asked, None)
    }

    /// Gives a request to the service.
    fn run(
        &mut self,
        mut request: Request<Body>,
        asked: Asked,
        refused: Option<Refusal>,
    ) -> State<H::Future> {
        let context = &self.shared.context;
        let ordinal = context.begin();
        {
            let mut client = self.shared.client.borrow_mut();
            client.request = ordinal;
            client.body_held = false;
        }
        let exchange = context.record(&request, refused.is_some());
        let finish = Finish::new(exchange.clone(), context.reader().settings.clone(), context.live().clone());
        // RFC 9110 section 15.2: never to an HTTP/1.0 client.
        let on_informational = asked.http11.then(|| self.shared.hints_of(ordinal));
        let (mut tunnel, mut upgrade) = (None, None);
        if refused.is_none() {
            *request.body_mut() = Incoming::body(&self.shared, &exchange);
            if asked.may_switch {
                let (give, take) = oneshot::channel();
                (tunnel, upgrade) = (Some(give), Some(OnUpgrade::http1(take)));
            }
        }
        let (closes, refused) = (refused.is_some(), refused.map(|refusal| context.explained(refusal)));
        let client = context.reader().client.clone();
        let request =
            HttpRequest { request, client, exchange, on_informational, refused, upgrade, hold: None };
        let future = catch_unwind(AssertUnwindSafe(|| self.http.call(request))).ok();
        State::Called(Call { future, answer: None, finish, asked, tunnel, refused: closes })
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
            Some(Poll::Pending) => return self.poll_meanwhile(cx),
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

    /// Writes the head of an answer.
    fn answer(&mut self, mut answer: Response<Body>) -> Option<State<H::Future>> {
        let State::Called(call) = std::mem::replace(&mut self.state, State::Between) else { return None };
        let Call { mut finish, asked, tunnel, refused, .. } = call;
        let mut status = answer.status();
        let switched = asked.may_switch
            && (status == StatusCode::SWITCHING_PROTOCOLS || (asked.connect && status.is_success()));
        if status.is_informational() && !switched {
            answer = self.shared.context.nobody_asked(&finish.exchange);
            status = answer.status();
        }
        if finish.exchange.status.get() == 0 {
            finish.exchange.status.set(status.as_u16());
        }
        if http_body::Body::is_end_stream(answer.body()) {
            finish.exchange.ended_by_head(answer.headers());
        }
        let mut client = self.shared.client.borrow_mut();
        // 1xx answers that came with the answer itself.
        if let Some(hints) = self.shared.take_hints() {
            client.head().extend_from_slice(&hints);
        }
        let client = &mut *client;
        let unread = client.expects && !client.reader.at_start() && !client.reader.is_switching();
        let ends = self.shared.context.is_used_up() || self.shared.live().order() >= Order::LastCall;
        let broken = client.broken.is_some();
        let persists = asked.persists && !refused && !ends && !unread && !broken;
        // What it sent before it closed its side is still answered.
        let persists = persists && (!client.ended || !client.buf.is_empty());
        let plan = encode::head(client.head(), &mut answer, asked, switched, persists);
        self.closing |= plan.closes;
        if switched && let Some(tunnel) = tunnel {
            return Some(State::Switching(Some((tunnel, finish))));
        }
        let (parts, body) = answer.into_parts();
        let announced =
            (plan.encoder == Encoder::Chunked && asked.takes_trailers && parts.headers.contains_key(TRAILER))
                .then(|| Box::new(parts.headers));
        if plan.encoder == Encoder::None {
            // RFC 9112 section 6.3 rule 1: whatever the headers say, it has none.
            finish.complete();
            return Some(State::Between);
        }
        let body = Sent::new(body, finish, asked.head, status);
        Some(State::Answering(Answer { body, encoder: plan.encoder, announced }))
    }

    /// Writes an answer's body as it comes.
    fn poll_answering(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<State<H::Future>>> {
        let State::Answering(answer) = &mut self.state else { return Poll::Ready(None) };
        loop {
            let mut pending = false;
            while self.shared.client.borrow().out.has_room() {
                // Not while the client is borrowed: an answer may read the request's body.
                let frame = match Pin::new(&mut answer.body).poll_frame(cx) {
                    Poll::Pending => {
                        pending = true;
                        break;
                    }
                    Poll::Ready(frame) => frame,
                };
                let mut client = self.shared.client.borrow_mut();
                let ended = match frame {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => {
                            let added = client.out.body(&mut answer.encoder, data).map(|()| false);
                            // The last piece's end goes out with it.
                            if added.is_ok() && answer.body.is_end_stream() {
                                client.out.end(answer.encoder, None).map(|()| true)
                            } else {
                                added
                            }
                        }
                        Err(frame) => {
                            let trailers = frame.into_trailers().ok().zip(answer.announced.as_deref());
                            let trailers = trailers.and_then(|(new, all)| encode::trailers(new, all));
                            client.out.end(answer.encoder, trailers.as_ref()).map(|()| true)
                        }
                    },
                    None => client.out.end(answer.encoder, None).map(|()| true),
                    Some(Err(_)) => Err(attache_wire::outbox::WrongLength),
                };
                match ended {
                    Ok(false) => {}
                    Ok(true) => return Poll::Ready(Some(State::Between)),
                    Err(_) => {
                        // What came of it is written; its missing end is told by the connection's.
                        answer.body.has_wrong_length();
                        if answer.encoder == Encoder::UntilEnd {
                            // Only a reset differs from the end of a whole body.
                            let _ = client.poll_write(cx);
                            client.stream.reset();
                            return Poll::Ready(None);
                        }
                        self.closing = true;
                        drop(client);
                        return Poll::Ready(Some(State::Between));
                    }
                }
            }
            let mut client = self.shared.client.borrow_mut();
            if let Err(error) = ready!(client.poll_write(cx)) {
                self.shared.live().note_stalled(&error);
                return Poll::Ready(None);
            }
            if pending {
                let client = &mut *client;
                client.told_by(cx);
                let through = client.reader.at_start() || client.reader.is_switching();
                if through && client.poll_left(cx).is_ready() {
                    return Poll::Ready(None);
                }
                let cut = self.shared.context.settings().listener.http.half_close == HalfClose::Cut;
                return if cut && client.ended { Poll::Ready(None) } else { Poll::Pending };
            }
        }
    }

    /// Writes the answer that opens a tunnel, and hands the stream over.
    fn poll_switching(&mut self, cx: &mut task::Context<'_>) -> Poll<Ended> {
        let State::Switching(switching) = &mut self.state else { return Poll::Ready(None) };
        let mut client = self.shared.client.borrow_mut();
        if let Err(error) = ready!(client.poll_write(cx)) {
            drop(client);
            self.note(&error);
            return Poll::Ready(None);
        }
        let Some((offer, finish)) = switching.take() else { return Poll::Ready(None) };
        let mut stream = std::mem::replace(&mut client.stream, Stream::gone());
        let early = std::mem::take(&mut client.buf).freeze();
        if !early.is_empty() {
            stream.unread(bytes::Bytes::copy_from_slice(&early));
        }
        // Its two ends have their own idea of idle.
        stream.limit_writes(Duration::ZERO);
        let signals = Arc::new(Signals::default());
        // Where nobody waits for it, the tunnel ends here.
        let _ = offer.send(Tunnel::new(stream, signals.clone(), self.place.take()));
        Poll::Ready(Some((signals, finish)))
    }

    fn poll_shutdown(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<State<H::Future>>> {
        let mut client = self.shared.client.borrow_mut();
        let client = &mut *client;
        if ready!(client.poll_write(cx)).is_err()
            || ready!(Pin::new(&mut client.stream).poll_shutdown(cx)).is_err()
        {
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
