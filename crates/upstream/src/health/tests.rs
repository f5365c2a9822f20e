use std::{cell::RefCell, num::NonZeroU16, rc::Rc};

use attache_config::model::{self, HealthCheckKind, UpstreamProtocol};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::Instant,
};

use super::*;
use crate::{EndpointAddress, EndpointSpec};

const SECOND: Duration = Duration::from_secs(1);

fn config(probe: HealthCheckKind) -> HealthCheck {
    HealthCheck {
        probe,
        interval: 10 * SECOND,
        unhealthy_interval: 2 * SECOND,
        timeout: 5 * SECOND,
        healthy: 2,
        ..HealthCheck::default()
    }
}

fn upstream(check: Option<HealthCheck>, protocol: UpstreamProtocol) -> model::Upstream {
    model::Upstream {
        protocol,
        health_check: check,
        ..model::Upstream::new("orders", model::Address::OriginalDestination)
    }
}

fn endpoint(address: std::net::SocketAddr) -> Arc<Endpoint> {
    Arc::new(Endpoint::new(EndpointSpec::new(EndpointAddress::Tcp(address))))
}

fn http(path: &str) -> HealthCheckKind {
    HealthCheckKind::Http { path: path.into(), host: None }
}

async fn ask(
    probe: HealthCheckKind,
    protocol: UpstreamProtocol,
    address: std::net::SocketAddr,
) -> Result<(), HealthCheckFailure> {
    let check = config(probe);
    Prober::new(&upstream(Some(check.clone()), protocol), &check, None, None).probe(&endpoint(address)).await
}

/// Gives each connection the same answer, and returns the request.
async fn server(answer: &'static [u8]) -> (std::net::SocketAddr, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut io, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 4096];
        let read = io.read(&mut asked).await.unwrap();
        asked.truncate(read);
        io.write_all(answer).await.unwrap();
        asked
    });
    (address, task)
}

#[tokio::test]
async fn http_passes_on_200_to_299_only() {
    for (answer, passes) in [
        (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], Ok(())),
        (
            b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            Err(HealthCheckFailure("status 503".into())),
        ),
        (
            b"HTTP/1.1 301 Moved\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
            Err(HealthCheckFailure("status 301".into())),
        ),
    ] {
        let (address, server) = server(answer).await;
        assert_eq!(ask(http("/healthz?full=1"), UpstreamProtocol::Auto, address).await, passes);
        let asked = String::from_utf8(server.await.unwrap()).unwrap();
        assert!(
            asked.starts_with("GET /healthz?full=1 HTTP/1.1\r\n") && asked.contains("host: orders\r\n"),
            "{asked}"
        );
    }
}

#[tokio::test]
async fn another_port_of_the_address_is_asked_by_http_for_opaque_bytes() {
    let (api, asked) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    // The database itself: no probe may connect to it.
    let database = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let check = HealthCheck { port: NonZeroU16::new(api.port()), ..config(http("/primary")) };
    let mut upstream = upstream(Some(check.clone()), UpstreamProtocol::Tcp);
    // The other port gets no PROXY protocol header.
    upstream.proxy_protocol = model::ProxyProtocolOut::V1;
    let prober = Prober::new(&upstream, &check, None, None);
    assert_eq!(prober.probe(&endpoint(database.local_addr().unwrap())).await, Ok(()));
    let asked = String::from_utf8(asked.await.unwrap()).unwrap();
    assert!(asked.starts_with("GET /primary HTTP/1.1\r\n"), "{asked}");
    let nobody = tokio::time::timeout(Duration::from_millis(50), database.accept()).await;
    assert!(nobody.is_err(), "the database was asked");
}

#[tokio::test]
async fn tcp_passes_on_a_connection_and_fails_without() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(ask(HealthCheckKind::connection(), UpstreamProtocol::Tcp, address).await, Ok(()));
    drop(listener);
    let why = ask(HealthCheckKind::connection(), UpstreamProtocol::Tcp, address).await.unwrap_err().0;
    assert!(why.starts_with("connect: "), "{why}");
}

