//! Sends finished traces to a collector: by OTLP, over HTTP or gRPC (<https://opentelemetry.io/docs/specs/otlp/>), or as Zipkin's JSON.
//!
//! Rule: nothing here is in the way of traffic. It runs on the control thread, over one connection, with one export at a time; a
//! collector that is slow or away costs spans, which are counted. What can be tried again (a connection that wasn't made, 429,
//! 502, 503, 504, gRPC's `UNAVAILABLE` and `RESOURCE_EXHAUSTED`) is tried three times in all.
//!
//! hyper is the client, as everywhere in attache: OpenTelemetry's own exporters bring another HTTP client or gRPC stack along.

use std::{fmt, future::Future, io, pin::Pin, sync::Arc, time::Duration};

use attache_config::model::{self, SpanProtocol};
use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode,
    header::{CONTENT_TYPE, HOST, TE, USER_AGENT},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    resource::v1::Resource,
};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, mpsc},
    task::spawn_local,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{convert, finished::Finished, zipkin};
use crate::{Metrics, WorkerMetrics};

/// Traces of one export.
const BATCH: usize = 512;
/// Bytes of an answer that are looked at.
const LONGEST_ANSWER: usize = 64 << 10;
/// How often an export is tried.
const TRIES: u32 = 3;
/// The first wait before another try; it doubles.
const WAIT: Duration = Duration::from_millis(500);

/// A connection to the collector.
pub trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// A connection that is being made.
pub type DialFuture = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>>>>;
/// Makes a connection to the collector, TLS included.
pub type Dial = Box<dyn Fn() -> DialFuture>;

/// The export of one config's traces.
#[derive(Debug)]
pub struct Exports {
    config: model::Tracing,
    waiting: mpsc::Receiver<Box<Finished>>,
    ending: Arc<Notify>,
    metrics: Metrics,
}

impl Exports {
    pub(super) const fn new(
        config: model::Tracing,
        waiting: mpsc::Receiver<Box<Finished>>,
        ending: Arc<Notify>,
        metrics: Metrics,
    ) -> Self {
        Self { config, waiting, ending, metrics }
    }

    #[cfg(test)]
    pub(super) const fn waiting(&mut self) -> &mut mpsc::Receiver<Box<Finished>> {
        &mut self.waiting
    }

    /// Where it goes and what it needs to get there.
    pub const fn config(&self) -> &model::Tracing {
        &self.config
    }

    /// The next trace; `None` at the end of all.
    async fn next(&mut self) -> Option<Box<Finished>> {
        tokio::select! {
            biased;
            next = self.waiting.recv() => next,
            () = self.ending.notified() => {
                self.waiting.close();
                self.waiting.recv().await
            }
        }
    }

    /// Exports until every [`Traces`](super::Traces) of the config is gone, or was told to end, and nothing waits. Within a `LocalSet` or `LocalRuntime`.
    pub async fn run(mut self, dial: Dial) {
        let resource = convert::resource(&self.config.service, &self.config.resource);
        let metrics = self.metrics.worker();
        let mut exporter =
            Exporter { config: self.config.clone(), dial, client: None, resource, failing: false, metrics };
        let mut batch = Vec::new();
        while let Some(first) = self.next().await {
            batch.push(first);
            let until = Instant::now() + exporter.config.interval;
            while batch.len() < BATCH {
                match timeout_at(until, self.next()).await {
                    Ok(Some(more)) => batch.push(more),
                    Ok(None) | Err(_) => break,
                }
            }
            exporter.export(&batch).await;
            batch.clear();
        }
    }
}

struct Exporter {
    config: model::Tracing,
    dial: Dial,
    client: Option<Client>,
    resource: Resource,
    failing: bool,
    metrics: WorkerMetrics,
}

enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// Why an export failed.
struct Failed {
    why: String,
    again: bool,
}

impl Failed {
    fn passing(why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), again: true }
    }
}

