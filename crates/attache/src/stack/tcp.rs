//! Opaque connections: TCP with any protocol, and TLS that is passed through.

use std::{
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use attache_http::Client;
use attache_listener::{ClientStream, OpaqueConnection, OpaqueOutcome};
use attache_telemetry::{Exchange, Reason};
use attache_upstream::{
    BareConnection, Call, CallContext, connected,
    tunnel::{PlainSocket, TunnelRules, copy_both_sockets},
};
use attache_wire::Fields;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};
use tower::Service;

use super::{ListenerStack, StackCell, ask::Ask, exit::CallFailure};

/// How long a client that sends nothing is kept connected to a server that sends nothing either, as a multiple of `detect_timeout`. A
/// server that sends first has begun by then. A client that connected ahead of use would occupy a server connection for nothing.
const SILENCE: u32 = 10;

impl ListenerStack {
    async fn carry(&self, opaque: OpaqueConnection) -> OpaqueOutcome {
        let OpaqueConnection { mut io, client, exchange, silent, .. } = opaque;
        let connecting = self.connect_opaque(&client, &exchange, silent);
        let mut greeting = Vec::new();
        let bare = if silent {
            // Without a connection to the server, the client may still speak HTTP.
            let Ok(mut bare) = connecting.await else { return OpaqueOutcome::Silent(Box::new(io)) };
            tokio::select! {
                biased;
                () = io.client_speaks() => return OpaqueOutcome::Silent(Box::new(io)),
                read = bare.io.read_buf(&mut greeting) => if read.is_err() {
                    return OpaqueOutcome::Silent(Box::new(io));
                },
                () = sleep(self.listener.detect_timeout.saturating_mul(SILENCE)) => return OpaqueOutcome::Silent(Box::new(io)),
            }
            self.metrics.request_started(&exchange);
            if let Err(error) = bare.count() {
                exchange.fail(error.reason, error.detail());
                return OpaqueOutcome::Ended;
            }
            bare
        } else {
            self.metrics.request_started(&exchange);
            match connecting.await {
                Ok(bare) => bare,
                Err(failure) => {
                    exchange.fail(failure.reason, failure.detail);
                    return OpaqueOutcome::Ended;
                }
            }
        };
        let BareConnection { io: upstream, mut guard } = bare;
        exchange.time_to_head.set(Some(exchange.start.elapsed()));
        if io.write_all(&greeting).await.is_err() {
            exchange.fail(Reason::ClientClosed, "the client left before the server's first bytes");
            return OpaqueOutcome::Ended;
        }
        let rules = TunnelRules { idle: self.listener.tcp_idle_timeout, answers: greeting.is_empty() };
        let socket: fn(&ClientStream) -> Option<PlainSocket<'_>> =
            if self.listener.tcp_splice { socket } else { |_| None };
        let (received, sent) = match copy_both_sockets(io, socket, upstream, &mut guard, rules).await {
            Ok(copied) => copied,
            Err(error) => {
                let detail = std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
                exchange.fail(error.reason, detail);
                error.copied
            }
        };
        exchange.received.set(received);
        exchange.sent.set(sent + greeting.len() as u64);
        OpaqueOutcome::Ended
    }

    /// Opens the connection to the upstream of the bytes' route, through the layers that every other call passes.
    async fn connect_opaque(
        &self,
        client: &Rc<Client>,
        exchange: &Rc<Exchange>,
        silent: bool,
    ) -> Result<BareConnection, CallFailure> {
        let route = self.table.find_tcp(client).map_err(|why| {
            let is_tls = exchange.protocol == "tls" && !client.tls;
            match self.table.no_route_of_name(client) {
                Some(names) if is_tls => no_route(names),
                _ => no_route(if is_tls { TLS_TO_PLAINTEXT } else { why }),
            }
        })?;
        self.authorise_connection(client, Some(route), exchange)?;
        self.ask_about_connection(client, route, exchange).await?;
        let chosen = self.choose(&Ask::Opaque, route, &Fields::new(), exchange)?;
        // A client that may still turn out to speak HTTP is counted once, when it sends something.
        if silent && chosen.route.is_limited {
            return Err(no_route(
                "attache can't wait for a server that sends first on a route with limits or faults",
            ));
        }
        let mut context = CallContext::new(client.clone(), exchange.clone());
        context.destination = chosen.id;
        context.affinity = chosen.route.affinities.of_connection();
        context.ahead = silent;
        let mut response = chosen.route.call(Call::opaque(context)).await?;
        connected(&mut response).ok_or_else(|| Reason::InternalError.into())
    }
}

/// The error for a client that uses `https://` instead of `http://`.
const TLS_TO_PLAINTEXT: &str = "the client speaks TLS, and this listener has no certificate and no \
     route that passes TLS through: call it by `http://`, or give the listener `tls`";

fn no_route(why: impl Into<String>) -> CallFailure {
    CallFailure { detail: why.into(), ..CallFailure::from(Reason::NoRoute) }
}

/// The client's socket, if no bytes that were read from it are left in front.
fn socket(io: &ClientStream) -> Option<PlainSocket<'_>> {
    let tcp = io.as_tcp().map(PlainSocket::Tcp);
    tcp.or_else(|| io.as_unix().map(PlainSocket::Unix)).filter(|_| !io.has_unread())
}

/// The [`ListenerStack`] in the form that the listener needs for opaque connections.
#[derive(Clone)]
pub(crate) struct TcpStack(pub(crate) StackCell);

impl Service<OpaqueConnection> for TcpStack {
    type Response = OpaqueOutcome;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<OpaqueOutcome, Infallible>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, opaque: OpaqueConnection) -> Self::Future {
        let site = self.0.site();
        // One allocation per connection.
        Box::pin(async move { Ok(site.carry(opaque).await) })
    }
}
