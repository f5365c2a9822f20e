//! The admin API (15000): shows the state of the process, and changes a few things while it runs.
//!
//! It listens on loopback only, after the checks of [`guard`]. Every change needs a POST or PUT, never a GET: links, previews and probes
//! must not end a process.

mod envoy;
mod envoy_stats;

use std::{fmt, future::Future, io, pin::Pin, sync::Arc, time::SystemTime};

use attache_rpc::server::ServerSocket;
use attache_telemetry::{LogControl, Reason, Stats};
use http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    AdminState,
    answer::{AdminAnswer, READ, json as as_json, method_not_allowed, reads, text},
    dashboard, guard, probes, query,
    server::{self, AdminReply},
    tap::{self, TapLines},
};

/// The result of a reload: the page for success or for failure.
pub type Reloading = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// The proxy, as the admin API sees it. Its methods run on the control thread, so they must not block.
pub trait AdminTarget: Send + Sync {
    /// The running config, with secrets hidden.
    fn config(&self) -> Value;
    /// Every upstream with its endpoints, their health and load.
    fn upstreams(&self) -> Value;
    /// Every listener with its routes: the most specific rules first, or in the order of the file.
    fn routes(&self) -> Value;
    /// Every listener with its sockets and connections.
    fn listeners(&self) -> Value;
    /// Every certificate that attache presents.
    fn certificates(&self) -> Value;
    /// The last reloads of the config.
    fn reloads(&self) -> Value;
    /// One line for each part that works with an older state than it should, or that loses data. Calls may succeed all the same.
    fn degraded(&self) -> Vec<String> {
        Vec::new()
    }
    /// Begins draining without ending the process. It may be called several times.
    fn drain(&self);
    /// Ends the process in an orderly way. It may be called several times.
    fn quit(&self);
    /// Whether Envoy's paths are answered too.
    fn envoy_compatible(&self) -> bool {
        false
    }
    /// Reloads the config. On an error, which says what is wrong with it, the running config stays.
    fn reload(&self) -> Reloading;
}

/// What the admin API needs for its answers and its changes.
#[derive(Clone)]
pub struct AdminApi {
    /// Metrics and readiness.
    pub state: AdminState,
    /// The running log, for `/log`; `None` if another program owns it.
    pub log: Option<LogControl>,
    /// Rates and percentiles.
    pub stats: Arc<Stats>,
    /// The proxy.
    pub proxy: Arc<dyn AdminTarget>,
    /// When the process started.
    pub started: SystemTime,
}

impl fmt::Debug for AdminApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminApi").field("state", &self.state).finish_non_exhaustive()
    }
}

const INDEX: &str = "\
attache

GET  /                the dashboard, for browsers
GET  /config          the running config with all defaults; secrets are hidden
GET  /listeners       listeners with their sockets and connections
GET  /routes          routes of each listener
GET  /upstreams       upstreams with endpoints, health, limits, breaker, pool, DNS
GET  /certificates    certificates that attache presents, and when they expire
GET  /reloads         the last reloads of the config
GET  /stats.json      rates, percentiles and reasons of the last 10 s and 5 min
GET  /failures        failures by upstream and reason, and the last 100 failed exchanges, newest first
GET  /events          breakers, ejections, health, reloads, certificates, failures that began and ended: newest first
GET  /warnings        the last warnings and errors of the log, newest first
GET  /clients         clients by verified identity or address, counted from the first request for this page on
GET  /reasons         what every reason means and what to do
GET  /tap?upstream=U  exchanges when they end, one JSON line each; the keys are filters
GET  /metrics         Prometheus metrics
GET  /healthz         200 as long as the process runs
GET  /readyz          200 if attache is ready for traffic, otherwise 503 with the reasons
GET  /log             the log level
POST /log?level=L     change it: off, error, warn, info, debug, trace, or a filter like info,attache_upstream=debug
POST /reload          read the config again; an invalid one changes nothing
POST /drain           become unready, finish running work, accept no new work; the process stays
POST /quitquitquit    drain, then end the process
";

