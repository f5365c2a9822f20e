//! A listener on a worker of its own, and clients that send raw bytes.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test binary includes this module and uses a part of it"
)]

mod frames;

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use attache_config::model::{Bind, Listener};
use attache_http::Body;
use attache_listener::{
    Connections, ConnectionsPerWorker, Drain, DrainTrigger, HttpRequest, ListenerSettings, OpaqueConnection,
    bind, serve,
};
use attache_telemetry::{Exchange, Metrics, Reason};
use http::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

pub use frames::*;

/// Far longer than anything here takes; only a defect reaches it.
pub const FOREVER: Duration = Duration::from_secs(20);

pub fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(FOREVER, future).await.expect("the test hangs") })
}

pub fn listener() -> Listener {
    Listener {
        bind: vec![Bind::Tcp("127.0.0.1:0".parse().unwrap())],
        server_first_ports: vec![],
        detect_timeout: Duration::from_millis(200),
        max_connections: 100,
        tcp_idle_timeout: Duration::from_mins(1),
        ..Listener::new("test")
    }
}

/// Runs hyper's tasks on the test's thread.
#[derive(Clone)]
pub struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async {
            future.await;
        });
    }
}

/// A service made from a function.
pub struct FnService<F>(pub Rc<F>);

impl<F> Clone for FnService<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

pub fn fun<F>(f: F) -> FnService<F> {
    FnService(Rc::new(f))
}

impl<Q, A, F, Fut> tower::Service<Q> for FnService<F>
where
    F: Fn(Q) -> Fut,
    Fut: Future<Output = A> + 'static,
{
    type Response = A;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<A, Infallible>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Q) -> Self::Future {
        let future = (self.0)(request);
        Box::pin(async { Ok(future.await) })
    }
}

/// The report of one exchange.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportedExchange {
    pub protocol: &'static str,
    pub method: String,
    pub host: String,
    pub path: String,
    pub client: Option<SocketAddr>,
    pub status: u16,
    pub reason: Option<Reason>,
    pub detail: Option<String>,
    pub received: u64,
    pub sent: u64,
}

pub struct TestServer {
    pub address: SocketAddr,
    pub trigger: DrainTrigger,
    pub done: Rc<RefCell<Vec<ReportedExchange>>>,
    pub connections: Arc<Connections>,
    pub task: JoinHandle<()>,
    /// Replaces the settings.
    pub settings: tokio::sync::watch::Sender<Rc<ListenerSettings>>,
}

/// A service with the proxy's own type of responses, made from a service with the `http` crate's type.
#[derive(Clone)]
pub struct Answering<H>(pub H);

impl<H> tower::Service<HttpRequest> for Answering<H>
where
    H: tower::Service<HttpRequest, Response = Response<Body>, Error = Infallible, Future: Unpin + 'static>,
{
    type Response = attache_wire::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: HttpRequest) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async { Ok(answer.await?.into()) })
    }
}

pub fn start<H, T>(listener: Listener, tls: Option<attache_tls::Acceptor>, http: H, tcp: T) -> TestServer
where
    H: tower::Service<HttpRequest, Response = Response<Body>, Error = Infallible, Future: Unpin + 'static>
        + Clone
        + 'static,
    T: tower::Service<OpaqueConnection, Response: Into<attache_listener::OpaqueOutcome>, Error = Infallible>
        + Clone
        + 'static,
{
    start_taking(attache_http::AcceptedTraffic { http: true, opaque: true }, listener, tls, http, tcp)
}

