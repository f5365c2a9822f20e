//! Small values that this crate's tests share.

use std::{sync::Arc, time::Duration};

use attache_config::model::{
    Address, Balance, CircuitBreaker, OutlierEjection, Pool, ProxyProtocolOut, Upstream, UpstreamProtocol,
};

use crate::{EndpointAddress, EndpointSpec, Shared};

/// A plaintext upstream with defaults everywhere and no endpoint source.
pub(crate) fn upstream(name: &str) -> Upstream {
    Upstream {
        name: name.into(),
        address: Address::Endpoints(Vec::new()),
        protocol: UpstreamProtocol::Auto,
        tls: None,
        balance: Balance::default(),
        connect_timeout: Duration::from_secs(1),
        handshake_timeout: Duration::from_secs(2),
        pool: Pool::default(),
        circuit_breaker: CircuitBreaker::default(),
        outlier_ejection: OutlierEjection::default(),
        health_check: None,
        credential: None,
        proxy_protocol: ProxyProtocolOut::Off,
        source_address: None,
        adaptive_concurrency: None,
        queue: None,
        line: 0,
    }
}

/// `10.0.x.y:80`, weight 1.
pub(crate) fn spec(n: u16) -> EndpointSpec {
    let [high, low] = n.to_be_bytes();
    EndpointSpec::new(EndpointAddress::Tcp(([10, 0, high, low], 80).into()))
}

/// An upstream with these endpoints.
pub(crate) fn shared(balance: Balance, specs: Vec<EndpointSpec>) -> Arc<Shared> {
    let shared = Shared::new(Arc::new(Upstream { balance, ..upstream("test") }));
    shared.replace_endpoints(specs, None);
    Arc::new(shared)
}
