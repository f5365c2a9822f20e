//! One HTTP/2 connection: the h2 crate's server with the model's limits.

use std::{future::poll_fn, rc::Rc, task::Poll, time::Duration};

use attache_http2::{CONNECTION_WINDOW, Inlet, Streams, Verdict, Window};
use attache_telemetry::{Exchange, Reason};
use attache_wire::{Protocol, Request, RequestHead};
use bytes::Bytes;
use h2::{
    Ping, PingPong, RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::Method;
use tokio::{
    sync::oneshot,
    task::spawn_local,
    time::{sleep, timeout},
};

use super::{
    answer::{Answer, Connect, Informational},
    body,
    flood::flood,
    gather::Io,
};
use crate::{
    exchange::cause,
    live::Order,
    reader::Reader,
    request::Refusal,
    respond::{Context, HttpService, Service},
    stream::Stream,
    upgrade::OnUpgrade,
};

/// How long a client may take to answer a GOAWAY once nothing runs.
const GOODBYE: Duration = Duration::from_secs(5);

/// Streams that we reset are remembered, so that what was under way to them is no error of the client. A round trip is enough; a client
/// that is slow to read has longer.
const RESET_REMEMBERED: Duration = Duration::from_secs(30);
const RESETS_REMEMBERED: usize = 256;

/// Serves the connection to its end. With `deny`, every request is refused.
pub(crate) async fn serve<H: HttpService>(
    mut stream: Stream,
    reader: Reader,
    http: H,
    deny: Option<Refusal>,
) {
    let settings = reader.settings.clone();
    let live = reader.live.clone();
    let address = reader.client.address;
    let config = &settings.listener.http;
    let limits = &config.limits;
    live.sweepable.set(true);
    stream.limit_writes(config.write_timeout);
    let context = Rc::new(Context::new(reader, "http2", deny));
    let streams = Rc::new(Streams::default());
    let verdict = Verdict::default();
    let client = address.map(|address| address.ip());
    let flood = flood(limits, client, live.clone(), verdict.clone());
    let io = Io::new(stream, Inlet::of_client(streams.clone()), flood);
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.h2_streams)
        .initial_window_size(limits.h2_stream_window)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(limits.headers_size).unwrap_or(u32::MAX))
        .max_send_buffer_size(limits.h2_send_buffer)
        .enable_connect_protocol()
        // What these bound for the life of a connection is counted over time by `flood`.
        .max_local_error_reset_streams(None)
        .max_pending_accept_reset_streams(limits.h2_pending_resets)
        // Small frames are gathered by the inlet.
        .data_frame_budget(usize::MAX)
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .reset_stream_duration(RESET_REMEMBERED);
    let server = Server {
        service: Service::new(http, context.clone()),
        context: context.clone(),
        window: Window::new(&streams, limits.h2_stream_window, limits.h2_stream_window_max),
        streams,
        pings: None,
        wanted: None,
        write_timeout: config.write_timeout,
    };
    let ended = match timeout(config.header_timeout, handshake(&builder, io.clone(), &context)).await {
        Ok(Ok(Some(connection))) => server.run(connection).await,
        Ok(Ok(None)) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            live.ends_by(Reason::HeaderTimeout);
            return;
        }
    };
    let Err(error) = ended else { return };
    let flooded = verdict.get().map(ToString::to_string);
    if let Some(words) = &flooded {
        io.say_goodbye(h2::Reason::ENHANCE_YOUR_CALM, words).await;
    }
    let is_flood = flooded.is_some() || error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
    let detail = flooded.unwrap_or_else(|| cause(&error));
    tracing::debug!(listener = %settings.listener.name, error = detail, "an HTTP/2 connection ended");
    if is_flood || !is_disconnect(&error) {
        // A connection that broke the protocol, or flooded: counted, since its requests' records don't say so.
        let reason = if is_flood { Reason::Http2Flood } else { Reason::BadRequest };
        let exchange = Exchange::new(settings.listener.name.clone(), "http2", address);
        exchange.fail(reason, detail);
        live.ends_by(reason);
        (settings.on_finish)(&exchange);
    }
}

/// Reads the client's preface; `None` where an order came before it.
async fn handshake(
    builder: &Builder,
    io: Io,
    context: &Context,
) -> Result<Option<Connection<Io, Bytes>>, h2::Error> {
    let mut handshake = Box::pin(builder.handshake(io));
    poll_fn(|cx| {
        context.live().register(cx);
        match handshake.as_mut().poll(cx) {
            Poll::Pending if context.live().order() >= Order::Finish => Poll::Ready(Ok(None)),
            polled => polled.map_ok(Some),
        }
    })
    .await
}

