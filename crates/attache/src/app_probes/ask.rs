//! Sends the probes of the kubelet to the app.

use std::{
    error::Error,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use attache_rpc::{
    client::{self, CallLimits, CallProtocol, DialError, OpenedConnection, ResponseStream},
    grpc::health,
};
use attache_tls::Connector;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, Version, header};
use http_body_util::Full;
use tokio::net::TcpStream;

use super::target::ProbeTarget;

/// The most requests of one probe: the first one and those after redirects (`redirectChecker` of the kubelet).
const MAX_REQUESTS: usize = 10;
/// The most bytes of a response that are read (`maxRespBodyLength`); a longer response is no failure.
const MAX_BODY_BYTES: usize = 10 << 10;
/// A probe's own timeout limits its time. A hook may take as long as the pod's grace period.
const BOUNDS: CallLimits = CallLimits {
    connect: Duration::from_hours(1),
    total: Duration::from_hours(24),
    head: 400 << 10,
    body: health::MAX_ANSWER_BYTES,
};

pub(super) type ProbeError = Box<dyn Error + Send + Sync>;

/// An HTTP request of the kubelet.
#[derive(Debug, PartialEq)]
pub(super) struct HttpGet {
    pub(super) ip: IpAddr,
    pub(super) place: ProbeTarget,
    pub(super) headers: HeaderMap,
}

/// The result of a probe.
#[derive(Debug)]
pub(super) enum ProbeAnswer {
    /// The probe succeeded by the kubelet's rules.
    Well,
    /// The app itself answered that it is not healthy.
    Status(StatusCode),
}

/// Headers that Go's client always sets itself.
const NOT_SENT: [HeaderName; 4] =
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TRAILER, header::CONNECTION];

impl HttpGet {
    /// Sends a probe. A status from 200 to 399 is a success, and so is a redirect to another host, which isn't followed.
    pub(super) async fn probe(
        &self,
        agent: &HeaderValue,
        tls: &Connector,
    ) -> Result<ProbeAnswer, ProbeError> {
        let response = self.ask(&self.place, &self.headers, agent, tls).await?;
        let status = response.status;
        read(response).await?;
        if (200..400).contains(&status.as_u16()) {
            Ok(ProbeAnswer::Well)
        } else {
            Ok(ProbeAnswer::Status(status))
        }
    }

    /// Calls a lifecycle hook. Any response is a success. If an HTTPS hook finds an app that speaks plaintext, the hook is sent in
    /// plaintext, without the credentials. The kubelet's client for hooks speaks only HTTP/1.1, so `tls` must offer nothing else.
    pub(super) async fn call(&self, agent: &HeaderValue, tls: &Connector) -> Result<ProbeAnswer, ProbeError> {
        let response = match self.ask(&self.place, &self.headers, agent, tls).await {
            Err(error) if self.place.https && is_plaintext(&*error) => {
                let place = ProbeTarget { https: false, ..self.place.clone() };
                let mut headers = self.headers.clone();
                headers.remove(header::AUTHORIZATION);
                self.ask(&place, &headers, agent, tls).await?
            }
            result => result?,
        };
        // The body is read, but it doesn't matter whether that succeeds.
        let _ = read(response).await;
        Ok(ProbeAnswer::Well)
    }

    /// The last response of a chain of redirects on the same host.
    async fn ask(
        &self,
        first: &ProbeTarget,
        headers: &HeaderMap,
        agent: &HeaderValue,
        tls: &Connector,
    ) -> Result<ResponseStream, ProbeError> {
        let mut place = first.clone();
        let mut host = headers.get(header::HOST).filter(|host| !host.is_empty()).cloned();
        let mut referer = None;
        for _ in 0..MAX_REQUESTS {
            let mut headers = headers.clone();
            headers.remove(header::HOST);
            if let Some(referer) = referer.take() {
                headers.entry(header::REFERER).or_insert(referer);
            }
            let response = one(self.ip, &place, host.as_ref(), headers, agent, tls).await?;
            let location = match response.status.as_u16() {
                301 | 302 | 303 | 307 | 308 => response.headers.get(header::LOCATION),
                _ => None,
            };
            let Some(location) = location.filter(|location| !location.is_empty()) else {
                return Ok(response);
            };
            let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
            let (next, is_absolute) = place.follow(&location)?;
            if next.host != first.host {
                return Ok(response);
            }
            if is_absolute {
                host = None;
            }
            if next.https || !place.https {
                referer = place.url().parse().ok();
            }
            place = next;
        }
        Err(format!("it redirects {MAX_REQUESTS} times").into())
    }
}