const READ_WRITE: &str = "GET, HEAD, POST, PUT";
const WRITE: &str = "POST, PUT";
/// The most failures on one page.
const FAILURES: usize = 100;
/// The most clients on one page.
const CLIENTS: usize = 200;

/// Answers the admin API on this socket until `shutdown` completes. Fails at once if the address isn't a loopback address.
pub async fn serve_api(
    socket: impl Into<ServerSocket>,
    api: AdminApi,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let socket = socket.into();
    if let Some(address) = socket.local_addr()?.filter(|address| !address.ip().is_loopback()) {
        let text =
            format!("the admin API may change things, so it listens on loopback only, not on {address}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    server::run(socket, move |request| reply(&api, request), shutdown).await;
    Ok(())
}

fn reply<B>(api: &AdminApi, request: &Request<B>) -> AdminReply {
    if let Err(why) = guard::check(request) {
        return text(StatusCode::FORBIDDEN, format!("{why}\n")).into();
    }
    let (method, path) = (request.method(), request.uri().path());
    match path {
        "/reload" if writes(method) => {
            tracing::info!("reloading the config, on a request to the admin API");
            let reloading = api.proxy.reload();
            AdminReply::Later(Box::pin(async move {
                match reloading.await {
                    Ok(said) => text(StatusCode::OK, said),
                    Err(wrong) => text(StatusCode::UNPROCESSABLE_ENTITY, wrong),
                }
            }))
        }
        "/tap" if method == Method::GET => follow(api, request.uri().query()),
        _ => answer(api, request).into(),
    }
}

fn answer<B>(api: &AdminApi, request: &Request<B>) -> AdminAnswer {
    let (method, path) = (request.method(), request.uri().path());
    if api.proxy.envoy_compatible()
        && let Some(answer) = envoy::answer(api, method, path, request.uri().query())
    {
        return answer;
    }
    match path {
        "/drain" if writes(method) => {
            tracing::info!("draining, on a request to the admin API");
            api.proxy.drain();
            text(
                StatusCode::ACCEPTED,
                "draining: no longer ready, and no new connection is accepted; running requests finish, and the process stays. \
                 `attache quit` ends it\n",
            )
        }
        "/quitquitquit" if writes(method) => {
            tracing::info!("ending, on a request to the admin API");
            api.proxy.quit();
            text(
                StatusCode::ACCEPTED,
                "ending: no new connection is accepted, running requests finish (for at most `shutdown.drain_timeout`), then the process ends\n",
            )
        }
        "/drain" | "/quitquitquit" | "/reload" => method_not_allowed(method, WRITE),
        "/log" if writes(method) => set_level(api.log.as_ref(), request.uri().query()),
        "/log" if reads(method) => match &api.log {
            Some(log) => text(StatusCode::OK, format!("{}\n", log.get())),
            None => no_log(),
        },
        "/log" => method_not_allowed(method, READ_WRITE),
        _ if !reads(method) => method_not_allowed(method, READ),
        "/" if wants_html(request) => dashboard::page(),
        "/" => text(StatusCode::OK, INDEX),
        "/config" => as_json(&api.proxy.config()),
        "/listeners" => as_json(&api.proxy.listeners()),
        "/routes" => as_json(&api.proxy.routes()),
        "/upstreams" => as_json(&api.proxy.upstreams()),
        "/certificates" => as_json(&api.proxy.certificates()),
        "/reloads" => as_json(&api.proxy.reloads()),
        "/stats.json" => as_json(&stats(api)),
        "/failures" => as_json(&failures(api)),
        "/events" => as_json(&events(api)),
        "/warnings" => match &api.log {
            Some(log) => as_json(&log.warnings().json(SystemTime::now())),
            None => no_log(),
        },
        "/clients" => as_json(&api.state.metrics.watch().clients(CLIENTS).into()),
        "/reasons" => as_json(&reasons()),
        _ => dashboard::file(path).or_else(|| probes::told(&api.state, path)).unwrap_or_else(|| {
            text(StatusCode::NOT_FOUND, format!("there is no such page. The pages are:\n\n{INDEX}"))
        }),
    }
}

/// Whether the client wants a page. Browsers ask for HTML; curl and programs accept anything.
fn wants_html<B>(request: &Request<B>) -> bool {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

pub(crate) fn writes(method: &Method) -> bool {
    method == Method::POST || method == Method::PUT
}

fn follow(api: &AdminApi, query: Option<&str>) -> AdminReply {
    let filter = match tap::filter(query) {
        Ok(filter) => filter,
        Err(wrong) => return text(StatusCode::BAD_REQUEST, format!("{wrong}\n")).into(),
    };
    match api.state.metrics.watch().tap(filter) {
        Some(tapping) => AdminReply::Stream(TapLines::new(tapping)),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "the limit of open taps is reached; end one\n").into(),
    }
}

fn stats(api: &AdminApi) -> Value {
    let mut stats = api.stats.json();
    if let Some(stats) = stats.as_object_mut() {
        let not_ready = api.state.readiness.reasons();
        stats.insert("version".into(), env!("CARGO_PKG_VERSION").into());
        stats.insert("pid".into(), std::process::id().into());
        stats.insert("uptime_seconds".into(), api.started.elapsed().unwrap_or_default().as_secs().into());
        stats.insert("not_ready".into(), not_ready.lines().collect::<Vec<_>>().into());
        stats.insert("degraded".into(), api.proxy.degraded().into());
    }
    stats
}

fn failures(api: &AdminApi) -> Value {
    let watch = api.state.metrics.watch();
    let failures: Vec<_> =
        watch.failures(FAILURES).iter().map(attache_telemetry::ExchangeRecord::json).collect();
    let now = SystemTime::now();
    // A 4xx status counts as a failure of an upstream only if the upstream answers with nothing else.
    let refusing = api.stats.client_errors();
    let is_refusing = |group: &attache_telemetry::FailureGroup| {
        group.kind.upstream.as_ref().is_some_and(|name| refusing.contains(name))
    };
    let groups = watch.groups().into_iter().chain(watch.client_errors().into_iter().filter(is_refusing));
    let groups: Vec<_> = groups.map(|group| group.json(now)).collect();
    json!({ "groups": groups, "failures": failures, "missed": watch.missed() })
}

fn events(api: &AdminApi) -> Value {
    let now = SystemTime::now();
    api.state.metrics.watch().events().iter().map(|event| event.json(now)).collect()
}

fn reasons() -> Value {
    let reason = |reason: &Reason| {
        json!({
            "reason": reason.as_str(),
            "status": reason.status().as_u16(),
            "envoy_flag": reason.envoy_flag(),
            "meaning": reason.meaning(),
            "what_to_do": reason.what_to_do(),
            "what_to_do_for_clients": reason.what_to_do_for_clients(),
        })
    };
    Reason::ALL.iter().map(reason).collect()
}

fn no_log() -> AdminAnswer {
    text(StatusCode::NOT_FOUND, "the log belongs to the program that this proxy is part of\n")
}

pub(crate) fn set_level(log: Option<&LogControl>, query: Option<&str>) -> AdminAnswer {
    let Some(log) = log else { return no_log() };
    let pairs = query::pairs(query).unwrap_or_default();
    let Some((_, level)) = pairs.iter().find(|(key, _)| key == "level") else {
        return text(StatusCode::BAD_REQUEST, "the level is missing; for example POST /log?level=debug\n");
    };
    match log.set(level) {
        Ok(()) => {
            let level = log.get();
            tracing::info!(%level, "the log level was changed by the admin API");
            text(StatusCode::OK, format!("{level}\n"))
        }
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

#[cfg(test)]
mod tests;
