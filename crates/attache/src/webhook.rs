//! `attache webhook`: the admission webhook's server, its certificates and its registration.
//!
//! What it answers is [`attache_kubernetes::review`]'s. Here it is served over TLS: certificate and key are followed as their files change, so that
//! whoever renews them (cert-manager, `attache webhook certificates`, a Secret) needs no restart. Everything that a client may send is
//! bounded in size and time.

mod certificates;

use std::{
    convert::Infallible,
    fs,
    future::poll_fn,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::pin,
    rc::Rc,
    time::Duration,
};

use attache_kubernetes::{
    inject::Settings,
    manifest::{self, Trust},
    review,
};
use attache_tls::{Acceptor, Watcher};
use clap::{Args, Subcommand};
use http::{Method, Request, Response, StatusCode, header};
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

use crate::inject::SettingFlags;

type AnyError = Box<dyn std::error::Error>;

/// Connections served at once; more wait in the kernel's queue.
const MOST: usize = 256;
/// Time for a handshake, for a request's head, and for its body; the API server itself waits 30 s at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for what is being answered once the end was asked for.
const GRACE: Duration = Duration::from_secs(10);

/// `attache webhook`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Webhook {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a certificate authority of its own, and a certificate for the webhook's Service; again: renew the certificate.
    Certificates(Certificates),
    /// Print the MutatingWebhookConfiguration that tells the API server of the webhook.
    Manifest(Manifest),
}

/// The server.
#[derive(Debug, Args)]
struct Serve {
    /// Where it listens.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8443")]
    bind: SocketAddr,
    /// Certificate chain, PEM; followed as it changes.
    #[arg(long, value_name = "FILE", default_value = "/certs/tls.crt")]
    certificate: PathBuf,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", default_value = "/certs/tls.key")]
    key: PathBuf,
    // `--log` is a setting of what is injected.
    /// The webhook's own log level.
    #[arg(long, value_name = "LEVEL", env = "ATTACHE_LOG", default_value = "info")]
    log_level: String,
    #[command(flatten)]
    settings: SettingFlags,
}

/// Which Service.
#[derive(Debug, Args)]
struct Service {
    /// Name of the webhook's Service.
    #[arg(long, value_name = "NAME", default_value = "attache-webhook")]
    service: String,
    /// Its namespace.
    #[arg(long, value_name = "NAMESPACE", default_value = "attache")]
    namespace: String,
}

/// `attache webhook certificates`
#[derive(Debug, Args)]
struct Certificates {
    /// Folder for ca.crt, ca.key, tls.crt and tls.key.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    #[command(flatten)]
    service: Service,
    /// Days that the certificate is valid.
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..))]
    days: u16,
}

/// `attache webhook manifest`
#[derive(Debug, Args)]
struct Manifest {
    #[command(flatten)]
    service: Service,
    /// The certificate authority that vouches for the webhook, PEM.
    #[arg(long, value_name = "FILE", required_unless_present = "cert_manager")]
    ca: Option<PathBuf>,
    /// cert-manager puts the authority in: its Certificate.
    #[arg(long, value_name = "NAMESPACE/NAME", conflicts_with = "ca")]
    cert_manager: Option<String>,
    /// While the webhook can't be asked, no pods are created (instead of pods without attache).
    #[arg(long)]
    fail: bool,
    /// Every namespace but those that opt out (instead of only those that opt in).
    #[arg(long)]
    every_namespace: bool,
}

/// Runs the command.
pub(crate) fn run(options: &Webhook) -> Result<(), AnyError> {
    match &options.command {
        None => serve(&options.serve),
        Some(Command::Certificates(options)) => {
            let Service { service, namespace } = &options.service;
            let said = certificates::write(&options.folder, service, namespace, options.days)?;
            Ok(writeln!(io::stderr(), "{said}")?)
        }
        Some(Command::Manifest(options)) => {
            let trust = match (&options.ca, &options.cert_manager) {
                (Some(file), _) => Trust::Bundle(authority(file)?),
                (None, Some(certificate)) => Trust::CertManager(certificate.clone()),
                (None, None) => return Err("--ca or --cert-manager says who vouches for the webhook".into()),
            };
            let webhook = manifest::Webhook {
                service: options.service.service.clone(),
                namespace: options.service.namespace.clone(),
                trust,
                fail: options.fail,
                every_namespace: options.every_namespace,
            };
            Ok(io::stdout().write_all(webhook.configuration().as_bytes())?)
        }
    }
}

/// A PEM file; one with a key in it must not be published.
fn authority(file: &Path) -> Result<String, AnyError> {
    let pem = fs::read_to_string(file).map_err(|error| format!("--ca {}: {error}", file.display()))?;
    if !pem.contains("-----BEGIN CERTIFICATE-----") || pem.contains("PRIVATE KEY") {
        return Err(
            format!("--ca {}: that isn't a certificate in PEM and nothing else", file.display()).into()
        );
    }
    Ok(pem)
}

fn serve(options: &Serve) -> Result<(), AnyError> {
    let settings = Rc::new(options.settings.settings()?);
    let _log = attache_telemetry::init_logging(&options.log_level)?;
    let acceptor = acceptor(options)?;
    LocalRuntime::new()?.block_on(async {
        let socket = TcpListener::bind(options.bind)
            .await
            .map_err(|error| format!("--bind {}: {error}", options.bind))?;
        tracing::info!("the webhook answers on https://{}/mutate", socket.local_addr()?);
        let watcher = Watcher::default();
        watcher.follow(&acceptor);
        spawn_local(watcher.run());
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (end, ending) = watch::channel(false);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                accepted = socket.accept(), if connections.len() < MOST => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn_local(connection(stream, acceptor.clone(), settings.clone(), ending.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(socket);
        end.send_replace(true);
        let finished = async { while connections.join_next().await.is_some() {} };
        let _ = timeout(GRACE, finished).await;
        Ok(())
    })
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
    acceptor: Acceptor,
    settings: Rc<Settings>,
    mut ending: watch::Receiver<bool>,
) {
    let accepted = match timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => return tracing::info!("a handshake failed: {error}"),
        Err(_) => return,
    };
    let service = service_fn(|request| {
        let settings = settings.clone();
        async move { Ok::<_, Infallible>(answer(request, &settings).await) }
    });
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(accepted.stream), service)
    );
    let result = tokio::select! {
        result = &mut serving => result,
        _ = ending.wait_for(|ending| *ending) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection failed");
    }
}

async fn answer(request: Request<Incoming>, settings: &Settings) -> Response<String> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/mutate") => {}
        (_, "/mutate") => return said(StatusCode::METHOD_NOT_ALLOWED, "POST an AdmissionReview"),
        (&Method::GET, "/healthz" | "/readyz") => return said(StatusCode::OK, "ok"),
        _ => return said(StatusCode::NOT_FOUND, "there is /mutate, /healthz and /readyz"),
    }
    let body = match timeout(PATIENCE, body(request.into_body())).await {
        Ok(Ok(body)) => body,
        Ok(Err((status, why))) => return said(status, &why),
        Err(_) => return said(StatusCode::REQUEST_TIMEOUT, "the body didn't come in time"),
    };
    match review::respond(&body, settings) {
        Ok(answer) => {
            tracing::info!("{}", answer.summary);
            let mut response = Response::new(answer.review.to_string());
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
            response
        }
        Err(why) => {
            tracing::warn!("a request was refused: {why}");
            said(StatusCode::BAD_REQUEST, &why)
        }
    }
}

async fn body(body: Incoming) -> Result<Vec<u8>, (StatusCode, String)> {
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
