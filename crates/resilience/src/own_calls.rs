//! attache's own calls through the layers of an upstream: an authorizer or a rate limit service is called like any
//! upstream.

use std::{cell::RefCell, rc::Rc};

use attache_config::model::Name;
use attache_http::{Body, Client};
use attache_rpc::{CallRequest, UpstreamService};
use attache_telemetry::Exchange;
use attache_upstream::{Call, CallContext, Error};
use attache_wire::Response;

/// `name` is the upstream's name, `authority` the Host of the requests, and `layers` are the upstream's layers.
pub fn own_calls<S>(name: Name, authority: Name, layers: S) -> UpstreamService
where
    S: tower::Service<Call, Response = Response<Body>, Error = Error> + 'static,
    S::Future: 'static,
{
    let layers = RefCell::new(layers);
    UpstreamService::new(name, authority, move |CallRequest { request, protocol, asker }| {
        let exchange = Exchange::new(asker, protocol, None);
        let context = CallContext::new(Rc::new(Client::default()), Rc::new(exchange));
        let sent = layers.borrow_mut().call(Call::new(request.map(Body::full), context));
        async move { sent.await.map_err(|error| format!("{}: {}", error.reason, error.detail())) }
    })
}
