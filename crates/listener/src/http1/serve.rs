//! One HTTP/1 connection: hyper's server over the [guard](super::guard).

use std::{future::poll_fn, pin::pin, rc::Rc, sync::Arc, task::Poll};

use hyper_util::rt::TokioIo;

use super::{Shared, Switch, guard::Guard, head::Limits};
use crate::{
    connection::Reader,
    exchange::WhyRefused as _,
    live::Order,
    request::{Place, Refusal},
    respond::{Context, HttpService, Service},
    stream::Stream,
};

/// hyper's own bound on its buffers; only limits above it raise it.
const HYPER_BUFFER: usize = 8192 + 4096 * 100;

/// Serves the connection to its end, that of the tunnel that it may become included. With `deny`, whatever comes first is refused.
pub(crate) async fn serve<H>(
    mut stream: Stream,
    reader: Reader,
    http: H,
    deny: Option<Refusal>,
    place: Option<Place>,
) where
    H: HttpService,
{
    let config = reader.settings.listener.clone();
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
    let service = Service::new(http, context.clone());

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
    let mut connection = pin!(builder.serve_connection(TokioIo::new(guard), service).with_upgrades());
    let mut told = false;
    let ended = poll_fn(|cx| {
        live.register(cx);
        if live.order() == Order::Cut {
            return Poll::Ready(Ok(()));
        }
        // Before the order to finish is followed, so that a request that has just come is still answered.
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        if live.order() >= Order::Finish && !told {
            told = true;
            connection.as_mut().graceful_shutdown();
            return connection.as_mut().poll(cx);
        }
        Poll::Pending
    })
    .await;
    if let Err(error) = ended {
        live.note_stalled(&error);
        tracing::debug!(listener = %config.name, error = %crate::exchange::cause(&error), "an HTTP/1 connection ended");
    }
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
