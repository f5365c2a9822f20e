use std::sync::Mutex;

use http::StatusCode;
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::Instant,
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limits() -> ServerLimits {
    ServerLimits { connections: 4, bodies: 1000, head_time: 2 * SECOND, ..ServerLimits::default() }
}

#[derive(Debug)]
struct Crash;

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("crash")
    }
}

impl std::error::Error for Crash {}

type Answered = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Crash>> + Send>>;

/// `/slow` takes 3 s; `/stream` takes as long and is long-lived; `/crash` fails. Anything else is answered with the length of the body.
fn answer(request: Request<Incoming>, permit: Arc<ServerConnectionPermit>) -> Answered {
    Box::pin(async move {
        match request.uri().path() {
            "/slow" => sleep(3 * SECOND).await,
            "/stream" => {
                permit.long_lived();
                sleep(100 * SECOND).await;
            }
            "/crash" => return Err(Crash),
            _ => {}
        }
        let body = read_body(request.into_body(), &permit, 100, SECOND).await;
        permit.release();
        let (status, text) = match body {
            Ok(body) => (StatusCode::OK, body.len().to_string()),
            Err(error) => (error.status(), error.to_string()),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        Ok(response)
    })
}

/// One connection to a server with these limits, and the events of that connection.
fn connect(server: RpcServer) -> (DuplexStream, watch::Sender<bool>, Arc<Mutex<Vec<ConnectionEvent>>>) {
    let (client, stream) = duplex(64 << 10);
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = events.clone();
    let server = Arc::new(server.with_observer(move |event| seen.lock().unwrap().push(event)));
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        let permits = ConnectionPermits::new(server.limits.connections, server.limits.bodies);
        let permit = permits.acquire(None).await;
        server.connection(Box::new(stream), permit, Arc::new(answer), stopping).await;
    });
    (client, stop, events)
}

/// Sends a request and reads until the server closes. Returns what arrived, and after how long.
async fn until_closed(mut client: DuplexStream, request: &str) -> (String, Duration) {
    let begun = Instant::now();
    client.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    (text, begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_and_its_connection_closed() {
    let (client, _stop, events) = connect(RpcServer::new("test", limits()));
    let (text, elapsed) =
        until_closed(client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n3"), "{text}");
    assert_eq!(elapsed, Duration::ZERO);
    tokio::task::yield_now().await;
    assert_eq!(*events.lock().unwrap(), [ConnectionEvent::Opened, ConnectionEvent::Closed]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_and_a_slow_head_are_closed_after_the_time_for_a_head() {
    for request in ["", "GET / HTTP/1.1\r\nx-a"] {
        let (client, _stop, _) = connect(RpcServer::new("test", limits()));
        let (_, elapsed) = until_closed(client, request).await;
        assert_eq!(elapsed, 2 * SECOND, "{request}");
    }
    let (client, _stop, _) = connect(RpcServer::new("test", limits()));
    let (mut reader, mut writer) = tokio::io::split(client);
    let begun = Instant::now();
    let drip = async {
        while writer.write_all(b"x").await.is_ok() {
            sleep(SECOND / 10).await;
        }
    };
    let mut text = Vec::new();
    let _ = tokio::join!(drip, async { reader.read_to_end(&mut text).await });
    assert!(begun.elapsed() < 3 * SECOND, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_long_is_refused() {
    let (client, _stop, _) = connect(RpcServer::new("test", limits()));
    let (text, _) = until_closed(client, &format!("GET / HTTP/1.1\r\nx-a: {}", "a".repeat(17 << 10))).await;
    assert!(text.starts_with("HTTP/1.1 431"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_body_is_bounded_in_length_and_time() {
    let long = "x".repeat(101);
    let chunked = format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n65\r\n{long}\r\n");
    for (request, status, after) in [
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 101\r\n\r\n", "413", Duration::ZERO),
        (&*chunked, "413", Duration::ZERO),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf", "408", SECOND),
    ] {
        let (client, _stop, _) = connect(RpcServer::new("test", limits()));
        let (text, elapsed) = until_closed(client, request).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        assert_eq!(elapsed, after, "{status}");
    }
    let few = ServerLimits { bodies: 2, ..limits() };
    let (client, _stop, _) = connect(RpcServer::new("test", few));
    let (text, _) = until_closed(client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").await;
    // A connection that exceeds the memory of all connections is evicted itself, or gets "try again later".
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 503"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_lives_no_longer_than_its_time_except_for_long_lived_answers() {
    let short = ServerLimits { connection_time: Some(2 * SECOND), ..limits() };
    let (client, _stop, events) = connect(RpcServer::new("test", short));
    let (text, elapsed) = until_closed(client, "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!((text.as_str(), elapsed), ("", 2 * SECOND));
    assert!(events.lock().unwrap().contains(&ConnectionEvent::TooSlow));
    let (client, _stop, _) = connect(RpcServer::new("test", short));
    let (text, elapsed) = until_closed(client, "GET /stream HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(elapsed, 100 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_error_closes_the_connection_without_an_answer() {
    let (client, _stop, _) = connect(RpcServer::new("test", limits()));
    assert_eq!(until_closed(client, "GET /crash HTTP/1.1\r\nhost: a\r\n\r\n").await.0, "");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_its_time_and_a_failed_one_is_counted() {
    let never = RpcServer::new("test", limits()).with_handshake(|io| async move {
        let _open = io;
        std::future::pending().await
    });
    let (client, _stop, events) = connect(never);
    assert_eq!(until_closed(client, "").await.1, 5 * SECOND);
    assert!(events.lock().unwrap().contains(&ConnectionEvent::HandshakeFailed));
    let refused = RpcServer::new("test", limits()).with_handshake(|_| async { Err("no".to_owned()) });
    let (client, _stop, events) = connect(refused);
    assert_eq!(until_closed(client, "").await.1, Duration::ZERO);
    tokio::task::yield_now().await;
    assert_eq!(
        *events.lock().unwrap(),
        [ConnectionEvent::Opened, ConnectionEvent::HandshakeFailed, ConnectionEvent::Closed]
    );
}

#[tokio::test(start_paused = true)]
async fn at_the_end_idle_connections_close_and_running_answers_are_finished() {
    let kept = ServerLimits { keep_alive: true, ..limits() };
    let (mut client, stop, _) = connect(RpcServer::new("test", kept));
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    sleep(SECOND).await;
    stop.send_replace(true);
    let begun = Instant::now();
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(begun.elapsed(), Duration::ZERO, "idle");

    let (mut client, stop, _) = connect(RpcServer::new("test", kept));
    client.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    sleep(SECOND).await;
    stop.send_replace(true);
    let begun = Instant::now();
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("connection: close"), "{text}");
    assert_eq!(begun.elapsed(), 2 * SECOND, "running");
}

#[tokio::test]
async fn a_full_server_evicts_an_idle_connection_for_a_new_one_and_ends_within_its_grace() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let few = ServerLimits { connections: 2, grace: Some(SECOND / 10), ..limits() };
    let running = tokio::spawn(RpcServer::new("test", few).run(socket, answer, async { drop(ended.await) }));
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let mut slow = tokio::net::TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    sleep(SECOND / 10).await;
    drop(end);
    let begun = Instant::now();
    running.await.unwrap();
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "it no longer listens");
}
