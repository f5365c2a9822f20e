//! Serves one HTTP/2 connection with the limits of the config.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context as Wakes, Poll},
    time::Duration,
};

use attache_http::time::{Sleep, sleep};
use attache_http2::{Connection, Error, ErrorCode, IncomingRequest, Settings};
use attache_telemetry::{Exchange, Reason};
use attache_wire::{Request, ValueRef, header::EXPECT};
use http::Method;
use tokio::{sync::oneshot, task::spawn_local, time::timeout};

use super::{
    answer::{Connect, Http2Responder, PendingInformational},
    body,
    flood::flood,
};
use crate::{
    Protocol,
    exchange::cause,
    reader::ServingContext,
    registry::{ConnectionOrder, OpenConnection},
    request::{EarlyRefusal, HEADER_TIMEOUT},
    respond::{Http2Service, HttpService, RespondContext},
    stream::ClientStream,
    upgrade::OnUpgrade,
};

/// How long a client may take to answer a GOAWAY when no request runs.
const GOAWAY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client may take to read why its connection was ended.
const LINGER: Duration = Duration::from_millis(500);

/// Why attache ends a connection.
enum Http2EndCause {
    /// An error of the connection or of the client.
    Failed(Error),
    /// A head was not complete in time.
    HeadTooSlow,
    /// The connection must end, and no request runs. GOAWAY tells the client which requests were processed.
    Drained,
    /// The connection must end at once.
    Cut,
}

/// Serves the connection to its end. With `deny`, every request is refused.
pub(crate) async fn serve<H: HttpService>(
    mut stream: ClientStream,
    reader: ServingContext,
    http: H,
    deny: Option<EarlyRefusal>,
) {
    let settings = reader.settings.clone();
    let live = reader.live.clone();
    let address = reader.client.address;
    let config = &settings.listener.http;
    let limits = &config.limits;
    live.sweepable.set(true);
    stream.limit_writes(config.write_timeout);
    let context = Rc::new(RespondContext::new(reader, Protocol::Http2, deny));
    let flood = flood(limits, address.map(|address| address.ip()), live.clone());
    let http2 = Settings {
        streams: limits.h2_streams,
        window: limits.h2_stream_window,
        window_most: limits.h2_stream_window_max,
        head_size: u32::try_from(limits.headers_size).unwrap_or(u32::MAX),
        pending_resets: limits.h2_pending_resets,
        send_buffer: limits.h2_send_buffer,
        extended_connect: config.extended_connect,
    };
    let mut connection = Connection::server(stream, http2, Box::new(flood));
    let server = Http2Server {
        service: Http2Service::new(http, context.clone()),
        write_timeout: config.write_timeout,
    };
    let Err(stop) = run(&server, &context, &mut connection, config.header_timeout).await else { return };
    let report = |reason, detail| {
        let exchange = Exchange::new(settings.listener.name.clone(), "http2", address);
        exchange.fail(reason, detail);
        live.ends_by(reason);
        (settings.on_finish)(&exchange);
    };
    let (words, lasts) = match stop {
        Http2EndCause::Failed(error) => {
            return end(&error, &mut connection, &live, &settings.listener.name, report).await;
        }
        Http2EndCause::HeadTooSlow => {
            report(Reason::HeaderTimeout, HEADER_TIMEOUT.rule.to_owned());
            (HEADER_TIMEOUT.rule, LINGER)
        }
        Http2EndCause::Drained => ("", LINGER),
        // Without waiting for the socket.
        Http2EndCause::Cut => ("", Duration::ZERO),
    };
    connection.give_up(ErrorCode::NO_ERROR, words);
    let _ = timeout(lasts, connection.linger()).await;
}

/// Closes a connection that ended with an error. The client may still read why. `report` records errors that no request's record shows.
async fn end(
    error: &Error,
    connection: &mut Connection<ClientStream>,
    live: &OpenConnection,
    listener: &str,
    report: impl Fn(Reason, String),
) {
    if let Some(io) = error.as_io() {
        live.note_stalled(io);
    } else if error.is_rule() {
        let _ = timeout(LINGER, connection.linger()).await;
    }
    let detail = if error.is_flood() { error.words().to_owned() } else { cause(error) };
    tracing::debug!(listener, error = detail, "an HTTP/2 connection ended");
    if error.is_rule() {
        // The connection broke the protocol or flooded. It is counted here, because the records of its requests don't show it.
        report(if error.is_flood() { Reason::Http2Flood } else { Reason::BadRequest }, detail);
    }
}

