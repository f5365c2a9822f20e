//! Asking the app what the kubelet would have asked.

use std::{
    error::Error,
    future::{Future, poll_fn},
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
};

use attache_tls::Connector;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body;
use http_body_util::Full;
use hyper::{body::Incoming, client};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::target::ProbeTarget;

/// Requests of one question, the first and those that redirects lead to (`redirectChecker` of the kubelet).
const MOST_REQUESTS: usize = 10;
/// Bytes of an answer that are read (`maxRespBodyLength`); more is no fault.
const MOST_BODY: usize = 10 << 10;
/// Longest answer of a gRPC health check that is read.
const LONGEST: usize = 4 << 10;
/// Headers of an answer; Go has a bound in bytes alone.
const MOST_HEADERS: usize = 1000;

pub(super) type AnyError = Box<dyn Error>;

/// An HTTP request of the kubelet.
#[derive(Debug, PartialEq)]
pub(super) struct HttpGet {
    pub(super) ip: IpAddr,
    pub(super) place: ProbeTarget,
    pub(super) headers: HeaderMap,
}

/// How a question ended.
#[derive(Debug)]
pub(super) enum Answer {
    /// As the kubelet counts, all is well.
    Well,
    /// The app itself said that it isn't.
    Status(StatusCode),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Headers that Go always writes itself.
const NOT_SENT: [HeaderName; 4] =
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TRAILER, header::CONNECTION];

impl HttpGet {
    /// A probe: 200 to 399 is well, and so is a redirect to another host, which isn't followed.
    pub(super) async fn probe(&self, agent: &HeaderValue, tls: &Connector) -> Result<Answer, AnyError> {
        let response = self.ask(&self.place, &self.headers, agent, tls).await?;
        let status = response.status();
        read(response.into_body()).await?;
        if (200..400).contains(&status.as_u16()) { Ok(Answer::Well) } else { Ok(Answer::Status(status)) }
    }

    /// A lifecycle hook: any answer is well. An HTTPS hook of an app that speaks plaintext is asked in plaintext, without the credentials.
    /// The kubelet's client for hooks speaks HTTP/1.1 alone, so `tls` must offer nothing else.
    pub(super) async fn call(&self, agent: &HeaderValue, tls: &Connector) -> Result<Answer, AnyError> {
        let response = match self.ask(&self.place, &self.headers, agent, tls).await {
            Err(error) if self.place.https && is_plaintext(&*error) => {
                let place = ProbeTarget { https: false, ..self.place.clone() };
                let mut headers = self.headers.clone();
                headers.remove(header::AUTHORIZATION);
                self.ask(&place, &headers, agent, tls).await?
            }
            result => result?,
        };
        // The result of the body doesn't matter.
        let _ = read(response.into_body()).await;
        Ok(Answer::Well)
    }

