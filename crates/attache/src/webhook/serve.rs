//! The webhook's server.

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use attache_admin::{AdminPermit, AdminPermits, Page, serve_pages};
use attache_kubernetes::{
    inject::{Settings, UNNAMED_IMAGE},
    review,
};
use attache_tls::{Acceptor, Watcher};
use clap::Args;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::LocalRuntime,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::{JoinSet, spawn_local},
    time::{sleep, timeout},
};

use super::{
    AnyError,
    metrics::{Metrics, Refused},
};
use crate::{bind, inject::SettingFlags};

/// Connections served at once.
const MOST: usize = 256;
/// Bytes of bodies that are read at once. Buffers grow by doubling, so twice that may be held; the deployment's container has 128 MiB.
const BUDGET: usize = 16 << 20;
/// Time for a handshake, for a request's head, and for its body; the API server itself waits 30 s at most.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time for what is being answered once the end has come.
const GRACE: Duration = Duration::from_secs(10);

/// The server.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Where it listens. `[::]` takes IPv4 clients, too.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:8443")]
    bind: SocketAddr,
    /// Where `/metrics`, `/healthz` and `/readyz` answer in plaintext; nowhere without it.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
    /// Certificate chain, PEM; followed as it changes.
    #[arg(long, value_name = "FILE", default_value = "/certs/tls.crt")]
    certificate: PathBuf,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", default_value = "/certs/tls.key")]
    key: PathBuf,
    /// How long it serves on after SIGTERM, until no API server asks any more.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = crate::cli::duration)]
    shutdown_delay: Duration,
    // `--log` is a setting of what is injected.
    /// The webhook's own log level.
    #[arg(long, value_name = "LEVEL", env = "ATTACHE_LOG", default_value = "info")]
    log_level: String,
    #[command(flatten)]
    settings: SettingFlags,
}

/// What every connection needs.
struct Server {
    settings: Settings,
    acceptor: Acceptor,
    metrics: Metrics,
    /// The end was asked for: `/readyz` says so, and connections end with their next answer.
    ending: Arc<AtomicBool>,
}

/// Serves until the end.
pub(super) fn run(options: &Serve) -> Result<(), AnyError> {
    let settings = options.settings.settings()?;
    let _log = attache_telemetry::init_logging(&options.log_level)?;
    if settings.has_unnamed_image() {
        tracing::warn!("{UNNAMED_IMAGE}");
    }
    let acceptor = acceptor(options)?;
    let server = Rc::new(Server { settings, acceptor, metrics: Metrics::new()?, ending: Arc::default() });
    LocalRuntime::new()?.block_on(async {
        let socket = listen("--bind", options.bind)?;
        let metrics = options.metrics.map(|address| listen("--metrics", address)).transpose()?;
        tracing::info!("the webhook answers on https://{}/mutate", socket.local_addr()?);
        let watcher = Watcher::default();
        watcher.follow(&server.acceptor);
        spawn_local(watcher.run());
        if let Some(socket) = metrics {
            tracing::info!("its metrics are on http://{}/metrics", socket.local_addr()?);
            spawn_local(serve_pages(socket, pages(&server), pending()));
        }
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let end = async {
            tokio::select! {
                _ = int.recv() => return,
                _ = term.recv() => {}
            }
            server.ending.store(true, Relaxed);
            tracing::info!("the end was asked for: serving on for {:?}", options.shutdown_delay);
            tokio::select! {
                () = sleep(options.shutdown_delay) => {}
                _ = int.recv() => {}
                _ = term.recv() => {}
            }
        };
        serve(socket, &server, end).await;
        Ok(())
    })
}

fn listen(flag: &str, address: SocketAddr) -> Result<TcpListener, AnyError> {
    let bound = if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        bind::any_family(address.port())
    } else {
        bind::listen(address)
    };
    Ok(bound.and_then(TcpListener::from_std).map_err(|error| format!("{flag} {address}: {error}"))?)
}

fn pages(server: &Server) -> impl Fn(&str) -> Option<Page> + Send + Sync + 'static {
    let (metrics, acceptor, ending) =
        (server.metrics.clone(), server.acceptor.clone(), server.ending.clone());
    move |path| match path {
        "/metrics" => Some(metrics.page(&acceptor)),
        "/readyz" if ending.load(Relaxed) => Some(page(StatusCode::SERVICE_UNAVAILABLE, "ending\n")),
        "/healthz" | "/readyz" => Some(page(StatusCode::OK, "ok\n")),
        _ => None,
    }
}

fn page(status: StatusCode, text: &str) -> Page {
    Page { status, content_type: "text/plain; charset=utf-8", text: text.to_owned() }
}

