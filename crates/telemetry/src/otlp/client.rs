//! Sends exports to one collector, and repeats them if that is allowed and may help.
//!
//! An export has `timeout` for all its attempts. Between two attempts it waits half a second, then twice as long each time. Each wait
//! varies randomly by a half, so that many proxies don't return at the same moment. If the collector asks for a certain wait, that is used
//! instead.

use std::{fmt, future::Future, io, io::Write as _, pin::Pin, time::Duration};

use attache_config::model::{Collector, ExportProtocol, OtlpCompression};
use attache_rpc::{
    Io,
    client::{self, CallLimits, CallProtocol, OpenedConnection, RpcConnection},
    grpc::{self, MessageDecoder},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{
    HeaderValue, Method, Request, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, TE, USER_AGENT},
};
use http_body_util::Full;
use tokio::time::{Instant, sleep, timeout_at};

use super::refusal::{self, ExportFailure};

/// The most bytes of a response that are read.
const MAX_RESPONSE_BYTES: usize = 64 << 10;
/// The first wait before another attempt; it doubles.
const WAIT: Duration = Duration::from_millis(500);
/// The longest of these waits.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// A connection that is being opened.
pub type DialFuture = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>>>>;
/// Opens a connection to the collector, with TLS.
pub type Dial = Box<dyn Fn() -> DialFuture>;

/// What a collector rejected of an export that it accepted ("partial success").
pub(crate) struct PartialSuccess {
    /// How many items were sent.
    pub(crate) count: i64,
    /// Why, or a warning.
    pub(crate) message: String,
}

/// Exports to one collector.
pub(crate) struct Exporter {
    collector: Collector,
    dial: Dial,
    /// The name of the exported items, in the plural.
    what: &'static str,
    client: Option<RpcConnection>,
    /// The last export failed, and this was logged.
    failing: bool,
    /// The collector's message about rejected items was logged.
    complained: bool,
}

impl Exporter {
    pub(crate) const fn new(collector: Collector, dial: Dial, what: &'static str) -> Self {
        Self { collector, dial, what, client: None, failing: false, complained: false }
    }

    /// Sends this message. Returns how many items the collector rejected. `None` if the export failed; that is logged once, until an export
    /// succeeds again.
    pub(crate) async fn export(
        &mut self,
        message: &[u8],
        rejected: impl Fn(&[u8]) -> Option<PartialSuccess>,
    ) -> Option<u64> {
        let body = self.encode(message);
        let deadline = Instant::now() + self.collector.timeout;
        let mut wait = WAIT;
        let refusal = loop {
            let sent = timeout_at(deadline, self.send(body.clone())).await;
            let refusal =
                match sent.unwrap_or_else(|_| Err(ExportFailure::passing("no answer within `timeout`"))) {
                    Ok(answer) => return Some(self.taken(rejected(&answer))),
                    Err(refusal) => refusal,
                };
            self.client = None;
            let pause = refusal.wait.unwrap_or_else(|| wait.mul_f64(0.5 + fastrand::f64()));
            if !refusal.again || Instant::now() + pause >= deadline {
                break refusal;
            }
            sleep(pause).await;
            wait = (wait * 2).min(MAX_WAIT);
        };
        // This is logged once, and not for every export.
        if !std::mem::replace(&mut self.failing, true) {
            let (host, port, what) = (&self.collector.host, self.collector.port, self.what);
            tracing::warn!(collector = %format_args!("{host}:{port}"), error = refusal.why, "{what} can't be exported; they are lost until this works again");
        }
        None
    }