impl Exporter {
    async fn export(&mut self, batch: &[Box<Finished>]) {
        let spans: u64 = batch.iter().map(|one| one.spans()).sum();
        let body = self.encode(batch);
        let mut wait = WAIT;
        for left in (0..TRIES).rev() {
            let sent = timeout(self.config.timeout, self.send(body.clone())).await;
            let failed = match sent.unwrap_or_else(|_| Err(Failed::passing("no answer within `timeout`"))) {
                Ok(rejected) => {
                    let rejected = rejected.min(spans);
                    self.metrics.spans_exported(spans - rejected);
                    if rejected > 0 {
                        self.metrics.spans_dropped("rejected", rejected);
                    }
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("traces are exported again");
                    }
                    return;
                }
                Err(failed) => failed,
            };
            self.client = None;
            if !failed.again || left == 0 {
                self.metrics.spans_dropped("export-failed", spans);
                // Said once, not for every batch.
                if !std::mem::replace(&mut self.failing, true) {
                    let (host, port) = (&self.config.host, self.config.port);
                    tracing::warn!(collector = %format_args!("{host}:{port}"), error = failed.why, "traces can't be exported; their spans are lost until they can");
                }
                return;
            }
            sleep(wait).await;
            wait *= 2;
        }
    }

    fn encode(&self, batch: &[Box<Finished>]) -> Bytes {
        if self.config.protocol == SpanProtocol::Zipkin {
            return zipkin::encode(&self.resource, batch).into();
        }
        let request = ExportTraceServiceRequest {
            resource_spans: vec![convert::resource_spans(&self.resource, batch)],
        };
        match self.config.protocol {
            SpanProtocol::HttpProtobuf | SpanProtocol::Zipkin => request.encode_to_vec().into(),
            SpanProtocol::Grpc => {
                // "Length-Prefixed-Message" of gRPC over HTTP/2: not compressed, then the length.
                let length = request.encoded_len();
                let mut framed = BytesMut::with_capacity(length + 5);
                framed.put_u8(0);
                framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
                framed.put_slice(&request.encode_to_vec());
                framed.freeze()
            }
        }
    }

    /// How many spans the collector did not want.
    async fn send(&mut self, body: Bytes) -> Result<u64, Failed> {
        let grpc = self.config.protocol == SpanProtocol::Grpc;
        let request = self.request(body)?;
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(connect(&self.dial, grpc).await.map_err(Failed::passing)?),
        };
        let response = match client {
            Client::Http1(client) => {
                client.ready().await.map_err(Failed::passing)?;
                client.send_request(request).await
            }
            Client::Http2(client) => {
                client.ready().await.map_err(Failed::passing)?;
                client.send_request(request).await
            }
        };
        let (head, body) = response.map_err(Failed::passing)?.into_parts();
        let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(Failed::passing)?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let bytes = body.to_bytes();
        let zipkin = self.config.protocol == SpanProtocol::Zipkin;
        // Zipkin has taken them with 202.
        if zipkin && head.status.is_success() {
            return Ok(0);
        }
        if head.status != StatusCode::OK {
            let again = matches!(head.status.as_u16(), 429 | 502 | 503 | 504);
            let text = String::from_utf8_lossy(bytes.get(..200).unwrap_or(&bytes)).into_owned();
            return Err(Failed { why: format!("the collector answered {}: {text}", head.status), again });
        }
        if grpc {
            grpc_status(&head.headers, &trailers)?;
            return Ok(rejected(bytes.get(5..).unwrap_or_default()));
        }
        Ok(rejected(&bytes))
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, Failed> {
        let config = &self.config;
        let host =
            if config.host.contains(':') { format!("[{}]", config.host) } else { config.host.to_string() };
        let authority = format!("{host}:{}", config.port);
        let grpc = config.protocol == SpanProtocol::Grpc;
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let uri =
            if grpc { format!("{scheme}://{authority}{}", config.path) } else { config.path.to_string() };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() =
            uri.parse().map_err(|error| Failed { why: format!("{uri}: {error}"), again: false })?;
        let headers = request.headers_mut();
        if grpc {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(TE, HeaderValue::from_static("trailers"));
        } else {
            let zipkin = config.protocol == SpanProtocol::Zipkin;
            let kind = if zipkin { "application/json" } else { "application/x-protobuf" };
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            if let Ok(host) = HeaderValue::from_str(&authority) {
                headers.insert(HOST, host);
            }
        }
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("attache/", env!("CARGO_PKG_VERSION"))));
        headers.extend(config.headers.iter().cloned());
        Ok(request)
    }
}

fn grpc_status(head: &HeaderMap, trailers: &HeaderMap) -> Result<(), Failed> {
    let find =
        |name: &str| trailers.get(name).or_else(|| head.get(name)).and_then(|value| value.to_str().ok());
    match find("grpc-status") {
        Some("0") => Ok(()),
        status => {
            // RESOURCE_EXHAUSTED and UNAVAILABLE (OTLP specification, "Failures").
            let again = matches!(status, Some("8" | "14"));
            let status = status.unwrap_or("none");
            let message = find("grpc-message").unwrap_or_default();
            Err(Failed { why: format!("the collector answered with grpc-status {status}: {message}"), again })
        }
    }
}

/// What the collector says that it did not take ("partial success").
fn rejected(answer: &[u8]) -> u64 {
    let partial = ExportTraceServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
    partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or_default())
}

async fn connect(dial: &Dial, grpc: bool) -> io::Result<Client> {
    let io = TokioIo::new(dial().await?);
    if grpc {
        let (client, connection) = http2::handshake(Here, io).await.map_err(io::Error::other)?;
        spawn_local(async move {
            let _ = connection.await;
        });
        return Ok(Client::Http2(client));
    }
    let (client, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
    spawn_local(async move {
        let _ = connection.await;
    });
    Ok(Client::Http1(client))
}

/// hyper's tasks stay on this thread.
#[derive(Clone)]
struct Here;

impl<F: Future + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, task: F) {
        spawn_local(async move {
            task.await;
        });
    }
}
