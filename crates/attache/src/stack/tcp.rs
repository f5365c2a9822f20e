//! Opaque connections: TCP of any protocol, and TLS that is passed through.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use attache_listener::{Opaque, Stream};
use attache_telemetry::Reason;
use attache_upstream::{
    Bare, CallContext,
    tunnel::{Socket, copy_both_sockets},
};
use tower::Service;

use super::{Site, Slot};

impl Site {
    async fn carry(&self, opaque: Opaque) {
        let Opaque { io, client, exchange, .. } = opaque;
        self.metrics.request_started(&exchange);
        let Some(route) = self.table.find_tcp(&client) else {
            exchange.fail(Reason::NoRoute, "");
            return;
        };
        *exchange.route.borrow_mut() = Some(route.name.clone());
        let Some(destination) = route.choose(fastrand::u32(..)) else {
            exchange.fail(Reason::NoRoute, "the route answers HTTP only");
            return;
        };
        *exchange.upstream.borrow_mut() =
            self.upstreams.config(destination.upstream).map(|upstream| upstream.name.clone());
        let context = CallContext::new(client, exchange.clone());
        let Bare { io: upstream, guard: _charged } =
            match self.upstreams.connect(destination, None, context).await {
                Ok(connected) => connected,
                Err(error) => {
                    exchange.fail(error.reason, error.detail());
                    return;
                }
            };
        exchange.time_to_head.set(Some(exchange.start.elapsed()));
        let idle = self.listener.tcp_idle_timeout;
        let socket: fn(&Stream) -> Option<Socket<'_>> =
            if self.listener.tcp_splice { socket } else { |_| None };
        let (received, sent) = match copy_both_sockets(io, socket, upstream, idle).await {
            Ok(copied) => copied,
            Err(error) => {
                let detail = std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
                exchange.fail(error.reason, detail);
                error.copied
            }
        };
        exchange.received.set(received);
        exchange.sent.set(sent);
    }
}

/// The client's socket, once nothing that was read of it is left in front.
fn socket(io: &Stream) -> Option<Socket<'_>> {
    let tcp = io.as_tcp().map(Socket::Tcp);
    tcp.or_else(|| io.as_unix().map(Socket::Unix)).filter(|_| !io.has_unread())
}

/// [`Site`] as the listener wants it for opaque connections.
#[derive(Clone)]
pub(crate) struct Tcp(pub(crate) Slot);

impl Service<Opaque> for Tcp {
    type Response = ();
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<(), Infallible>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, opaque: Opaque) -> Self::Future {
        let site = self.0.site();
        // One allocation per connection.
        Box::pin(async move {
            site.carry(opaque).await;
            Ok(())
        })
    }
}
