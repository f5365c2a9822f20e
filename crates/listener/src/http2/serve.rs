//! One HTTP/2 connection: hyper's server with the model's limits.

use std::{future::poll_fn, pin::pin, rc::Rc, task::Poll, time::Duration};

use attache_telemetry::{Exchange, Reason};
use hyper_util::rt::TokioIo;
use tokio::time::sleep;

use super::{flood::Flood, gather::Gather};
use crate::{
    connection::Reader,
    exchange::cause,
    live::Order,
    request::Refusal,
    respond::{Context, HttpService, Service},
    stream::Stream,
};

/// How long a client may take to answer a GOAWAY once nothing runs.
const GOODBYE: Duration = Duration::from_secs(5);

/// Streams run as tasks of the worker.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

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
    let limits = &settings.listener.http.limits;
    live.sweepable.set(true);
    stream.limit_writes(settings.listener.http.write_timeout);
    let context = Rc::new(Context::new(reader, "http2", deny));
    let io = TokioIo::new(Gather::new(stream, Flood::new(live.clone())));
    let mut connection = pin!(
        hyper::server::conn::http2::Builder::new(Local)
            .max_concurrent_streams(limits.h2_streams)
            .max_pending_accept_reset_streams(limits.h2_pending_resets)
            .max_local_error_reset_streams(limits.h2_local_resets)
            .initial_stream_window_size(limits.h2_stream_window)
            .initial_connection_window_size(limits.h2_connection_window)
            .max_header_list_size(u32::try_from(limits.headers_size).unwrap_or(u32::MAX))
            .max_send_buf_size(limits.h2_send_buffer)
            .enable_connect_protocol()
            .serve_connection(io, Service::new(http, context.clone()))
    );
    let mut goodbye = None;
    let ended = poll_fn(|cx| {
        live.register(cx);
        if live.order() == Order::Cut {
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        if live.order() < Order::Finish && !context.is_used_up() {
            return Poll::Pending;
        }
        let timer = goodbye.get_or_insert_with(|| {
            connection.as_mut().graceful_shutdown();
            Box::pin(sleep(GOODBYE))
        });
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if live.is_idle() {
                return Poll::Ready(Ok(()));
            }
            timer.set(sleep(GOODBYE));
        }
        Poll::Pending
    })
    .await;
    let Err(error) = ended else { return };
    let detail = cause(&error);
    tracing::debug!(listener = %settings.listener.name, error = detail, "an HTTP/2 connection ended");
    if !is_disconnect(&error) {
        // A connection that broke the protocol, or flooded: counted, since its requests' records don't say so.
        let exchange = Exchange::new(settings.listener.name.clone(), "http2", address);
        exchange.fail(Reason::BadRequest, detail);
        live.ends_by(Reason::BadRequest);
        (settings.on_finish)(&exchange);
    }
}

/// The client went away, which is its right.
fn is_disconnect(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() != std::io::ErrorKind::InvalidData;
        }
        next = error.source();
    }
    false
}
