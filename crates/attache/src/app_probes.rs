//! The app's probes, asked inside the pod.
//!
//! Where calls to the app are intercepted, the kubelet's probes would be, too, and it has no certificate to show. So `attache inject` has the
//! kubelet ask here (port 15020), and hands over in `ATTACHE_APP_PROBES` what each probe asked. Only those questions can be asked; the port is
//! open to whoever reaches the pod. What counts as healthy is what the kubelet counts: a status from 200 to 399, a connection, or
//! `SERVING` (grpc/doc/health-checking.md).

use std::{
    collections::HashMap,
    convert::Infallible,
    error::Error,
    future::{Future, poll_fn},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    rc::Rc,
    time::Duration,
};

use attache_kubernetes::inject::{LONGEST_SERVICE, PROBES_VARIABLE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body;
use hyper::{body::Incoming, client, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::{JoinSet, spawn_local},
    time::{sleep, timeout},
};

/// Connections served at once; more wait in the kernel's queue.
const MOST: usize = 64;
/// Time for a request's head.
const HEAD: Duration = Duration::from_secs(5);
/// Longest answer of a gRPC health check that is read.
const LONGEST: usize = 4 << 10;

type AnyError = Box<dyn Error>;

/// A probe as the pod had it.
#[derive(Debug, PartialEq)]
struct Probe {
    question: Question,
    timeout: Duration,
}

#[derive(Debug, PartialEq)]
enum Question {
    Http { address: SocketAddr, path: Uri, headers: Vec<(HeaderName, HeaderValue)> },
    Tcp { address: SocketAddr },
    Grpc { address: SocketAddr, service: String },
}

/// Answers for the app, if attache was told what its probes are. Ends with the runtime.
///
/// # Errors
/// The variable is not what `attache inject` writes, or the port is taken.
pub(crate) fn start() -> Result<(), String> {
    let Ok(text) = std::env::var(PROBES_VARIABLE) else { return Ok(()) };
    let pod = std::env::var("POD_IP").ok().and_then(|ip| ip.parse().ok());
    let (port, probes) = parse(&text, pod.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)))
        .ok_or_else(|| format!("{PROBES_VARIABLE} isn't what `attache inject` writes"))?;
    let socket = listen(port).map_err(|error| format!("port {port} for the app's probes: {error}"))?;
    tracing::info!("the app's probes are answered on port {port}");
    spawn_local(serve(socket, Rc::new(probes)));
    Ok(())
}

fn listen(port: u16) -> io::Result<TcpListener> {
    // Both families in one socket, or IPv4 alone where the pod has no IPv6.
    let bind = |socket: TcpSocket, ip: IpAddr| {
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(ip, port))?;
        socket.listen(128)
    };
    match TcpSocket::new_v6().and_then(|socket| bind(socket, Ipv6Addr::UNSPECIFIED.into())) {
        Ok(listener) => Ok(listener),
        Err(_) => bind(TcpSocket::new_v4()?, Ipv4Addr::UNSPECIFIED.into()),
    }
}

fn parse(text: &str, pod: IpAddr) -> Option<(u16, HashMap<String, Probe>)> {
    let all: Value = serde_json::from_str(text).ok()?;
    let port = all.get("port")?.as_u64()?.try_into().ok()?;
    let probes = all.get("probes")?.as_object()?.iter();
    Some((port, probes.map(|(path, probe)| Some((path.clone(), one(probe, pod)?))).collect::<Option<_>>()?))
}

fn one(probe: &Value, pod: IpAddr) -> Option<Probe> {
    let timeout = Duration::from_secs(probe.get("timeoutSeconds")?.as_u64()?.max(1));
    let address = |question: &Value| {
        // Names would be looked up by the kubelet; none has one in practice.
        let host = question.get("host").and_then(Value::as_str).and_then(|host| host.parse().ok());
        Some(SocketAddr::new(host.unwrap_or(pod), question.get("port")?.as_u64()?.try_into().ok()?))
    };
    let question = if let Some(http) = probe.get("httpGet") {
        let path = http.get("path").and_then(Value::as_str).filter(|path| !path.is_empty()).unwrap_or("/");
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let mut headers = Vec::new();
        for header in http.get("httpHeaders").and_then(Value::as_array).into_iter().flatten() {
            let text = |key: &str| header.get(key).and_then(Value::as_str);
            headers.push((text("name")?.parse().ok()?, text("value")?.parse().ok()?));
        }
        Question::Http { address: address(http)?, path: path.parse().ok()?, headers }
    } else if let Some(tcp) = probe.get("tcpSocket") {
        Question::Tcp { address: address(tcp)? }
    } else {
        let grpc = probe.get("grpc")?;
        let service = grpc.get("service").and_then(Value::as_str).unwrap_or_default();
        if service.len() > LONGEST_SERVICE {
            return None; // `attache inject` refuses it
        }
        Question::Grpc { address: address(grpc)?, service: service.to_owned() }
    };
    Some(Probe { question, timeout })
}

