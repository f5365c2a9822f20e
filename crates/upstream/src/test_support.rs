//! Small values that this crate's tests share.

use std::{rc::Rc, sync::Arc};

use attache_config::model::{Address, Balance, Upstream};

use attache_http::Client;
use attache_telemetry::Exchange;

use crate::{
    Attempt, CallContext, Endpoint, EndpointAddress, EndpointSpec, OutcomeReceivers, RequestPermit,
    SharedUpstream,
};

/// A plaintext upstream with defaults everywhere and no endpoint source.
pub(crate) fn upstream(name: &str) -> Upstream {
    Upstream::new(name, Address::Endpoints(Vec::new()))
}

/// `10.0.x.y:80`, weight 1.
pub(crate) fn spec(n: u16) -> EndpointSpec {
    let [high, low] = n.to_be_bytes();
    EndpointSpec::new(EndpointAddress::Tcp(([10, 0, high, low], 80).into()))
}

/// An upstream with these endpoints.
pub(crate) fn shared(balance: Balance, specs: Vec<EndpointSpec>) -> Arc<SharedUpstream> {
    let shared = SharedUpstream::new(Arc::new(Upstream { balance, ..upstream("test") }));
    shared.replace_endpoints(specs, None);
    Arc::new(shared)
}

/// A context for an attempt.
pub(crate) fn context() -> CallContext {
    CallContext::new(Rc::new(Client::default()), Rc::new(Exchange::new("test".into(), "http1", None)))
}

/// An attempt at this endpoint.
pub(crate) fn attempt(
    shared: &Arc<SharedUpstream>,
    endpoint: &Arc<Endpoint>,
    context: &CallContext,
) -> Attempt {
    Attempt::begin(
        RequestPermit::take(shared).unwrap(),
        endpoint.clone(),
        context,
        OutcomeReceivers::default(),
    )
}
