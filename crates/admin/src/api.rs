//! The admin API (15000): what is going on, and the few things that can be changed while running.
//!
//! Loopback only, and behind the checks of [`guard`]. What changes something is a POST or PUT, never a GET: links, previews and
//! probes must not end a process.

use std::{fmt, future::Future, io, sync::Arc};

use attache_telemetry::LogControl;
use http::{Method, Request, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::{
    AdminState,
    answer::{Answer, READ, json, method_not_allowed, reads, text},
    guard, probes, server,
};

/// What the admin API answers from and what it may do. The closures run on the control thread and must not block.
#[derive(Clone)]
pub struct Api {
    /// Metrics and readiness.
    pub state: AdminState,
    /// The running log, for `/log`.
    pub log: LogControl,
    /// The config that is served, secrets hidden.
    pub config: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Every upstream with its endpoints and their health and load.
    pub upstreams: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Begins draining; called once or more.
    pub drain: Arc<dyn Fn() + Send + Sync>,
    /// Ends the process in an orderly way; called once or more.
    pub quit: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("state", &self.state).finish_non_exhaustive()
    }
}

const INDEX: &str = "\
attache

GET  /config         the config that is served, secrets hidden
GET  /upstreams      upstreams with their endpoints
GET  /metrics        Prometheus metrics
GET  /healthz        200 while the process lives
GET  /readyz         200 when it may be sent work, 503 with the reasons otherwise
GET  /log            the log level
POST /log?level=L    change it: off, error, warn, info, debug, trace, or a filter like info,attache_upstream=debug
POST /drain          no longer ready; finish what runs, take no new work
POST /quitquitquit   drain, then end the process
";

const READ_WRITE: &str = "GET, HEAD, POST, PUT";
const WRITE: &str = "POST, PUT";

/// Answers the admin API on this socket until `shutdown` is done. Fails at once if the socket isn't a loopback one.
pub async fn serve_api(socket: TcpListener, api: Api, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let address = socket.local_addr()?;
    if !address.ip().is_loopback() {
        let text =
            format!("the admin API may change things, so it listens on loopback only, not on {address}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    server::run(socket, move |request| std::future::ready(answer(&api, request)), shutdown).await;
    Ok(())
}

fn answer<B>(api: &Api, request: &Request<B>) -> Answer {
    if let Err(why) = guard::check(request) {
        return text(StatusCode::FORBIDDEN, format!("{why}\n"));
    }
    let (method, path) = (request.method(), request.uri().path());
    match path {
        "/drain" if writes(method) => {
            tracing::info!("draining, as the admin API was asked to");
            (api.drain)();
            text(StatusCode::ACCEPTED, "draining\n")
        }
        "/quitquitquit" if writes(method) => {
            tracing::info!("ending, as the admin API was asked to");
            (api.quit)();
            text(StatusCode::ACCEPTED, "ending\n")
        }
        "/drain" | "/quitquitquit" => method_not_allowed(method, WRITE),
        "/log" if writes(method) => set_level(&api.log, request.uri().query()),
        "/log" if reads(method) => text(StatusCode::OK, format!("{}\n", api.log.get())),
        "/log" => method_not_allowed(method, READ_WRITE),
        "/" | "/config" | "/upstreams" | "/metrics" | "/healthz" | "/readyz" if !reads(method) => {
            method_not_allowed(method, READ)
        }
        "/" => text(StatusCode::OK, INDEX),
        "/config" => json(&(api.config)()),
        "/upstreams" => json(&(api.upstreams)()),
        _ => probes::told(&api.state, path).unwrap_or_else(|| {
            text(StatusCode::NOT_FOUND, format!("nothing is here. What there is:\n\n{INDEX}"))
        }),
    }
}

fn writes(method: &Method) -> bool {
    method == Method::POST || method == Method::PUT
}

fn set_level(log: &LogControl, query: Option<&str>) -> Answer {
    let level = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("level=")));
    let Some(level) = level.and_then(percent_decoded) else {
        return text(StatusCode::BAD_REQUEST, "say which level, as in POST /log?level=debug\n");
    };
    match log.set(&level) {
        Ok(()) => {
            let level = log.get();
            tracing::info!(%level, "the log level was changed by the admin API");
            text(StatusCode::OK, format!("{level}\n"))
        }
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

/// `%2C` becomes `,` (RFC 3986 section 2.1); none if an escape is broken or the result isn't UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            u8::try_from(digit(bytes.next())? * 16 + digit(bytes.next())?).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests;
