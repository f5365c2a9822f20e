//! Sends exports to one collector, and tries again what may be tried again.
//!
//! An export has `timeout` for all its attempts. Between two of them it waits half a second, then twice as long each time, give or take a
//! half by chance, so that many proxies don't come back at once; or as long as the collector asks for.

use std::{fmt, future::Future, io, io::Write as _, pin::Pin, time::Duration};

use attache_config::model::{Collector, ExportProtocol, OtlpCompression};
use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use http::{
    HeaderValue, Method, Request, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, TE, USER_AGENT},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::spawn_local,
    time::{Instant, sleep, timeout_at},
};

use super::refusal::{self, Refusal};

/// Bytes of a response that are read.
const LONGEST_ANSWER: usize = 64 << 10;
/// The first wait before another attempt; it doubles.
const WAIT: Duration = Duration::from_millis(500);
/// The longest of these waits.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A connection to the collector.
pub trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// A connection that is being made.
pub type DialFuture = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>>>>;
/// Makes a connection to the collector, TLS included.
pub type Dial = Box<dyn Fn() -> DialFuture>;

/// What a collector did not want of an export that it took ("partial success").
pub(crate) struct Rejected {
    /// How many items were sent.
    pub(crate) count: i64,
    /// Why, or a warning.
    pub(crate) message: String,
}

/// The way to one collector.
pub(crate) struct Exporter {
    collector: Collector,
    dial: Dial,
    /// What is sent, in the plural.
    what: &'static str,
    client: Option<Client>,
    /// The last export failed, and that was said.
    failing: bool,
    /// The collector's words about what it did not want were said.
    complained: bool,
}

enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Exporter {
    pub(crate) const fn new(collector: Collector, dial: Dial, what: &'static str) -> Self {
        Self { collector, dial, what, client: None, failing: false, complained: false }
    }

    /// Sends this message. How much of it the collector did not want; `None` if it did not come to it, which is logged
    /// once until it does again.
    pub(crate) async fn export(
        &mut self,
        message: &[u8],
        rejected: impl Fn(&[u8]) -> Option<Rejected>,
    ) -> Option<u64> {
        let body = self.encode(message);
        let deadline = Instant::now() + self.collector.timeout;
        let mut wait = WAIT;
        let refusal = loop {
            let sent = timeout_at(deadline, self.send(body.clone())).await;
            let refusal = match sent.unwrap_or_else(|_| Err(Refusal::passing("no answer within `timeout`"))) {
                Ok(answer) => return Some(self.taken(rejected(&answer))),
                Err(refusal) => refusal,
            };
            self.client = None;
            let pause = refusal.wait.unwrap_or_else(|| wait.mul_f64(0.5 + fastrand::f64()));
            if !refusal.again || Instant::now() + pause >= deadline {
                break refusal;
            }
            sleep(pause).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        };
        // Said once, not for every export.
        if !std::mem::replace(&mut self.failing, true) {
            let (host, port, what) = (&self.collector.host, self.collector.port, self.what);
            tracing::warn!(collector = %format_args!("{host}:{port}"), error = refusal.why, "{what} can't be exported; they are lost until they can");
        }
        None
    }

    fn taken(&mut self, rejected: Option<Rejected>) -> u64 {
        if std::mem::take(&mut self.failing) {
            tracing::info!("{} are exported again", self.what);
        }
        let Some(Rejected { count, message }) = rejected else {
            self.complained = false;
            return 0;
        };
        if !message.is_empty() && !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(rejected = count, message, "the collector did not want all {}", self.what);
        }
        u64::try_from(count).unwrap_or_default()
    }

    fn gzip(&self) -> bool {
        self.collector.compression == OtlpCompression::Gzip
    }

    fn encode(&self, message: &[u8]) -> Bytes {
        let packed = self.gzip().then(|| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            // A Vec takes everything.
            let _ = encoder.write_all(message);
            encoder.finish().unwrap_or_default()
        });
        let message = packed.as_deref().unwrap_or(message);
        match self.collector.protocol {
            ExportProtocol::HttpProtobuf | ExportProtocol::Zipkin => Bytes::copy_from_slice(message),
            ExportProtocol::Grpc => {
                // "Length-Prefixed-Message" of gRPC over HTTP/2: whether it is compressed, then the length.
                let mut framed = BytesMut::with_capacity(message.len() + 5);
                framed.put_u8(u8::from(self.gzip()));
                framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
                framed.put_slice(message);
                framed.freeze()
            }
        }
    }

    /// The collector's answer.
    async fn send(&mut self, body: Bytes) -> Result<Bytes, Refusal> {
        let grpc = self.collector.protocol == ExportProtocol::Grpc;
        let request = self.request(body)?;
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(connect(&self.dial, grpc).await.map_err(Refusal::passing)?),
        };
        let response = match client {
            Client::Http1(client) => {
                client.ready().await.map_err(Refusal::passing)?;
                client.send_request(request).await
            }
            Client::Http2(client) => {
                client.ready().await.map_err(Refusal::passing)?;
                client.send_request(request).await
            }
        };
        let (head, body) = response.map_err(Refusal::passing)?.into_parts();
        let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(Refusal::passing)?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let bytes = body.to_bytes();
        // Zipkin has taken them with 202.
        if self.collector.protocol == ExportProtocol::Zipkin && head.status.is_success() {
            return Ok(Bytes::new());
        }
        if head.status != StatusCode::OK {
            return Err(Refusal::http(head.status, &head.headers, &bytes));
        }
        if grpc {
            refusal::grpc(&head.headers, &trailers)?;
            return Ok(if bytes.len() < 5 { Bytes::new() } else { bytes.slice(5..) });
        }
        Ok(bytes)
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, Refusal> {
        let to = &self.collector;
        let host = if to.host.contains(':') { format!("[{}]", to.host) } else { to.host.to_string() };
        let authority = format!("{host}:{}", to.port);
        let grpc = to.protocol == ExportProtocol::Grpc;
        let scheme = if to.tls.is_some() { "https" } else { "http" };
        let uri = if grpc { format!("{scheme}://{authority}{}", to.path) } else { to.path.to_string() };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.parse().map_err(|error| Refusal::lasting(format!("{uri}: {error}")))?;
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