#[tokio::test]
async fn tcp_passes_on_the_bytes_that_are_expected_in_their_order() {
    let probe = |expect: &[&str]| HealthCheckKind::Tcp {
        send: (*b"PING\r\n").into(),
        expect: expect.iter().map(|part| part.as_bytes().into()).collect(),
    };
    for (answer, expect, outcome) in [
        ("hello +PONG\r\n", &["+PONG"][..], Ok(())),
        ("a redis, ready", &["redis", "ready"], Ok(())),
        ("ready, a redis", &["redis", "ready"], Err("closed without `ready`; it said `ready, a redis`")),
        ("-LOADING\r\n", &["+PONG"], Err("closed without `+PONG`; it said `-LOADING\\r\\n`")),
        // Two parts must not share a byte.
        ("aba", &["ab", "ba"], Err("closed without `ba`; it said `aba`")),
    ] {
        let (address, server) = server(answer.as_bytes()).await;
        let got = ask(probe(expect), UpstreamProtocol::Tcp, address).await;
        assert_eq!(got, outcome.map_err(|why| HealthCheckFailure(why.into())));
        assert_eq!(server.await.unwrap(), b"PING\r\n");
    }
}

#[tokio::test]
async fn an_endless_answer_fails_a_tcp_check_by_its_length() {
    static ENDLESS: [u8; 40_000] = [b'x'; 40_000];
    let (address, _server) = server(&ENDLESS).await;
    let probe = HealthCheckKind::Tcp { send: (*b"?").into(), expect: vec![(*b"y").into()] };
    let why = ask(probe, UpstreamProtocol::Tcp, address).await.unwrap_err().0;
    assert_eq!(why, "the first 16384 bytes don't have `y`");
}

#[tokio::test]
async fn grpc_passes_only_while_serving() {
    for (status, outcome) in [(1, Ok(())), (2, Err(HealthCheckFailure("NOT_SERVING".into())))] {
        let (address, asked) = grpc_server(Ok(status)).await;
        let probe = HealthCheckKind::Grpc { service: "shop".into() };
        assert_eq!(ask(probe, UpstreamProtocol::Auto, address).await, outcome);
        let (path, message) = asked.await.unwrap();
        assert_eq!(path, "/grpc.health.v1.Health/Check");
        assert_eq!(message, b"\0\0\0\0\x06\x0a\x04shop");
    }
    let (address, _asked) = grpc_server(Err("12")).await;
    let outcome = ask(HealthCheckKind::Grpc { service: "".into() }, UpstreamProtocol::Http2, address).await;
    assert_eq!(outcome, Err(HealthCheckFailure("grpc-status 12".into())));
}

/// A health service by hyper's server: a status, or a grpc-status in an answer without a body.
async fn grpc_server(
    answer: Result<u8, &'static str>,
) -> (std::net::SocketAddr, tokio::sync::oneshot::Receiver<(String, Vec<u8>)>) {
    use http_body::Body as _;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let sender = Arc::new(std::sync::Mutex::new(Some(sender)));
    tokio::spawn(async move {
        let (io, _) = listener.accept().await.unwrap();
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let sender = sender.lock().unwrap().take();
            async move {
                let (head, mut body) = request.into_parts();
                let mut message = Vec::new();
                while let Some(Ok(frame)) =
                    std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await
                {
                    message.extend_from_slice(&frame.into_data().unwrap_or_default());
                }
                sender.unwrap().send((head.uri.path().to_owned(), message)).unwrap();
                let mut response = http::Response::new(ScriptedFrames(Vec::new()));
                response
                    .headers_mut()
                    .insert("content-type", http::HeaderValue::from_static("application/grpc"));
                match answer {
                    Ok(status) => {
                        let trailers = http::HeaderMap::from_iter([(
                            http::HeaderName::from_static("grpc-status"),
                            http::HeaderValue::from_static("0"),
                        )]);
                        response.body_mut().0 = vec![
                            http_body::Frame::trailers(trailers),
                            http_body::Frame::data(bytes::Bytes::from(vec![0, 0, 0, 0, 2, 8, status])),
                        ];
                    }
                    Err(status) => {
                        response.headers_mut().insert("grpc-status", http::HeaderValue::from_static(status));
                    }
                }
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(io), service)
            .await;
    });
    (address, receiver)
}

