//! The webhook's server.

use std::{
    convert::Infallible,
    future::pending,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use attache_admin::{AdminPage, serve_pages};
use attache_kubernetes::{
    inject::{InjectionSettings, UNNAMED_IMAGE},
    review,
};
use attache_rpc::{
    Io,
    server::{self, ConnectionEvent, Incoming, ServerConnectionPermit, ServerLimits, read_body},
};
use attache_tls::{Acceptor, FileWatcher};
use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tokio::{
    net::TcpListener,
    runtime::LocalRuntime,
    signal::unix::{SignalKind, signal},
    task::spawn_local,
    time::sleep,
};

use super::metrics::{ReviewRefused, WebhookMetrics};
use crate::{bind, error::AnyError, inject::SettingFlags};

/// The time for a handshake, for a request's head, and for its body. The API server itself waits 30 s at most.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Buffers grow by doubling, so twice the bytes of all bodies may be held; the deployment's container has 128 MiB. The API server keeps its
/// connections open.
const LIMITS: ServerLimits = ServerLimits {
    connections: 256,
    bodies: 16 << 20,
    handshake: TIMEOUT,
    head_time: TIMEOUT,
    head: 64 << 10,
    connection_time: None,
    keep_alive: true,
    grace: Some(Duration::from_secs(10)),
};

/// The server.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Address to listen on. `[::]` also accepts IPv4 clients.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:8443")]
    bind: SocketAddr,
    /// Address of `/metrics`, `/healthz` and `/readyz`, in plaintext. Default: none.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
    /// Certificate chain, PEM. Changes of the file are followed.
    #[arg(long, value_name = "FILE", default_value = "/certs/tls.crt")]
    certificate: PathBuf,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", default_value = "/certs/tls.key")]
    key: PathBuf,
    /// How long it continues to serve after SIGTERM, until API servers send no more reviews.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = crate::cli::duration)]
    shutdown_delay: Duration,
    // `--log` is a setting for the injected attache.
    /// The webhook's own log level.
    #[arg(long, value_name = "LEVEL", env = "ATTACHE_LOG", default_value = "info")]
    log_level: String,
    #[command(flatten)]
    settings: SettingFlags,
}

/// What every connection needs.
struct ReviewServer {
    settings: InjectionSettings,
    acceptor: Acceptor,
    metrics: WebhookMetrics,
    /// The end was requested: `/readyz` says so, and connections end with their next answer.
    ending: Arc<AtomicBool>,
}