/// What serves one connection.
struct Server<H> {
    service: Service<H>,
    context: Rc<Context>,
    streams: Rc<Streams>,
    window: Window,
    pings: Option<PingPong>,
    /// A window that the client was not told of yet.
    wanted: Option<u32>,
    write_timeout: Duration,
}

impl<H: HttpService> Server<H> {
    async fn run(mut self, mut connection: Connection<Io, Bytes>) -> Result<(), h2::Error> {
        self.pings = connection.ping_pong();
        let context = self.context.clone();
        let live = context.live();
        let mut goodbye = None;
        poll_fn(|cx| {
            live.register(cx);
            if live.order() == Order::Cut {
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(ended) = self.poll(cx, &mut connection) {
                return Poll::Ready(ended);
            }
            if live.order() < Order::Finish && !context.is_used_up() {
                return Poll::Pending;
            }
            if goodbye.is_none() {
                connection.graceful_shutdown();
                goodbye = Some(Box::pin(sleep(GOODBYE)));
                if let Poll::Ready(ended) = self.poll(cx, &mut connection) {
                    return Poll::Ready(ended);
                }
            }
            let Some(timer) = &mut goodbye else { return Poll::Pending };
            while timer.as_mut().poll(cx).is_ready() {
                if live.is_idle() {
                    return Poll::Ready(Ok(()));
                }
                timer.set(sleep(GOODBYE));
            }
            Poll::Pending
        })
        .await
    }

    fn poll(
        &mut self,
        cx: &mut std::task::Context<'_>,
        connection: &mut Connection<Io, Bytes>,
    ) -> Poll<Result<(), h2::Error>> {
        while let Poll::Ready(accepted) = connection.poll_accept(cx) {
            match accepted {
                Some(Ok((request, respond))) => self.accept(request, respond),
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Ok(())),
            }
        }
        self.follow_window(cx, connection);
        Poll::Pending
    }

    /// Lets the streams' window grow with fast readers, and shrink when the process is short of memory.
    fn follow_window(&mut self, cx: &mut std::task::Context<'_>, connection: &mut Connection<Io, Bytes>) {
        let Some(pings) = &mut self.pings else { return };
        if self.context.live().order() >= Order::LastCall {
            self.wanted = self.window.shrink(&self.streams).or(self.wanted);
        } else {
            while let Poll::Ready(Ok(_)) = pings.poll_pong(cx) {
                self.wanted = self.window.ponged(&self.streams).or(self.wanted);
            }
            if self.window.wants_ping(&self.streams) {
                let _ = pings.send_ping(Ping::opaque());
                let _ = pings.poll_pong(cx);
            }
        }
        if let Some(size) = self.wanted
            // Refused while the client has not yet acknowledged the last change.
            && connection.set_initial_window_size(size).is_ok()
        {
            self.wanted = None;
            cx.waker().wake_by_ref();
        }
    }

    /// Streams run as tasks of the worker.
    fn accept(&self, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) {
        let informational = Rc::new(Informational::default());
        let (mut connect, mut upgrade) = (None, None);
        let is_connect = *request.method() == Method::CONNECT;
        let method = request.method().clone();
        let (head, stream) = request.into_parts();
        let protocol = head.extensions.get::<h2::ext::Protocol>();
        let protocol = protocol.map(|protocol| Protocol::from(protocol.as_str()));
        let head = RequestHead { protocol, ..head.into() };
        let stream = if is_connect {
            let (tunnel, opened) = oneshot::channel();
            upgrade = Some(OnUpgrade::http2(opened));
            let reader = self.streams.reader(stream.stream_id().as_u32());
            connect = Some(Connect { received: stream, reader, tunnel });
            None
        } else {
            Some(stream)
        };
        let answer = self.service.answer(
            Request::from_parts(head, stream),
            |stream, headers, exchange| match stream {
                Some(stream) => body::body(stream, headers, &self.streams, exchange),
                None => attache_http::Body::empty(),
            },
            informational.sink(),
            upgrade,
        );
        let live = self.context.live().clone();
        spawn_local(Answer::new(answer, respond, &method, connect, informational, live, self.write_timeout));
    }
}

/// The client went away, which is its right.
fn is_disconnect(error: &h2::Error) -> bool {
    error.get_io().is_some_and(|io| io.kind() != std::io::ErrorKind::InvalidData)
}
