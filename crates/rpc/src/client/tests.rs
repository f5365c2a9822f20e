use std::future::pending;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::sleep,
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn bounds() -> CallLimits {
    CallLimits { connect: 2 * SECOND, total: 5 * SECOND, head: 16 << 10, body: 1000 }
}

fn request() -> Request<Full<Bytes>> {
    Request::get("http://peer/x").header("host", "peer").body(Full::default()).unwrap()
}

/// Makes a call to a peer whose side of the connection is handled by this function.
async fn call_peer<F, T>(protocol: CallProtocol, peer: F) -> (Result<CollectedResponse, Error>, Duration)
where
    F: FnOnce(DuplexStream) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let (client, server) = duplex(64 << 10);
    let running = tokio::spawn(peer(server));
    let begun = Instant::now();
    let result = call(async { Ok(OpenedConnection::new(client, protocol)) }, request(), bounds()).await;
    let elapsed = begun.elapsed();
    running.abort();
    (result, elapsed)
}

async fn says(mut io: DuplexStream, text: &str) {
    let mut asked = [0; 4096];
    let _ = io.read(&mut asked).await;
    let _ = io.write_all(text.as_bytes()).await;
    pending::<()>().await;
}

/// Sends `first`, then `then` again and again for as long as the client reads.
async fn repeats(mut io: DuplexStream, first: &[u8], then: &[u8], pause: Duration) {
    // It waits for the request: bytes before it would not be a response to it.
    let _ = io.read(&mut [0; 4096]).await;
    let _ = io.write_all(first).await;
    while io.write_all(then).await.is_ok() {
        sleep(pause).await;
    }
    pending::<()>().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_read_with_its_body() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-a: b\r\n\r\nok";
    let (result, _) = call_peer(CallProtocol::Http1, |io| says(io, answer)).await;
    let collected = result.unwrap();
    assert_eq!((collected.status.as_u16(), &collected.body[..]), (200, &b"ok"[..]));
    assert_eq!(collected.headers["x-a"], "b");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_open_ends_after_its_timeout() {
    let begun = Instant::now();
    let result = call(pending(), request(), bounds()).await;
    assert!(matches!(result, Err(Error::ConnectTimeout(_))), "{result:?}");
    assert_eq!(begun.elapsed(), 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_nothing_ends_after_the_total_time() {
    for protocol in [CallProtocol::Http1, CallProtocol::Http1AsGo, CallProtocol::Http2] {
        let (result, elapsed) = call_peer(protocol, |io| says(io, "")).await;
        assert!(matches!(result, Err(Error::Timeout(_))), "{protocol:?}: {result:?}");
        assert_eq!(elapsed, 5 * SECOND, "{protocol:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dripping_head_and_a_dripping_body_end_after_the_total_time() {
    let head = &b"HTTP/1.1 200 OK\r\n"[..];
    let (result, elapsed) =
        call_peer(CallProtocol::Http1, move |io| repeats(io, head, b"x-a: b\r\n", SECOND / 5)).await;
    assert!(matches!(result, Err(Error::Timeout(_))), "{result:?}");
    assert_eq!(elapsed, 5 * SECOND);
    let head = &b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"[..];
    let (result, elapsed) =
        call_peer(CallProtocol::Http1, move |io| repeats(io, head, b"x", SECOND / 5)).await;
    assert!(matches!(result, Err(Error::Timeout(_))), "{result:?}");
    assert_eq!(elapsed, 5 * SECOND);
    let informational = &b"HTTP/1.1 103 Early Hints\r\n\r\n"[..];
    let (result, elapsed) =
        call_peer(CallProtocol::Http1, move |io| repeats(io, b"", informational, SECOND / 5)).await;
    assert!(matches!(result, Err(Error::Timeout(_))), "{result:?}");
    assert_eq!(elapsed, 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_endless_head_ends_at_its_limit() {
    for protocol in [CallProtocol::Http1, CallProtocol::Http1AsGo] {
        let line = [&b"x-a: "[..], &[b'a'; 1000], b"\r\n"].concat();
        let peer = move |io| async move { repeats(io, b"HTTP/1.1 200 OK\r\n", &line, Duration::ZERO).await };
        let (result, elapsed) = call_peer(protocol, peer).await;
        assert!(matches!(result, Err(Error::Http(_))), "{protocol:?}: {result:?}");
        assert!(elapsed < SECOND);
    }
    // SETTINGS; HEADERS of stream 1 without END_HEADERS; then one CONTINUATION after another.
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let headers = [0, 0, 1, 1, 0, 0, 0, 0, 1, 0x88];
    let field = [&[0, 3][..], b"x-a", &[100], &[b'a'; 100]].concat();
    let continuation = [&[0, 0, field.len() as u8, 9, 0, 0, 0, 0, 1][..], &field].concat();
    let first = [&settings[..], &headers].concat();
    let peer = move |io| async move { repeats(io, &first, &continuation, Duration::ZERO).await };
    let (result, elapsed) = call_peer(CallProtocol::Http2, peer).await;
    assert!(matches!(result, Err(Error::Http(_))), "{result:?}");
    assert!(elapsed < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_long_ends_at_its_limit() {
    let long = format!("HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n{}", "x".repeat(1001));
    let (result, _) = call_peer(CallProtocol::Http1, move |io| async move { says(io, &long).await }).await;
    assert!(matches!(result, Err(Error::TooLong(1000))), "{result:?}");
    let head = &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"[..];
    let (result, elapsed) =
        call_peer(CallProtocol::Http1, move |io| repeats(io, head, b"1\r\nx\r\n", Duration::ZERO)).await;
    assert!(matches!(result, Err(Error::TooLong(1000))), "{result:?}");
    assert!(elapsed < 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_an_error() {
    let peer = |mut io: DuplexStream| async move {
        let _ = io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
    };
    let (result, _) = call_peer(CallProtocol::Http1, peer).await;
    assert!(matches!(result, Err(Error::Http(_))), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_with_its_answer_and_a_kept_one_serves_again() {
    let (client, mut server) = duplex(64 << 10);
    let mut client =
        RpcConnection::connect(async { Ok(OpenedConnection::new(client, CallProtocol::Http1)) }, bounds())
            .await
            .unwrap();
    let mut asked = [0; 4096];
    for _ in 0..2 {
        let answered = async {
            let _ = server.read(&mut asked).await;
            let _ = server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        };
        let (result, ()) = tokio::join!(client.call(request()), answered);
        assert_eq!(result.unwrap().status.as_u16(), 204);
    }
    drop(client);
    assert_eq!(server.read(&mut asked).await.unwrap(), 0, "closed");

    for protocol in [CallProtocol::Http1, CallProtocol::Http2] {
        let (client, mut server) = duplex(64 << 10);
        let dial = async { Ok(OpenedConnection::new(client, protocol)) };
        let _ = stream(dial, request(), bounds()).await;
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
    }
}