async fn serve(socket: TcpListener, server: &Rc<Server>, end: impl Future<Output = ()>) {
    let places = AdminPermits::new(MOST, BUDGET);
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut end = pin!(end);
    loop {
        let next = async {
            let (stream, client) = socket.accept().await?;
            Ok::<_, std::io::Error>((stream, places.take(Some(client.ip())).await))
        };
        tokio::select! {
            () = &mut end => break,
            next = next => match next {
                Ok((stream, place)) => {
                    connections.spawn_local(connection(stream, place, server.clone(), stopping.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            },
        }
        while connections.try_join_next().is_some() {}
    }
    drop(socket);
    stop.send_replace(true);
    let finished = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(GRACE, finished).await;
}

/// The listener's TLS, made as every listener's of attache is: the files are checked by the same rules.
fn acceptor(options: &Serve) -> Result<Acceptor, AnyError> {
    let quoted =
        |path: &Path| serde_json::Value::from(path.display().to_string()).to_string().replace('$', "$$");
    let text = format!(
        "{{listeners: {{webhook: {{bind: '{}', tls: {{certificate: {}, key: {}}}, to: none}}}}, upstreams: {{none: 'http://127.0.0.1:1'}}}}",
        options.bind,
        quoted(&options.certificate),
        quoted(&options.key)
    );
    let config = attache_config::parse(&text, None, &|_| None).map_err(|found| found.to_string())?;
    let tls = config.listeners.first().and_then(|listener| listener.tls.as_ref());
    let tls = tls.ok_or("--certificate and --key give no identity")?;
    Ok(Acceptor::new(tls, &[b"http/1.1"])?)
}

async fn connection(
    stream: TcpStream,
    place: AdminPermit,
    server: Rc<Server>,
    stopping: watch::Receiver<bool>,
) {
    let _connected = server.metrics.connected();
    tokio::select! {
        () = served(stream, &place, &server, stopping) => {}
        () = place.is_cut() => {
            server.metrics.refused(Refused::Cut);
            tracing::info!("a connection was cut, because others needed its place or its memory");
        }
    }
}

async fn served(
    stream: TcpStream,
    place: &AdminPermit,
    server: &Server,
    mut stopping: watch::Receiver<bool>,
) {
    let accepted = match timeout(TIMEOUT, server.acceptor.accept(stream)).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => {
            server.metrics.refused(Refused::Handshake);
            return tracing::info!("a handshake failed: {error}");
        }
        Err(_) => return server.metrics.refused(Refused::Handshake),
    };
    let service = service_fn(|request| async move {
        let mut response = answer(request, place, server).await;
        if server.ending.load(Relaxed) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok::<_, Infallible>(response)
    });
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(TIMEOUT)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(accepted.stream), service)
    );
    let result = tokio::select! {
        result = &mut serving => result,
        _ = stopping.wait_for(|stopping| *stopping) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection failed");
    }
}

async fn answer(request: Request<Incoming>, place: &AdminPermit, server: &Server) -> Response<String> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/mutate") => {}
        (_, "/mutate") => return said(StatusCode::METHOD_NOT_ALLOWED, "POST an AdmissionReview"),
        (&Method::GET, "/readyz") if server.ending.load(Relaxed) => {
            return said(StatusCode::SERVICE_UNAVAILABLE, "ending");
        }
        (&Method::GET, "/healthz" | "/readyz") => return said(StatusCode::OK, "ok"),
        _ => return said(StatusCode::NOT_FOUND, "there is /mutate, /healthz and /readyz"),
    }
    // The body is waited for as the head was, and an idle connection once its answer is made.
    place.waits();
    let body = timeout(TIMEOUT, body(request.into_body(), place)).await;
    let body = body
        .unwrap_or_else(|_| Err((StatusCode::REQUEST_TIMEOUT, "the body didn't come in time".to_owned())));
    let response = match body {
        Ok(body) => reviewed(&body, server),
        Err((status, why)) => {
            server.metrics.refused(Refused::Body);
            said(status, &why)
        }
    };
    place.released();
    response
}

fn reviewed(body: &[u8], server: &Server) -> Response<String> {
    let begun = Instant::now();
    match review::respond(body, &server.settings) {
        Ok(answer) => {
            tracing::info!("{}", answer.summary);
            let mut response = Response::new(answer.review.to_string());
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            server.metrics.reviewed(answer.outcome, begun.elapsed());
            response
        }
        Err(why) => {
            server.metrics.refused(Refused::NoReview);
            tracing::warn!("a request was refused: {why}");
            said(StatusCode::BAD_REQUEST, &why)
        }
    }
}

async fn body(body: Incoming, place: &AdminPermit) -> Result<Vec<u8>, (StatusCode, String)> {
    let large =
        || (StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {} MiB", review::LARGEST >> 20));
    if body.size_hint().lower() > review::LARGEST as u64 {
        return Err(large());
    }
    let mut body = pin!(body);
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let frame =
            frame.map_err(|error| (StatusCode::BAD_REQUEST, format!("the body broke off: {error}")))?;
        if let Ok(data) = frame.into_data() {
            if !place.holds(data.len()) {
                let why = "too much is being read at once: try again".to_owned();
                return Err((StatusCode::SERVICE_UNAVAILABLE, why));
            }
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > review::LARGEST {
            return Err(large());
        }
    }
    Ok(bytes)
}

fn said(status: StatusCode, text: &str) -> Response<String> {
    let mut response = Response::new(format!("{text}\n"));
    *response.status_mut() = status;
    response
}