/// Runs the connection to its end. `header_timeout` limits each head, and the client's preface with its SETTINGS, from the first byte to
/// the last.
async fn run<H: HttpService>(
    server: &Http2Server<H>,
    context: &RespondContext,
    connection: &mut Connection<ClientStream>,
    header_timeout: Duration,
) -> Result<(), Http2EndCause> {
    let live = context.live();
    // It runs while a head is incomplete, together with the number of heads before it. A head that arrives in one read needs no clock.
    let mut gathers: Option<(u64, Pin<Box<Sleep>>)> = None;
    let mut goodbye: Option<Pin<Box<Sleep>>> = None;
    let mut pressed = false;
    poll_fn(|cx| {
        live.register(cx);
        if live.order() == ConnectionOrder::Cut {
            return Poll::Ready(Err(Http2EndCause::Cut));
        }
        if live.order() >= ConnectionOrder::EndWithAnswer && !std::mem::replace(&mut pressed, true) {
            connection.shrink();
        }
        if let Poll::Ready(ended) = server.poll(cx, connection) {
            return Poll::Ready(ended.map_err(Http2EndCause::Failed));
        }
        if let Some(before) = connection.unfinished_head() {
            if live.order() >= ConnectionOrder::Finish && !connection.is_settled() {
                return Poll::Ready(Err(Http2EndCause::Drained));
            }
            let (_, timer) = match gathers.take() {
                Some(gathering) if gathering.0 == before => gathers.insert(gathering),
                _ => gathers.insert((before, Box::pin(sleep(header_timeout)))),
            };
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(Http2EndCause::HeadTooSlow));
            }
        } else {
            gathers = None;
        }
        if live.order() < ConnectionOrder::Finish && !context.is_used_up() {
            return Poll::Pending;
        }
        if goodbye.is_none() {
            connection.say_goodbye();
            goodbye = Some(Box::pin(sleep(GOAWAY_TIMEOUT)));
            if let Poll::Ready(ended) = server.poll(cx, connection) {
                return Poll::Ready(ended.map_err(Http2EndCause::Failed));
            }
        }
        let Some(timer) = &mut goodbye else { return Poll::Pending };
        while timer.as_mut().poll(cx).is_ready() {
            if live.is_idle() {
                return Poll::Ready(Err(Http2EndCause::Drained));
            }
            timer.set(sleep(GOAWAY_TIMEOUT));
        }
        Poll::Pending
    })
    .await
}

/// What serves the requests of one connection.
struct Http2Server<H> {
    service: Http2Service<H>,
    write_timeout: Duration,
}

impl<H: HttpService> Http2Server<H> {
    fn poll(&self, cx: &mut Wakes<'_>, connection: &mut Connection<ClientStream>) -> Poll<Result<(), Error>> {
        let polled = connection.poll(cx);
        while let Some(request) = connection.accept() {
            self.accept(request);
        }
        while let Some(why) = connection.refused() {
            self.service.refused(why);
        }
        polled
    }

    /// Serves a request. Streams run as tasks of the worker.
    fn accept(&self, request: IncomingRequest) {
        let informational = Rc::new(PendingInformational::default());
        let (mut connect, mut upgrade) = (None, None);
        let IncomingRequest { head, send, body, too_large } = request;
        let method = head.method.clone();
        let expects = head.headers.contains_key(EXPECT) && head.headers.get_all(EXPECT).any(is_continue);
        let mut record = None;
        let body = if method == Method::CONNECT {
            let (tunnel, opened) = oneshot::channel();
            upgrade = Some(OnUpgrade::http2(opened));
            connect = Some(Connect { received: body, tunnel });
            None
        } else {
            Some(body)
        };
        let answer = self.service.answer(
            Request::from_parts(head, body),
            too_large,
            |body, exchange| {
                let Some(body) = body.filter(|body| !body.is_ended()) else {
                    return attache_http::Body::empty();
                };
                record = Some(Rc::clone(exchange));
                body::body(body, exchange, expects.then(|| Rc::clone(&informational)))
            },
            informational.sink(),
            upgrade,
        );
        let live = self.service.live().clone();
        let answer =
            Http2Responder::new(answer, send, &method, connect, informational, live, self.write_timeout);
        spawn_local(answer.with_record(record));
    }
}

/// `100-continue`, the only expectation that there is (RFC 9110 section 10.1.1).
fn is_continue(value: ValueRef<'_>) -> bool {
    value.as_bytes().eq_ignore_ascii_case(b"100-continue")
}
