//! One HTTP/1 connection: hyper's server over the [guard](super::guard).
//!
//! hyper's state and its two buffers are most of what a connection takes. One that was idle for a while gives them back and keeps
//! its socket ([`Registry::rest`](crate::live::Registry::rest)); with the next request's first byte they are made again.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{self, Poll},
};

use hyper::server::conn::http1::UpgradeableConnection;
use hyper_util::rt::TokioIo;

use super::{Shared, Switch, guard::Guard, head::Limits};
use crate::{
    connection::Reader,
    exchange::WhyRefused as _,
    live::{Live, Order, Rest},
    request::{Place, Refusal},
    respond::{Context, HttpService, Service},
    stream::Stream,
};

/// hyper's own bound on its buffers; only limits above it raise it.
const HYPER_BUFFER: usize = 8192 + 4096 * 100;

/// Serves the connection to its end, that of the tunnel that it may become included. With `deny`, whatever comes first is refused.
///
/// Its future holds what a connection needs while it rests; all else is made before, or stands in a box.
pub(crate) fn serve<H: HttpService>(
    mut stream: Stream,
    reader: Reader,
    http: H,
    deny: Option<Refusal>,
    place: Option<Place>,
) -> impl Future<Output = ()> {
    let config = &reader.settings.listener;
    let limits = &config.http.limits;
    let bounds = Limits {
        request_line: limits.request_line,
        headers_size: limits.headers_size,
        headers_count: limits.headers_count,
    };
    stream.limit_writes(config.http.write_timeout);
    let shared = Arc::new(Shared::default());
    let mut guard = Guard::new(stream, bounds, config.http.header_timeout, shared.clone(), place);
    if let Some(refusal) = deny {
        guard.refuse(refusal);
    }
    let live = reader.live.clone();
    live.sweepable.set(true);
    let context = Rc::new(Context::new(reader, "http1", Some(shared.clone()), None));
    let state = awake(guard, Service::new(http, context.clone()), &context);
    run(state, live, shared, context)
}

type Connection<H> = UpgradeableConnection<TokioIo<Guard>, Service<H>>;

enum State<H: HttpService> {
    Awake(Box<Connection<H>>),
    Resting(Box<(Guard, Service<H>)>),
    /// Between the two, and after the end.
    Gone,
}

async fn run<H: HttpService>(mut state: State<H>, live: Rc<Live>, shared: Arc<Shared>, context: Rc<Context>) {
    let mut told = false;
    poll_fn(|cx| {
        live.register(cx);
        loop {
            state = match std::mem::replace(&mut state, State::Gone) {
                State::Awake(mut connection) => match poll(&mut connection, &mut told, &live, &shared, cx) {
                    Some(Poll::Ready(ended)) => {
                        note(ended, &live, &context);
                        return Poll::Ready(());
                    }
                    Some(Poll::Pending) => {
                        state = State::Awake(connection);
                        return Poll::Pending;
                    }
                    None => rest(*connection, &live),
                },
                State::Resting(mut resting) => {
                    // What ends a connection is followed by hyper, as if it had never rested.
                    if live.order() < Order::Finish && resting.0.poll_client(cx).is_pending() {
                        state = State::Resting(resting);
                        return Poll::Pending;
                    }
                    let (guard, service) = *resting;
                    awake(guard, service, &context)
                }
                State::Gone => return Poll::Ready(()),
            };
        }
    })
    .await;
    if let Some(refusal) = shared.refusal() {
        live.ends_by(refusal.reason);
    }
    if shared.switch() == Switch::Switched {
        // The stream is the tunnel's now, driven by whoever took the upgrade; the exchange lasts as long.
        let mut gone = pin!(shared.gone.notified());
        poll_fn(|cx| {
            live.register(cx);
            if live.order() == Order::Cut {
                shared.cut();
                return Poll::Ready(());
            }
            gone.as_mut().poll(cx)
        })
        .await;
        context.end_tunnel();
    }
}

/// hyper's server over the guard.
fn awake<H: HttpService>(guard: Guard, service: Service<H>, context: &Context) -> State<H> {
    context.live().rest.set(Rest::Awake);
    let limits = &context.settings().listener.http.limits;
    let mut builder = hyper::server::conn::http1::Builder::new();
    // The guard bounds the head and its time; hyper's own would read the clock for every request.
    builder.header_read_timeout(None);
    if limits.headers_count > 100 {
        // hyper's default of 100 lies on the stack, any other is allocated for every request.
        builder.max_headers(limits.headers_count);
    }
    let head = limits.request_line.saturating_add(limits.headers_size).saturating_add(8192);
    if head > HYPER_BUFFER {
        builder.max_buf_size(head);
    }
    State::Awake(Box::new(builder.serve_connection(TokioIo::new(guard), service).with_upgrades()))
}

/// Serves; `None` where the connection rests from now on.
fn poll<H: HttpService>(
    connection: &mut Connection<H>,
    told: &mut bool,
    live: &Live,
    shared: &Shared,
    cx: &mut task::Context<'_>,
) -> Option<Poll<hyper::Result<()>>> {
    if live.order() == Order::Cut {
        return Some(Poll::Ready(Ok(())));
    }
    // Before the order to finish is followed, so that a request that has just come is still answered.
    let ended = Pin::new(&mut *connection).poll(cx);
    if ended.is_ready() {
        return Some(ended);
    }
    if live.order() >= Order::Finish && !*told {
        *told = true;
        Pin::new(&mut *connection).graceful_shutdown();
        return Some(Pin::new(connection).poll(cx));
    }
    if live.rest.get() == Rest::Tired {
        if live.is_idle() && !*told && shared.is_at_rest() {
            return None;
        }
        live.rest.set(Rest::Awake);
    }
    Some(Poll::Pending)
}

/// Keeps what outlives a rest, and drops the other.
fn rest<H: HttpService>(connection: Connection<H>, live: &Live) -> State<H> {
    let Some(parts) = connection.into_parts() else { return State::Gone };
    let mut guard = parts.io.into_inner();
    guard.take_back(&parts.read_buf);
    live.rest.set(Rest::Resting);
    State::Resting(Box::new((guard, parts.service)))
}

/// Notes why a connection ended, before it is dropped and its exchanges with it.
fn note(ended: hyper::Result<()>, live: &Live, context: &Context) {
    if let Err(error) = ended {
        live.note_stalled(&error);
        let listener = &context.settings().listener.name;
        tracing::debug!(%listener, error = %crate::exchange::cause(&error), "an HTTP/1 connection ended");
    }
}