async fn serve(socket: TcpListener, probes: Rc<HashMap<String, Probe>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = socket.accept(), if connections.len() < MOST => match accepted {
                Ok((stream, _)) => {
                    connections.spawn_local(connection(stream, probes.clone()));
                }
                Err(_) => sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, probes: Rc<HashMap<String, Probe>>) {
    let service = service_fn(|request: Request<Incoming>| {
        let probes = probes.clone();
        async move { Ok::<_, Infallible>(answer(&request, &probes).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "a probe's connection failed");
    }
}

async fn answer(request: &Request<Incoming>, probes: &HashMap<String, Probe>) -> Response<String> {
    let (status, text) = match probes.get(request.uri().path()) {
        Some(probe) => match timeout(probe.timeout, ask(&probe.question)).await {
            Ok(Ok(())) => (StatusCode::OK, "ok\n".to_owned()),
            Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
            Err(_) => (StatusCode::GATEWAY_TIMEOUT, format!("no answer within {:?}\n", probe.timeout)),
        },
        None => (StatusCode::NOT_FOUND, "the app has no such probe\n".to_owned()),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response
}

async fn ask(question: &Question) -> Result<(), AnyError> {
    match question {
        Question::Tcp { address } => {
            TcpStream::connect(address).await?;
            Ok(())
        }
        Question::Http { address, path, headers } => {
            let (mut sender, running) =
                client::conn::http1::handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
            let mut request = Request::new(String::new());
            *request.uri_mut() = path.clone();
            let set = request.headers_mut();
            set.insert(header::HOST, address.to_string().parse()?);
            set.insert(header::USER_AGENT, HeaderValue::from_static("kube-probe/attache"));
            set.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
            for (name, value) in headers {
                set.insert(name, value.clone());
            }
            let response = beside(running, sender.send_request(request)).await??;
            match response.status().as_u16() {
                200..400 => Ok(()),
                status => Err(format!("status {status}").into()),
            }
        }
        Question::Grpc { address, service } => {
            let io = TokioIo::new(TcpStream::connect(address).await?);
            let (mut sender, running) = client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            let request = Request::builder()
                .method(Method::POST)
                .version(Version::HTTP_2)
                .uri(format!("http://{address}/grpc.health.v1.Health/Check"))
                .header(header::CONTENT_TYPE, "application/grpc")
                .header(header::TE, "trailers")
                .body(frame(service))?;
            let answer = async {
                let response = sender.send_request(request).await?;
                let status = response.headers().get("grpc-status").cloned();
                let mut body = pin!(response.into_body());
                let mut message = Vec::new();
                while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
                    if let Ok(data) = frame?.into_data() {
                        message.extend_from_slice(&data);
                    }
                    if message.len() > LONGEST {
                        break;
                    }
                }
                Ok::<_, hyper::Error>((status, message))
            };
            let (status, message) = beside(running, answer).await??;
            // A frame's head is 5 bytes; field 1 (`status`) as a varint, 1 is SERVING.
            match message.get(5..) {
                Some([8, 1, ..]) => Ok(()),
                Some([]) | None if status.is_some() => Err(format!("gRPC status {status:?}").into()),
                _ => Err("not SERVING".into()),
            }
        }
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
fn frame(service: &str) -> String {
    let mut message = String::new();
    // Lengths below 128 are one byte, which is a character, too.
    if !service.is_empty() {
        message.push('\u{a}');
        message.push(service.len() as u8 as char);
        message.push_str(service);
    }
    format!("\0\0\0\0{}{message}", message.len() as u8 as char)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probes_of_a_pod_are_read() {
        let text = r#"{"port":15020,"probes":{"/app-probe/web/liveness":{"httpGet":{"path":"live","port":8080,"httpHeaders":[{"name":"X-A","value":"b"}]},"timeoutSeconds":2},
            "/app-probe/db/readiness":{"tcpSocket":{"port":5432},"timeoutSeconds":1},
            "/app-probe/rpc/startup":{"grpc":{"port":9090,"service":"s"},"timeoutSeconds":1}}}"#;
        let pod = IpAddr::from([10, 0, 0, 7]);
        let (port, probes) = parse(text, pod).unwrap();
        assert_eq!(port, 15020);
        let headers = vec![(HeaderName::from_static("x-a"), HeaderValue::from_static("b"))];
        let (address, path) = (SocketAddr::new(pod, 8080), Uri::from_static("/live"));
        let timeout = Duration::from_secs(2);
        assert_eq!(
            probes["/app-probe/web/liveness"],
            Probe { question: Question::Http { address, path, headers }, timeout }
        );
        assert_eq!(
            probes["/app-probe/db/readiness"].question,
            Question::Tcp { address: SocketAddr::new(pod, 5432) }
        );
        let service = "s".to_owned();
        assert_eq!(
            probes["/app-probe/rpc/startup"].question,
            Question::Grpc { address: SocketAddr::new(pod, 9090), service }
        );
        assert_eq!(parse(r#"{"port":1,"probes":{"/x":{}}}"#, pod), None);
    }

    #[test]
    fn a_health_check_is_framed_as_grpc_says() {
        assert_eq!(frame("").as_bytes(), [0, 0, 0, 0, 0]);
        assert_eq!(frame("ab").as_bytes(), [0, 0, 0, 0, 4, 10, 2, b'a', b'b']);
    }
}
