//! A listener that answers every request with 1 KiB. It shows what accepting, detecting, reading and writing cost without an upstream.
//!
//! `strace -c -f target/debug/examples/answer 127.0.0.1:8080` counts its system calls.

use std::{convert::Infallible, future::Ready, rc::Rc, sync::Arc};

use attache_config::model::{Bind, Listener};
use attache_http::Body;
use attache_listener::{
    Connections, ConnectionsPerWorker, DrainTrigger, HttpRequest, ListenerSettings, OpaqueConnection, bind,
    serve,
};
use attache_wire::Response;
use bytes::Bytes;

#[derive(Clone)]
struct ExampleService;

impl tower::Service<HttpRequest> for ExampleService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: HttpRequest) -> Self::Future {
        static KIB: [u8; 1024] = [b'x'; 1024];
        std::future::ready(Ok(Response::new(Body::full(Bytes::from_static(&KIB)))))
    }
}

#[derive(Clone)]
struct Close;

impl tower::Service<OpaqueConnection> for Close {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: OpaqueConnection) -> Self::Future {
        std::future::ready(Ok(()))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into()).parse()?;
    let listener =
        Listener { bind: vec![Bind::Tcp(address)], server_first_ports: vec![], ..Listener::new("answer") };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    let sockets = bind(&listener.bind[0], &ConnectionsPerWorker::new(1))?;
    let settings = ListenerSettings {
        listener: Arc::new(listener),
        tls: None,
        connections: Arc::new(Connections::default()),
        takes: Rc::new(|_| attache_http::AcceptedTraffic { http: true, opaque: true }),
        passes_tls: false,
        overload: Arc::default(),
        on_finish: Rc::new(|_| {}),
        release_memory: || {},
        drain_timeout: std::time::Duration::from_secs(30),
    };
    let (_replace, settings) = tokio::sync::watch::channel(Rc::new(settings));
    let trigger = DrainTrigger::new();
    runtime.block_on(serve(settings, sockets, ExampleService, Close, trigger.subscribe()));
    Ok(())
}
