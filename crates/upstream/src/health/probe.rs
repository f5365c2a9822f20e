//! One probe: its own connection, one request, one answer.

use std::{
    fmt::Display,
    future::poll_fn,
    net::SocketAddr,
    num::NonZeroU16,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use attache_config::model::{self, HealthCheck, Name, Probe, ProxyProtocolOut, UpstreamProtocol};
use attache_tls::{Connector, Credential};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, Version, header};
use http_body::{Body, Frame};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UnixStream},
    task::JoinSet,
};

use super::grpc;
use crate::{Endpoint, EndpointAddress, connect::Tls};

/// An answer to a health check is this long at most, bytes.
const LONGEST: usize = 16 << 10;

/// Why a probe failed, in words for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed(pub(super) String);

fn failed(what: &str) -> impl Fn(&dyn Display) -> Failed + '_ {
    move |why| Failed(format!("{what}: {why}"))
}

/// Asks endpoints of one upstream.
pub(super) struct Prober {
    probe: Probe,
    name: Name,
    host: Name,
    protocol: UpstreamProtocol,
    tls: Option<Connector>,
    credential: Option<Credential>,
    proxy_protocol: ProxyProtocolOut,
    /// In place of the endpoint's own.
    port: Option<NonZeroU16>,
    source: Option<std::net::IpAddr>,
}

impl Prober {
    pub(super) fn new(
        upstream: &model::Upstream,
        check: &HealthCheck,
        tls: Option<&Tls>,
        credential: Option<&Credential>,
    ) -> Self {
        let alpn: &[&[u8]] = match (&check.probe, upstream.protocol) {
            (Probe::Grpc { .. }, _) | (_, UpstreamProtocol::Http2) => &[b"h2"],
            (_, UpstreamProtocol::Auto) => &[b"h2", b"http/1.1"],
            (Probe::Http { .. }, _) | (_, UpstreamProtocol::Http1) => &[b"http/1.1"],
            (Probe::Tcp { .. }, UpstreamProtocol::Tcp) => &[],
        };
        Self {
            probe: check.probe.clone(),
            name: upstream.name.clone(),
            host: upstream.own_host(),
            protocol: upstream.protocol,
            tls: tls.filter(|_| check.tls).map(|tls| tls.connector().offering(alpn)),
            credential: credential.cloned(),
            // Another port is another server, which is told nothing of clients.
            proxy_protocol: if check.port.is_none() {
                upstream.proxy_protocol
            } else {
                ProxyProtocolOut::Off
            },
            port: check.port,
            source: upstream.source_address,
        }
    }

    pub(super) async fn probe(&self, endpoint: &Endpoint) -> Result<(), Failed> {
        match &endpoint.address {
            EndpointAddress::Tcp(address) => {
                let io = self.connect(*address).await.map_err(|e| failed("connect")(&e))?;
                self.secure(endpoint, io).await
            }
            EndpointAddress::Unix(path) => {
                let io = UnixStream::connect(path).await.map_err(|e| failed("connect")(&e))?;
                self.secure(endpoint, io).await
            }
        }
    }

    async fn connect(&self, mut address: SocketAddr) -> std::io::Result<TcpStream> {
        if let Some(port) = self.port {
            address.set_port(port.get());
        }
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = self.source.filter(|source| source.is_ipv4() == address.is_ipv4()) {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        socket.connect(address).await
    }

    async fn secure<T: Io>(&self, endpoint: &Endpoint, mut io: T) -> Result<(), Failed> {
        // A probe has no client: the header for that (proxy-protocol.txt, sections 2.1 and 2.2).
        let header: &[u8] = match self.proxy_protocol {
            ProxyProtocolOut::Off => b"",
            ProxyProtocolOut::V1 => b"PROXY UNKNOWN\r\n",
            ProxyProtocolOut::V2 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        };
        io.write_all(header).await.map_err(|e| failed("write")(&e))?;

        let Some(tls) = &self.tls else {
            let http2 = matches!(self.protocol, UpstreamProtocol::Http2);
            return self.ask(io, http2).await;
        };
        let name = match (&endpoint.host, &endpoint.address) {
            (Some(host), _) => host.to_string(),
            (None, EndpointAddress::Tcp(address)) => address.ip().to_string(),
            (None, EndpointAddress::Unix(_)) => self.name.to_string(),
        };
        let io = tls.connect(&name, io).await.map_err(|e| failed("tls")(&e))?;
        let http2 = io.get_ref().1.alpn_protocol() == Some(b"h2");
        self.ask(io, http2).await
    }

    async fn ask<T: Io>(&self, io: T, http2: bool) -> Result<(), Failed> {
        match &self.probe {
            Probe::Tcp { send, expect } => talk(io, send, expect).await,
            Probe::Http { path, host } => {
                let host = host.as_ref().unwrap_or(&self.host);
                let request = self.request(Method::GET, host, path, Bytes::new(), http2)?;
                let response = send(io, http2, request).await?.0;
                let status = response.status();
                if status.is_success() { Ok(()) } else { Err(Failed(format!("status {}", status.as_u16()))) }
            }
            Probe::Grpc { service } => {
                let path = "/grpc.health.v1.Health/Check";
                let mut request =
                    self.request(Method::POST, &self.host, path, grpc::request(service), true)?;
                let headers = request.headers_mut();
                headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
                headers.insert(header::TE, http::HeaderValue::from_static("trailers"));
                // The connection lives in the tasks until the answer was read.
                let (response, _tasks) = send(io, true, request).await?;
                serving(response).await
            }
        }
    }

    fn request(
        &self,
        method: Method,
        host: &str,
        path: &str,
        body: Bytes,
        http2: bool,
    ) -> Result<Request<Payload>, Failed> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let request = Request::builder().method(method).header(header::USER_AGENT, "attache-health");
        let request = if http2 {
            request.version(Version::HTTP_2).uri(format!("{scheme}://{host}{path}"))
        } else {
            request.header(header::HOST, host).uri(path)
        };
        let mut request = request.body(Payload(Some(body))).map_err(|e| failed("health_check")(&e))?;
        if let Some(credential) = &self.credential {
            let mut headers = attache_wire::Fields::from(request.headers());
            credential.apply(&mut headers).map_err(|e| failed("no-credential")(&e))?;
            *request.headers_mut() = headers.into();
        }
        Ok(request)
    }
}