    /// The last answer of a chain of redirects within the host.
    async fn ask(
        &self,
        first: &ProbeTarget,
        headers: &HeaderMap,
        agent: &HeaderValue,
        tls: &Connector,
    ) -> Result<Response<Incoming>, AnyError> {
        let mut place = first.clone();
        let mut host = headers.get(header::HOST).filter(|host| !host.is_empty()).cloned();
        let mut referer = None;
        for _ in 0..MOST_REQUESTS {
            let mut headers = headers.clone();
            headers.remove(header::HOST);
            if let Some(referer) = referer.take() {
                headers.entry(header::REFERER).or_insert(referer);
            }
            let response = one(self.ip, &place, host.as_ref(), headers, agent, tls).await?;
            let location = match response.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => response.headers().get(header::LOCATION),
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
        Err(format!("it redirects {MOST_REQUESTS} times").into())
    }
}

/// One request on a new connection.
async fn one(
    ip: IpAddr,
    place: &ProbeTarget,
    host: Option<&HeaderValue>,
    mut headers: HeaderMap,
    agent: &HeaderValue,
    tls: &Connector,
) -> Result<Response<Incoming>, AnyError> {
    let tcp = TcpStream::connect((ip, place.port)).await?;
    tcp.set_nodelay(true)?;
    let (stream, h2): (Pin<Box<dyn Stream>>, bool) = if place.https {
        let stream = tls.connect(&place.host, tcp).await?;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        (Box::pin(stream), h2)
    } else {
        (Box::pin(tcp), false)
    };
    for name in NOT_SENT {
        headers.remove(name);
    }
    only_first(&mut headers, header::USER_AGENT, agent);
    only_first(&mut headers, header::ACCEPT, &HeaderValue::from_static("*/*"));
    let authority: HeaderValue = match host {
        Some(host) => host.clone(),
        None => place.authority().parse()?,
    };
    let mut request = Request::new(Full::<Bytes>::default());
    if h2 {
        let scheme = if place.https { "https" } else { "http" };
        *request.uri_mut() = format!("{scheme}://{}{}", authority.to_str()?, place.target).parse()?;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = headers;
        let (mut sender, running) =
            client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // The body is read behind the head, so the connection must run on; it ends when its stream and its sender have.
        tokio::task::spawn_local(running);
        return Ok(sender.send_request(request).await?);
    }
    *request.uri_mut() = place.target.parse::<Uri>()?;
    headers.insert(header::HOST, authority);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    *request.headers_mut() = headers;
    // Go reads folded lines and blanks before a colon, so an app with such an answer is healthy for the kubelet.
    let (mut sender, running) = client::conn::http1::Builder::new()
        .title_case_headers(true)
        .max_headers(MOST_HEADERS)
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::task::spawn_local(running);
    Ok(sender.send_request(request).await?)
}

/// A header of which Go sends the first value: `own` where there is none, nothing where it is empty.
fn only_first(headers: &mut HeaderMap, name: HeaderName, own: &HeaderValue) {
    match headers.get(&name).cloned() {
        None => drop(headers.insert(name, own.clone())),
        Some(first) if first.is_empty() => drop(headers.remove(name)),
        Some(first) if name == header::USER_AGENT => drop(headers.insert(name, first)),
        Some(_) => {}
    }
}

/// Reads as much of an answer as the kubelet does.
///
/// # Errors
/// It breaks off before its end and before the bound.
async fn read(body: Incoming) -> Result<(), AnyError> {
    let mut body = pin!(body);
    let mut bytes = 0;
    while bytes < MOST_BODY {
        let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await else { break };
        bytes += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(())
}

/// The peer answered a TLS handshake with something else.
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

/// A connection that is accepted is well.
pub(super) async fn tcp(address: SocketAddr) -> Result<Answer, AnyError> {
    TcpStream::connect(address).await?;
    Ok(Answer::Well)
}

/// `grpc.health.v1.Health/Check`: `SERVING` is well.
pub(super) async fn grpc(
    address: SocketAddr,
    service: &str,
    agent: &HeaderValue,
) -> Result<Answer, AnyError> {
    let io = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, running) = client::conn::http2::handshake(TokioExecutor::new(), io).await?;
    let request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, agent)
        .body(Full::new(frame(service)))?;
    let answer = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let (mut body, mut message, mut trailers) = (pin!(body), Vec::new(), None);
        while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            match frame?.into_data() {
                Ok(data) => message.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
            if message.len() > LONGEST {
                break;
            }
        }
        Ok::<_, hyper::Error>((parts, message, trailers))
    };
    let (parts, message, trailers) = beside(running, answer).await??;
    verdict(parts.status, &parts.headers, trailers.as_ref(), &message)
}

