//! One probe: its own connection, one request, one answer.

use std::{
    fmt::Display,
    future::{Ready, ready},
    net::IpAddr,
    num::NonZeroU16,
    sync::Arc,
    time::Duration,
};

use attache_config::model::{self, HealthCheck, HealthCheckKind, Name, ProxyProtocolOut, UpstreamProtocol};
use attache_rpc::{
    Io,
    client::{self, CallLimits, CallProtocol, DialError, OpenedConnection},
    grpc::health,
};
use attache_tls::{Connector, CredentialHeader};
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Version, header};
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{
    Endpoint, EndpointAddress,
    connect::{Tls, connect_tcp, proxy_header},
};

/// The most bytes of an answer to a health check.
const MAX_ANSWER_BYTES: usize = 16 << 10;

/// Why a probe failed, in words for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HealthCheckFailure(pub(super) String);

impl From<client::Error> for HealthCheckFailure {
    fn from(error: client::Error) -> Self {
        Self(format!("no answer: {error}"))
    }
}

fn failed(what: &str) -> impl Fn(&dyn Display) -> HealthCheckFailure + '_ {
    move |why| HealthCheckFailure(format!("{what}: {why}"))
}

/// Asks endpoints of one upstream.
pub(super) struct Prober {
    probe: HealthCheckKind,
    name: Name,
    host: Name,
    protocol: UpstreamProtocol,
    tls: Option<Connector>,
    credential: Option<CredentialHeader>,
    proxy_protocol: ProxyProtocolOut,
    /// The port to probe, in place of the endpoint's own.
    port: Option<NonZeroU16>,
    source: Option<IpAddr>,
    bounds: CallLimits,
}

impl Prober {
    pub(super) fn new(
        upstream: &model::Upstream,
        check: &HealthCheck,
        tls: Option<&Tls>,
        credential: Option<&CredentialHeader>,
    ) -> Self {
        let alpn: &[&[u8]] = match (&check.probe, upstream.protocol) {
            (HealthCheckKind::Grpc { .. }, _) | (_, UpstreamProtocol::Http2) => &[b"h2"],
            (_, UpstreamProtocol::Auto) => &[b"h2", b"http/1.1"],
            (HealthCheckKind::Http { .. }, _) | (_, UpstreamProtocol::Http1) => &[b"http/1.1"],
            (HealthCheckKind::Tcp { .. }, UpstreamProtocol::Tcp) => &[],
        };
        Self {
            probe: check.probe.clone(),
            name: upstream.name.clone(),
            host: upstream.own_host(),
            protocol: upstream.protocol,
            tls: tls.filter(|_| check.tls).map(|tls| tls.connector().offering(alpn)),
            credential: credential.cloned(),
            // Another port may be another server, so it gets no PROXY protocol header.
            proxy_protocol: if check.port.is_none() {
                upstream.proxy_protocol
            } else {
                ProxyProtocolOut::Off
            },
            port: check.port,
            source: upstream.source_address,
            // One timeout for all of a probe.
            bounds: CallLimits {
                connect: check.timeout,
                total: check.timeout,
                body: MAX_ANSWER_BYTES,
                ..CallLimits::default()
            },
        }
    }

    pub(super) async fn probe(&self, endpoint: &Endpoint) -> Result<(), HealthCheckFailure> {
        match &endpoint.address {
            EndpointAddress::Tcp(address) => {
                let mut address = *address;
                if let Some(port) = self.port {
                    address.set_port(port.get());
                }
                let connected = connect_tcp(address, self.source, Duration::ZERO).await;
                let io = connected.map_err(|e| failed("connect")(&e))?;
                self.secure(endpoint, io).await
            }
            EndpointAddress::Unix(path) => {
                let io = UnixStream::connect(path).await.map_err(|e| failed("connect")(&e))?;
                self.secure(endpoint, io).await
            }
        }
    }

    async fn secure<T: Io + 'static>(
        &self,
        endpoint: &Endpoint,
        mut io: T,
    ) -> Result<(), HealthCheckFailure> {
        // A probe has no client, and the header says so.
        let header = proxy_header(self.proxy_protocol, None);
        io.write_all(&header).await.map_err(|e| failed("write")(&e))?;

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

    async fn ask<T: Io + 'static>(&self, io: T, http2: bool) -> Result<(), HealthCheckFailure> {
        match &self.probe {
            HealthCheckKind::Tcp { send, expect } => talk(io, send, expect).await,
            HealthCheckKind::Http { path, host } => {
                let host = host.as_ref().unwrap_or(&self.host);
                let request = if http2 {
                    Request::get(format!("{}{path}", self.base(host))).version(Version::HTTP_2)
                } else {
                    Request::get(&**path).header(header::HOST, &**host)
                };
                let request = request.body(Full::default()).map_err(|e| failed("health_check")(&e))?;
                // Only the response's head decides.
                let response = client::stream(dialled(io, http2), self.own(request)?, self.bounds).await?;
                let status = response.status;
                if status.is_success() {
                    Ok(())
                } else {
                    Err(HealthCheckFailure(format!("status {}", status.as_u16())))
                }
            }
            HealthCheckKind::Grpc { service } => {
                let request = health::check(&self.base(&self.host), service);
                let request = self.own(request.map_err(|e| failed("health_check")(&e))?)?;
                health::verdict(&client::call(dialled(io, true), request, self.bounds).await?)
                    .map_err(HealthCheckFailure)
            }
        }
    }

    fn base(&self, host: &str) -> String {
        format!("http{}://{host}", if self.tls.is_some() { "s" } else { "" })
    }

    /// Adds the headers of every probe.
    fn own(&self, mut request: Request<Full<Bytes>>) -> Result<Request<Full<Bytes>>, HealthCheckFailure> {
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, HeaderValue::from_static("attache-health"));
        if let Some(credential) = &self.credential {
            let mut fields = attache_wire::Fields::from(&*headers);
            credential.apply(&mut fields).map_err(|e| failed("no-credential")(&e))?;
            *headers = fields.into();
        }
        Ok(request)
    }
}

fn dialled(io: impl Io + 'static, http2: bool) -> Ready<Result<OpenedConnection, DialError>> {
    ready(Ok(OpenedConnection::new(io, if http2 { CallProtocol::Http2 } else { CallProtocol::Http1 })))
}

/// Sends, and reads until every expected part was found, each after the one before (Envoy's matching of `receive`).
async fn talk<T: Io>(mut io: T, send: &[u8], expect: &[Arc<[u8]>]) -> Result<(), HealthCheckFailure> {
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
            if answer.len() > MAX_ANSWER_BYTES {
                return Err(HealthCheckFailure(format!(
                    "the first {MAX_ANSWER_BYTES} bytes don't have `{}`",
                    part.escape_ascii()
                )));
            }
            if io.read_buf(&mut answer).await.map_err(|e| failed("read")(&e))? == 0 {
                let got = answer.get(..answer.len().min(64)).unwrap_or_default().escape_ascii();
                return Err(HealthCheckFailure(format!(
                    "closed without `{}`; it said `{got}`",
                    part.escape_ascii()
                )));
            }
        };
    }
    Ok(())
}

/// Where `part` ends in the answer after `from`; the error is the position from which to search again.
fn found(answer: &[u8], from: usize, part: &[u8]) -> Result<usize, usize> {
    let rest = answer.get(from..).unwrap_or_default();
    match rest.windows(part.len().max(1)).position(|window| window == part) {
        Some(at) => Ok(from + at + part.len()),
        None => Err(from + rest.len().saturating_sub(part.len().saturating_sub(1))),
    }
}