/// Frames, last first.
struct ScriptedFrames(Vec<http_body::Frame<bytes::Bytes>>);

impl http_body::Body for ScriptedFrames {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.pop().map(Ok))
    }
}

#[tokio::test(start_paused = true)]
async fn thresholds_intervals_and_timeouts_keep_their_times() {
    let endpoint = endpoint(([10, 0, 0, 1], 80).into());
    let check = EndpointCheck {
        endpoint: endpoint.clone(),
        config: config(HealthCheckKind::connection()),
        upstream: "orders".into(),
    };
    // Passes, fails three times (once by the timeout), passes from then on.
    let seen = Rc::new(RefCell::new(Vec::new()));
    let start = Instant::now();
    let probing = check.repeat(|| {
        let (seen, endpoint) = (seen.clone(), endpoint.clone());
        async move {
            seen.borrow_mut().push((start.elapsed(), endpoint.usable()));
            let n = seen.borrow().len();
            match n {
                2 | 4 => Err(HealthCheckFailure("status 500".into())),
                3 => std::future::pending().await,
                _ => Ok(()),
            }
        }
    });
    let _ = timeout(60 * SECOND, probing).await;
    let seen = seen.borrow();
    let between = |n: usize| seen[n].0.saturating_sub(seen[n - 1].0);
    let near = |time: Duration, expected: u32| {
        let expected = expected * SECOND;
        time >= expected && time <= expected.mul_f64(1.1) + Duration::from_millis(2)
    };
    assert!(seen[0].0 <= SECOND + Duration::from_millis(2), "the first is soon");
    assert!(near(between(1), 10) && near(between(2), 10));
    assert!(
        between(3) >= 15 * SECOND && between(3) <= 16 * SECOND + Duration::from_millis(2),
        "5 s of timeout"
    );
    assert!(near(between(4), 2) && near(between(5), 2), "sooner while it is unhealthy");
    let usable: Vec<_> = seen.iter().map(|(_, usable)| *usable).take(7).collect();
    assert_eq!(usable, [true, true, true, true, false, false, true]);
    assert_eq!(endpoint.checks.failed(), 3);
    assert_eq!(endpoint.checks.failure(), None);
}

#[tokio::test]
async fn new_endpoints_are_checked_and_a_removed_check_leaves_no_endpoint_unhealthy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut check = config(HealthCheckKind::connection());
    check.interval = Duration::from_millis(20);
    check.unhealthy_interval = check.interval;
    let mut shared = SharedUpstream::new(Arc::new(upstream(Some(check), UpstreamProtocol::Tcp)));
    let spec = EndpointSpec::new(EndpointAddress::Tcp(address));
    shared.replace_endpoints(vec![spec], None);
    let endpoint = shared.endpoints.load().endpoints[0].clone();
    let until = |healthy| {
        let endpoint = endpoint.clone();
        async move {
            while endpoint.usable() != healthy || endpoint.checks.passed() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    let failing = async {
        until(true).await;
        drop(listener);
        until(false).await;
    };
    tokio::select! {
        () = run(&shared, None, None) => panic!("it never ends"),
        () = failing => {}
    }
    assert!(endpoint.checks.failure().is_some_and(|why| why.contains("connect")));
    shared.config = Arc::new(upstream(None, UpstreamProtocol::Tcp));
    run(&shared, None, None).await;
    assert!(endpoint.usable());
}