/// What an answer to a health check says, by the rules of a gRPC client (grpc/doc/PROTOCOL-HTTP2.md).
fn verdict(
    http: StatusCode,
    headers: &HeaderMap,
    trailers: Option<&HeaderMap>,
    message: &[u8],
) -> Result<Answer, AnyError> {
    let is_grpc = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if http != StatusCode::OK || !is_grpc {
        return Err(format!("HTTP status {http}, and not an answer of gRPC").into());
    }
    match trailers.unwrap_or(headers).get("grpc-status") {
        Some(status) if status == "0" => {}
        Some(status) => return Err(format!("gRPC status {status:?}").into()),
        None => return Err("the answer ended without a gRPC status".into()),
    }
    // A frame's head is 5 bytes; field 1 (`status`) as a varint, 1 is SERVING.
    match message {
        [0, _, _, _, _, 8, 1, ..] => Ok(Answer::Well),
        _ => Err("not SERVING".into()),
    }
}

/// A connection runs only as long as its one answer is waited for.
async fn beside<T>(
    connection: impl Future<Output = Result<(), hyper::Error>>,
    answer: impl Future<Output = T>,
) -> Result<T, AnyError> {
    let (mut connection, mut answer) = (pin!(connection), pin!(answer));
    let ended = tokio::select! {
        biased;
        answer = &mut answer => return Ok(answer),
        ended = &mut connection => ended,
    };
    ended?;
    // What was read before the connection ended is there.
    Ok(answer.await)
}

/// `HealthCheckRequest { service = 1 }` in its frame (grpc/doc/PROTOCOL-HTTP2.md).
fn frame(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(10);
        let mut length = service.len();
        while length > 127 {
            message.push(length as u8 | 128);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_check_is_framed_as_grpc_says() {
        assert_eq!(&*frame(""), [0, 0, 0, 0, 0]);
        assert_eq!(&*frame("ab"), [0, 0, 0, 0, 4, 10, 2, b'a', b'b']);
        let long = frame(&"s".repeat(300));
        assert_eq!(long.get(..8), Some(&[0, 0, 0, 1, 47, 10, 0xac, 2][..]));
        assert_eq!(long.len(), 5 + 3 + 300);
    }

    #[test]
    fn a_health_check_is_well_only_by_grpcs_own_rules() {
        let map = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            pairs.collect()
        };
        let (ok, grpc) = (StatusCode::OK, map(&[("content-type", "application/grpc+proto")]));
        let (serving, not_serving) = (&[0, 0, 0, 0, 2, 8, 1][..], &[0, 0, 0, 0, 2, 8, 2][..]);
        let ended = map(&[("grpc-status", "0")]);
        assert!(verdict(ok, &grpc, Some(&ended), serving).is_ok());
        assert!(verdict(ok, &grpc, Some(&ended), not_serving).is_err());
        assert!(verdict(ok, &grpc, Some(&ended), &[]).is_err(), "a status and no message");
        assert!(verdict(ok, &grpc, Some(&map(&[("grpc-status", "13")])), serving).is_err());
        assert!(verdict(ok, &grpc, None, serving).is_err(), "no trailers");
        assert!(verdict(ok, &map(&[("content-type", "text/html")]), Some(&ended), serving).is_err());
        assert!(verdict(StatusCode::BAD_GATEWAY, &grpc, Some(&ended), serving).is_err());
        let unimplemented = map(&[("content-type", "application/grpc"), ("grpc-status", "12")]);
        assert!(verdict(ok, &unimplemented, None, &[]).is_err(), "trailers alone");
    }

    #[test]
    fn headers_that_the_kubelet_sets_give_way_to_the_probes_own() {
        let agent = HeaderValue::from_static("kube-probe/1.33");
        let mut headers = HeaderMap::new();
        only_first(&mut headers, header::USER_AGENT, &agent);
        assert_eq!(headers[header::USER_AGENT], agent);
        headers.insert(header::ACCEPT, HeaderValue::from_static(""));
        only_first(&mut headers, header::ACCEPT, &HeaderValue::from_static("*/*"));
        assert!(!headers.contains_key(header::ACCEPT), "an empty one takes it out");
    }
}