/// Sends one request on a new connection.
async fn one(
    ip: IpAddr,
    place: &ProbeTarget,
    host: Option<&HeaderValue>,
    mut headers: HeaderMap,
    agent: &HeaderValue,
    tls: &Connector,
) -> Result<ResponseStream, ProbeError> {
    for name in NOT_SENT {
        headers.remove(name);
    }
    only_first(&mut headers, header::USER_AGENT, agent);
    only_first(&mut headers, header::ACCEPT, &HeaderValue::from_static("*/*"));
    let authority: HeaderValue = match host {
        Some(host) => host.clone(),
        None => place.authority().parse()?,
    };
    // The request depends on the protocol, which is known only after TLS has chosen it.
    let dialled = dial(ip, place, tls).await?;
    let mut request = Request::new(Full::<Bytes>::default());
    if dialled.protocol == CallProtocol::Http2 {
        *request.uri_mut() = format!("https://{}{}", authority.to_str()?, place.target).parse()?;
        *request.version_mut() = Version::HTTP_2;
    } else {
        *request.uri_mut() = place.target.parse::<Uri>()?;
        headers.insert(header::HOST, authority);
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    *request.headers_mut() = headers;
    Ok(client::stream(async { Ok(dialled) }, request, BOUNDS).await?)
}

/// Opens a connection. Go accepts folded lines and whitespace before a colon, so for the kubelet an app with such a response is healthy.
async fn dial(ip: IpAddr, place: &ProbeTarget, tls: &Connector) -> Result<OpenedConnection, DialError> {
    let tcp = TcpStream::connect((ip, place.port)).await?;
    tcp.set_nodelay(true)?;
    if !place.https {
        return Ok(OpenedConnection::new(tcp, CallProtocol::Http1AsGo));
    }
    let stream = tls.connect(&place.host, tcp).await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(OpenedConnection::new(stream, if http2 { CallProtocol::Http2 } else { CallProtocol::Http1AsGo }))
}

/// For a header of which Go sends only the first value: uses `own` if there is none, and removes an empty one.
fn only_first(headers: &mut HeaderMap, name: HeaderName, own: &HeaderValue) {
    match headers.get(&name).cloned() {
        None => drop(headers.insert(name, own.clone())),
        Some(first) if first.is_empty() => drop(headers.remove(name)),
        Some(first) if name == header::USER_AGENT => drop(headers.insert(name, first)),
        Some(_) => {}
    }
}

/// Reads as much of a response as the kubelet does.
///
/// # Errors
/// The response breaks off before its end and before the limit.
async fn read(mut response: ResponseStream) -> Result<(), ProbeError> {
    let mut bytes = 0;
    while bytes < MAX_BODY_BYTES {
        let Some(data) = response.data().await? else { break };
        bytes += data.len();
    }
    Ok(())
}

/// Whether the peer answered a TLS handshake with something else.
fn is_plaintext(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.to_string().contains("InvalidContentType"))
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Connects; an accepted connection is a success.
pub(super) async fn tcp(address: SocketAddr) -> Result<ProbeAnswer, ProbeError> {
    TcpStream::connect(address).await?;
    Ok(ProbeAnswer::Well)
}

/// Calls `grpc.health.v1.Health/Check`; `SERVING` is a success.
pub(super) async fn grpc(
    address: SocketAddr,
    service: &str,
    agent: &HeaderValue,
) -> Result<ProbeAnswer, ProbeError> {
    let mut request = health::check(&format!("http://{address}"), service)?;
    request.headers_mut().insert(header::USER_AGENT, agent.clone());
    let dial = async {
        Ok::<_, DialError>(OpenedConnection::new(TcpStream::connect(address).await?, CallProtocol::Http2))
    };
    health::verdict(&client::call(dial, request, BOUNDS).await?)?;
    Ok(ProbeAnswer::Well)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_probe_replace_those_of_the_kubelet() {
        let agent = HeaderValue::from_static("kube-probe/1.33");
        let mut headers = HeaderMap::new();
        only_first(&mut headers, header::USER_AGENT, &agent);
        assert_eq!(headers[header::USER_AGENT], agent);
        headers.insert(header::ACCEPT, HeaderValue::from_static(""));
        only_first(&mut headers, header::ACCEPT, &HeaderValue::from_static("*/*"));
        assert!(!headers.contains_key(header::ACCEPT), "an empty value removes it");
    }
}
