//! Tests of the probe port over real sockets, with requests as plain bytes.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::Instant,
};

use super::*;

struct RunningProbes {
    address: std::net::SocketAddr,
    state: AdminState,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

async fn start() -> RunningProbes {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let state = AdminState {
        metrics: Metrics::new(),
        readiness: Readiness::new(),
        app: crate::AppMetricsHandle::default(),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let served = state.clone();
    let ended = tokio::spawn(async move {
        serve(socket, served, async {
            let _ = stopped.await;
        })
        .await;
    });
    RunningProbes { address, state, stop, ended }
}

impl RunningProbes {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Status and body of the answer, with its head in between.
    async fn ask(&self, method: &str, path: &str) -> (u16, String, String) {
        let mut stream = self.connect().await;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: pod:15090\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        read(stream).await
    }
}

/// Reads to the end: the server closes after each answer.
async fn read(mut stream: TcpStream) -> (u16, String, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn a_running_process_is_healthy_even_if_it_is_not_ready() {
    let running = start().await;
    assert_eq!(running.ask("GET", "/healthz").await.0, 200);
    let (status, _, body) = running.ask("GET", "/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("the listeners are not open yet\n"), "{body}");

    running.state.readiness.config_loaded();
    running.state.readiness.listening();
    running.state.readiness.discovering([], Duration::ZERO);
    assert_eq!(running.ask("GET", "/readyz").await.0, 200);

    running.state.readiness.draining();
    let (status, _, body) = running.ask("GET", "/readyz").await;
    assert_eq!((status, &*body), (503, "draining: the process is ending\n"));
    assert_eq!(running.ask("GET", "/healthz").await.0, 200);
}

#[tokio::test]
async fn metrics_are_in_the_format_that_prometheus_reads() {
    let running = start().await;
    running.state.metrics.worker().panic_caught();
    let (status, head, body) = running.ask("GET", "/metrics").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("\nattache_panics_total 1\n"), "{body}");
    assert!(body.ends_with('\n'));
}

#[tokio::test]
async fn only_get_and_head_are_answered_and_head_has_no_body() {
    let running = start().await;
    let (status, head, _) = running.ask("POST", "/metrics").await;
    assert_eq!(status, 405);
    assert!(head.contains("allow: get, head"), "{head}");
    let (status, head, body) = running.ask("HEAD", "/healthz").await;
    assert_eq!((status, &*body), (200, ""));
    assert!(head.contains("content-length: 3"), "{head}");
    assert_eq!(running.ask("GET", "/config").await.0, 404, "the admin API is elsewhere");
    assert_eq!(running.ask("GET", "/quitquitquit").await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_no_request_is_cut() {
    let running = start().await;
    let begun = Instant::now();
    let mut stream = running.connect().await;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHos").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 5, "{text}");
}

#[tokio::test]
async fn idle_connections_do_not_block_a_probe() {
    let running = start().await;
    let mut silent = Vec::new();
    for _ in 0..1000 {
        silent.push(running.connect().await);
    }
    for _ in 0..20 {
        let begun = Instant::now();
        assert_eq!(running.ask("GET", "/healthz").await.0, 200);
        // Without the eviction, the probe would wait for the timeout of a request's head: 5 s.
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn clients_that_send_their_heads_slowly_do_not_block_a_probe() {
    let running = start().await;
    let mut slow = Vec::new();
    for _ in 0..260 {
        let mut stream = running.connect().await;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: pod\r\nX: ").await.unwrap();
        slow.push(stream);
    }
    let begun = Instant::now();
    assert_eq!(running.ask("GET", "/healthz").await.0, 200);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_answer_is_cut() {
    let running = start().await;
    let worker = running.state.metrics.worker();
    for index in 0..8000 {
        // More than the kernel's buffers on both sides hold.
        worker.pool_reused(&format!("{index:04}{}", "x".repeat(4000)).into());
    }
    let begun = Instant::now();
    let mut stream = running.connect().await;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: pod\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let mut read = Vec::new();
    // The connection may be reset or closed.
    let _ = stream.read_to_end(&mut read).await;
    assert_eq!(begun.elapsed().as_secs(), 20);
    assert!(read.starts_with(b"HTTP/1.1 200 "), "it was answered");
    assert!(read.len() < 8000 * 4000, "only the bytes in the kernel's buffers arrived, not {}", read.len());
}

#[tokio::test]
async fn a_head_above_the_bound_is_refused() {
    let running = start().await;
    let mut stream = running.connect().await;
    let request = format!("GET / HTTP/1.1\r\nHost: pod\r\nX: {}\r\n\r\n", "x".repeat(20 << 10));
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    // The server may close before it has read everything, which resets the connection.
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 431 "), "{text}");
    assert_eq!(running.ask("GET", "/healthz").await.0, 200);
}

#[tokio::test]
async fn the_end_closes_the_socket_and_finishes_running_answers() {
    let running = start().await;
    assert_eq!(running.ask("GET", "/healthz").await.0, 200);
    running.stop.send(()).unwrap();
    running.ended.await.unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}