/// The same with routes that accept this kind of traffic.
pub fn start_taking<H, T>(
    takes: attache_http::AcceptedTraffic,
    listener: Listener,
    tls: Option<attache_tls::Acceptor>,
    http: H,
    tcp: T,
) -> TestServer
where
    H: tower::Service<HttpRequest, Response = Response<Body>, Error = Infallible, Future: Unpin + 'static>
        + Clone
        + 'static,
    T: tower::Service<OpaqueConnection, Response: Into<attache_listener::OpaqueOutcome>, Error = Infallible>
        + Clone
        + 'static,
{
    let http = Answering(http);
    let sockets = bind(&listener.bind[0], &ConnectionsPerWorker::new(1)).unwrap();
    let address = sockets[0].local_addr().unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
    let done: Rc<RefCell<Vec<ReportedExchange>>> = Rc::default();
    let note = done.clone();
    let on_finish = Rc::new(move |exchange: &Exchange| {
        note.borrow_mut().push(ReportedExchange {
            protocol: exchange.protocol,
            method: exchange.method.borrow().to_string(),
            host: exchange.host.borrow().to_string(),
            path: exchange.path.borrow().to_string(),
            client: exchange.client,
            status: exchange.status.get(),
            reason: exchange.reason.get(),
            detail: exchange.detail.borrow().clone(),
            received: exchange.received.get(),
            sent: exchange.sent.get(),
        });
    });
    let connections = Arc::new(Connections::default());
    let settings = ListenerSettings {
        listener: Arc::new(listener),
        tls,
        connections: connections.clone(),
        takes: Rc::new(move |_| takes),
        passes_tls: false,
        overload: Arc::default(),
        on_finish,
        release_memory: || {},
        drain_timeout: FOREVER,
    };
    let (settings, following) = tokio::sync::watch::channel(Rc::new(settings));
    let trigger = DrainTrigger::new();
    let drain: Drain = trigger.subscribe();
    let task = tokio::task::spawn_local(serve(following, sockets, http, tcp, drain));
    TestServer { address, trigger, done, connections, task, settings }
}

/// A server that answers with the request, and echoes opaque bytes.
pub fn echo(listener: Listener) -> TestServer {
    start(listener, None, fun(answer), fun(echo_bytes))
}

pub fn text(status: u16, text: impl Into<bytes::Bytes>) -> Response<Body> {
    http::Response::builder().status(status).body(Body::full(text)).unwrap()
}

pub async fn answer(request: HttpRequest) -> Response<Body> {
    use http_body_util::BodyExt;
    if let Some(refusal) = request.refused {
        request.exchange.fail(refusal.reason, refusal.text.to_string());
        return text(refusal.reason.status().as_u16(), refusal.text.into_owned());
    }
    let (head, body) = request.request.into_parts();
    match body.collect().await {
        Ok(body) => {
            let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            text(200, format!("{} {} [{body}]", head.method, head.uri))
        }
        Err(error) => {
            let reason = error.reason.unwrap_or(Reason::InternalError);
            request.exchange.fail(reason, "body");
            text(reason.status().as_u16(), format!("body: {reason}"))
        }
    }
}

pub async fn echo_bytes(mut opaque: OpaqueConnection) {
    let hello = opaque.hello.take().map(|hello| format!("{hello:?}\n")).unwrap_or_default();
    let _ = opaque.io.write_all(hello.as_bytes()).await;
    let mut space = [0; 4096];
    while let Ok(n @ 1..) = opaque.io.read(&mut space).await {
        let _ = opaque.io.write_all(&space[..n]).await;
    }
    let _ = opaque.io.shutdown().await;
}

impl TestServer {
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes and reads until the server closes.
    pub async fn ask(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.connect().await;
        client.write_all(bytes.as_ref()).await.unwrap();
        read_to_end(&mut client).await
    }

    /// Waits until this many exchanges were reported.
    pub async fn finished(&self, count: usize) -> Vec<ReportedExchange> {
        until(|| self.done.borrow().len() >= count).await;
        self.done.borrow().clone()
    }
}

/// Metrics that this thread counts into.
pub fn installed() -> Metrics {
    let metrics = Metrics::new();
    metrics.worker().install();
    metrics
}

/// Waits until a sample has this value.
pub async fn counted(metrics: &Metrics, sample: &str) {
    until(|| metrics.render().lines().any(|line| line == sample)).await;
}

pub async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub async fn read_to_end(client: &mut TcpStream) -> String {
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.expect("the server must not reset");
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads until this text has arrived.
pub async fn read_until(client: &mut (impl AsyncReadExt + Unpin), wanted: &str) -> String {
    let mut all = Vec::new();
    while !String::from_utf8_lossy(&all).contains(wanted) {
        let n = client.read_buf(&mut all).await.unwrap();
        assert!(n > 0, "closed before {wanted:?}: {:?}", String::from_utf8_lossy(&all));
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Counts how often the function is called.
pub fn counter() -> (Rc<Cell<u32>>, impl Fn()) {
    let count = Rc::new(Cell::new(0));
    let same = count.clone();
    (count, move || same.set(same.get() + 1))
}