/// Serves until the end.
pub(super) fn run(options: &ServeArgs) -> Result<(), AnyError> {
    let settings = options.settings.settings()?;
    let _log = attache_telemetry::init_logging(&options.log_level)?;
    if settings.has_unnamed_image() {
        tracing::warn!("{UNNAMED_IMAGE}");
    }
    let acceptor = acceptor(options)?;
    let webhook = Arc::new(ReviewServer {
        settings,
        acceptor,
        metrics: WebhookMetrics::new()?,
        ending: Arc::default(),
    });
    LocalRuntime::new()?.block_on(async {
        let socket = listen("--bind", options.bind)?;
        let metrics = options.metrics.map(|address| listen("--metrics", address)).transpose()?;
        tracing::info!("the webhook answers on https://{}/mutate", socket.local_addr()?);
        let watcher = FileWatcher::default();
        watcher.follow(&webhook.acceptor);
        spawn_local(watcher.run(sleep));
        if let Some(socket) = metrics {
            tracing::info!("its metrics are on http://{}/metrics", socket.local_addr()?);
            spawn_local(serve_pages(socket, pages(&webhook), pending()));
        }
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let end = async {
            tokio::select! {
                _ = int.recv() => return,
                _ = term.recv() => {}
            }
            webhook.ending.store(true, Relaxed);
            tracing::info!("the end was requested: serving for another {:?}", options.shutdown_delay);
            tokio::select! {
                () = sleep(options.shutdown_delay) => {}
                _ = int.recv() => {}
                _ = term.recv() => {}
            }
        };
        serve(socket, &webhook, end).await;
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

fn pages(webhook: &ReviewServer) -> impl Fn(&str) -> Option<AdminPage> + Send + Sync + 'static {
    let (metrics, acceptor, ending) =
        (webhook.metrics.clone(), webhook.acceptor.clone(), webhook.ending.clone());
    move |path| match path {
        "/metrics" => Some(metrics.page(&acceptor)),
        "/readyz" if ending.load(Relaxed) => Some(page(StatusCode::SERVICE_UNAVAILABLE, "ending\n")),
        "/healthz" | "/readyz" => Some(page(StatusCode::OK, "ok\n")),
        _ => None,
    }
}

fn page(status: StatusCode, text: &str) -> AdminPage {
    AdminPage { status, content_type: "text/plain; charset=utf-8", text: text.to_owned() }
}

async fn serve(socket: TcpListener, webhook: &Arc<ReviewServer>, end: impl Future<Output = ()>) {
    let (acceptor, metrics, answering) = (webhook.acceptor.clone(), webhook.metrics.clone(), webhook.clone());
    let server = server::RpcServer::new("webhook", LIMITS)
        .with_handshake(move |io| {
            let acceptor = acceptor.clone();
            async move {
                let accepted = acceptor.accept(io).await.map_err(|error| error.to_string())?;
                Ok(Box::new(accepted.stream) as Box<dyn Io>)
            }
        })
        .with_observer(move |event| match event {
            ConnectionEvent::Opened => metrics.opened(),
            ConnectionEvent::HandshakeFailed => metrics.refused(ReviewRefused::Handshake),
            ConnectionEvent::Evicted => {
                metrics.refused(ReviewRefused::Cut);
                tracing::info!("a connection was closed, because others needed its permit or its memory");
            }
            ConnectionEvent::TooSlow => {}
            ConnectionEvent::Closed => metrics.closed(),
        });
    let answer = move |request, permit: Arc<ServerConnectionPermit>| {
        let webhook = answering.clone();
        async move {
            let mut response = answer(request, &permit, &webhook).await;
            // After the end was requested, connections end with their next answer.
            if webhook.ending.load(Relaxed) {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response.map(|text| Full::new(Bytes::from(text))))
        }
    };
    server.run(socket, answer, end).await;
}

/// The TLS of the listener is made like that of every listener of attache: the files are checked by the same rules.
fn acceptor(options: &ServeArgs) -> Result<Acceptor, AnyError> {
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

async fn answer(
    request: Request<Incoming>,
    permit: &ServerConnectionPermit,
    webhook: &ReviewServer,
) -> Response<String> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/mutate") => {}
        (_, "/mutate") => return plain(StatusCode::METHOD_NOT_ALLOWED, "POST an AdmissionReview"),
        (&Method::GET, "/readyz") if webhook.ending.load(Relaxed) => {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "ending");
        }
        (&Method::GET, "/healthz" | "/readyz") => return plain(StatusCode::OK, "ok"),
        _ => return plain(StatusCode::NOT_FOUND, "the paths are /mutate, /healthz and /readyz"),
    }
    let body = read_body(request.into_body(), permit, review::MAX_REVIEW_BYTES, TIMEOUT).await;
    let response = match body {
        Ok(body) => reviewed(&body, webhook),
        Err(error) => {
            webhook.metrics.refused(ReviewRefused::Body);
            plain(error.status(), &error.to_string())
        }
    };
    permit.release();
    response
}

fn reviewed(body: &[u8], webhook: &ReviewServer) -> Response<String> {
    let begun = Instant::now();
    match review::respond(body, &webhook.settings) {
        Ok(answer) => {
            tracing::info!("{}", answer.summary);
            let mut response = Response::new(answer.review.to_string());
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            webhook.metrics.reviewed(answer.outcome, begun.elapsed());
            response
        }
        Err(why) => {
            webhook.metrics.refused(ReviewRefused::NoReview);
            tracing::warn!("a request was refused: {why}");
            plain(StatusCode::BAD_REQUEST, &why)
        }
    }
}

fn plain(status: StatusCode, text: &str) -> Response<String> {
    let mut response = Response::new(format!("{text}\n"));
    *response.status_mut() = status;
    response
}
