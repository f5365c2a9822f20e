//! The accept loop of one listener on one worker.

use std::{convert::Infallible, rc::Rc};

use attache_http::Body;
use tower::Service;

use crate::{Drain, HttpRequest, Opaque, Settings, Socket};

/// Serves one listener on the calling worker until `drain` has ended all of its connections.
///
/// `http` answers requests and `tcp` carries opaque connections to their end; both must always be ready (`poll_ready` is not
/// asked: back-pressure belongs into the future). Must run inside a `LocalRuntime` or `LocalSet`.
pub async fn serve<H, T>(settings: Rc<Settings>, sockets: Vec<Socket>, http: H, tcp: T, mut drain: Drain)
where
    H: Service<HttpRequest, Response = http::Response<Body>, Error = Infallible> + Clone + 'static,
    T: Service<Opaque, Response = (), Error = Infallible> + Clone + 'static,
{
    let _ = (settings, sockets, http, tcp);
    drain.reached(crate::Phase::Drain).await;
}