async fn send<T: Io>(
    io: T,
    http2: bool,
    request: Request<Payload>,
) -> Result<(Response<Incoming>, JoinSet<()>), Failed> {
    // Dropped with the probe, and the connection with it.
    let mut tasks = JoinSet::new();
    let response = if http2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .map_err(|e| failed("http2")(&e))?;
        tasks.spawn(async { drop(connection.await) });
        sender.send_request(request).await
    } else {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(io)).await.map_err(|e| failed("http1")(&e))?;
        tasks.spawn(async { drop(connection.await) });
        sender.send_request(request).await
    };
    Ok((response.map_err(|e| failed("no answer")(&e))?, tasks))
}

/// Sends and reads until every expected part was found, each behind the one before (Envoy's matching of `receive`).
async fn talk<T: Io>(mut io: T, send: &[u8], expect: &[Arc<[u8]>]) -> Result<(), Failed> {
    if !send.is_empty() {
        io.write_all(send).await.map_err(|e| failed("write")(&e))?;
        io.flush().await.map_err(|e| failed("write")(&e))?;
    }
    let mut answer = BytesMut::new();
    let mut from = 0;
    for part in expect {
        from = loop {
            match found(&answer, from, part) {
                Ok(end) => break end,
                Err(next) => from = next,
            }
            if answer.len() > LONGEST {
                return Err(Failed(format!(
                    "the first {LONGEST} bytes don't have `{}`",
                    part.escape_ascii()
                )));
            }
            if io.read_buf(&mut answer).await.map_err(|e| failed("read")(&e))? == 0 {
                let got = answer.get(..answer.len().min(64)).unwrap_or_default().escape_ascii();
                return Err(Failed(format!("closed without `{}`; it said `{got}`", part.escape_ascii())));
            }
        };
    }
    Ok(())
}

/// Where `part` ends in what lies behind `from`; or else from where it is worth looking again.
fn found(answer: &[u8], from: usize, part: &[u8]) -> Result<usize, usize> {
    let rest = answer.get(from..).unwrap_or_default();
    match rest.windows(part.len().max(1)).position(|window| window == part) {
        Some(at) => Ok(from + at + part.len()),
        None => Err(from + rest.len().saturating_sub(part.len().saturating_sub(1))),
    }
}

async fn serving(response: Response<Incoming>) -> Result<(), Failed> {
    let (head, mut body) = response.into_parts();
    if !head.status.is_success() {
        return Err(Failed(format!("status {}", head.status.as_u16())));
    }
    accepted(&head.headers)?;
    let mut message = BytesMut::new();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.map_err(|e| failed("answer")(&e))?.into_data() {
            Ok(data) => message.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
        if message.len() > LONGEST {
            return Err(Failed(format!("an answer of more than {LONGEST} bytes")));
        }
    }
    accepted(&trailers)?;
    match grpc::status(&message) {
        Some(1) => Ok(()),
        Some(other) => Err(Failed(grpc::name(other).to_owned())),
        None => Err(Failed("not a grpc.health.v1 answer".to_owned())),
    }
}

/// A grpc-status other than OK, in the head or in the trailers.
fn accepted(headers: &HeaderMap) -> Result<(), Failed> {
    let text =
        |name| headers.get(name).map(|value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()));
    match text("grpc-status") {
        Some(status) if status != "0" => {
            let message = text("grpc-message").unwrap_or_default();
            Err(Failed(format!("grpc-status {status} {message}").trim_end().to_owned()))
        }
        _ => Ok(()),
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

/// A request body of one frame; the data path's is bound to its thread.
struct Payload(Option<Bytes>);

impl Body for Payload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Bytes::is_empty)
    }
}