    fn taken(&mut self, rejected: Option<PartialSuccess>) -> u64 {
        if std::mem::take(&mut self.failing) {
            tracing::info!("{} are exported again", self.what);
        }
        let Some(PartialSuccess { count, message }) = rejected else {
            self.complained = false;
            return 0;
        };
        if !message.is_empty() && !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(rejected = count, message, "the collector rejected some {}", self.what);
        }
        u64::try_from(count).unwrap_or_default()
    }

    fn gzip(&self) -> bool {
        self.collector.compression == OtlpCompression::Gzip
    }

    fn encode(&self, message: &[u8]) -> Bytes {
        let packed = self.gzip().then(|| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            // Writing to a Vec never fails.
            let _ = encoder.write_all(message);
            encoder.finish().unwrap_or_default()
        });
        let message = packed.as_deref().unwrap_or(message);
        match self.collector.protocol {
            ExportProtocol::HttpProtobuf | ExportProtocol::Zipkin => Bytes::copy_from_slice(message),
            ExportProtocol::Grpc => grpc::frame(message, self.gzip()),
        }
    }

    /// Sends the body and returns the collector's response.
    async fn send(&mut self, body: Bytes) -> Result<Bytes, ExportFailure> {
        let grpc = self.collector.protocol == ExportProtocol::Grpc;
        let request = self.request(body)?;
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(connect(&self.dial, &self.collector).await.map_err(ExportFailure::passing)?),
        };
        let answer = client.call(request).await.map_err(ExportFailure::passing)?;
        // Zipkin accepts spans with status 202.
        if self.collector.protocol == ExportProtocol::Zipkin && answer.status.is_success() {
            return Ok(Bytes::new());
        }
        if answer.status != StatusCode::OK {
            return Err(ExportFailure::http(answer.status, &answer.headers, &answer.body));
        }
        if grpc {
            refusal::grpc(&answer.headers, &answer.trailers)?;
            // The collector has accepted the export. It may leave out the message if there is nothing to say.
            let mut frames = MessageDecoder::new(MAX_RESPONSE_BYTES);
            frames.push(&answer.body);
            return Ok(frames.next().ok().flatten().unwrap_or_default());
        }
        Ok(answer.body)
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, ExportFailure> {
        let to = &self.collector;
        let host = if to.host.contains(':') { format!("[{}]", to.host) } else { to.host.to_string() };
        let authority = format!("{host}:{}", to.port);
        let grpc = to.protocol == ExportProtocol::Grpc;
        let scheme = if to.tls.is_some() { "https" } else { "http" };
        let uri = if grpc { format!("{scheme}://{authority}{}", to.path) } else { to.path.to_string() };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() =
            uri.parse().map_err(|error| ExportFailure::lasting(format!("{uri}: {error}")))?;
        let headers = request.headers_mut();
        let gzip = HeaderValue::from_static("gzip");
        if grpc {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(TE, HeaderValue::from_static("trailers"));
            if self.gzip() {
                headers.insert("grpc-encoding", gzip);
            }
        } else {
            let zipkin = to.protocol == ExportProtocol::Zipkin;
            let kind = if zipkin { "application/json" } else { "application/x-protobuf" };
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            if let Ok(host) = HeaderValue::from_str(&authority) {
                headers.insert(HOST, host);
            }
            if self.gzip() {
                headers.insert(CONTENT_ENCODING, gzip);
            }
        }
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("attache/", env!("CARGO_PKG_VERSION"))));
        headers.extend(to.headers.iter().cloned());
        Ok(request)
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exporter({})", self.what)
    }
}

async fn connect(dial: &Dial, collector: &Collector) -> Result<RpcConnection, client::Error> {
    let protocol = match collector.protocol {
        ExportProtocol::Grpc => CallProtocol::Http2,
        ExportProtocol::HttpProtobuf | ExportProtocol::Zipkin => CallProtocol::Http1,
    };
    // The caller's deadline for all attempts may end this call earlier.
    let within = collector.timeout;
    let bounds =
        CallLimits { connect: within, total: within, body: MAX_RESPONSE_BYTES, ..CallLimits::default() };
    let dialled = async { Ok(OpenedConnection { io: dial().await?, protocol }) };
    RpcConnection::connect(dialled, bounds).await
}
