//! Whole files: what the documentation shows is right, and means what it says.

use attache_config::{model::*, parse};

fn config(text: &str) -> Config {
    parse(text, None, &|_| None).unwrap_or_else(|found| panic!("{found}"))
}

const DESIGN: &str = r#"
listeners:
  outbound:
    bind: 127.0.0.1:15001
    protocol: auto                    # http1, http2, tls and opaque TCP told apart by the first bytes
    routes:
      - match: { host: orders.internal, path: /v1/*, methods: [GET, HEAD] }
        to: { orders: 95%, orders-next: 5% }
        timeout: 2s
        retry: { attempts: 2, per_try_timeout: 500ms, on: [connect-failure, reset, 503], budget: 20% }
      - match: { sni: "*.db.internal" }           # TLS passed through, not terminated
        to: database
  inbound:
    bind: 0.0.0.0:15006
    tls: { certificate: /certs/tls.crt, key: /certs/tls.key, client_ca: /certs/ca.crt, mode: strict,
           allow: ["spiffe://cluster.local/ns/shop/sa/web"] }
    to: app
upstreams:
  app: http://127.0.0.1:8080
  orders:
    address: https://orders.internal:8443         # a DNS name is looked up, every answer is an endpoint
    balance: least-request                        # peak-ewma, round-robin, ring-hash, maglev, random
    health_check: { path: /healthz, interval: 5s }
    circuit_breaker: { max_connections: 1024, max_pending: 1024, max_requests: 1024, max_retries: 3 }
    outlier_ejection: { consecutive_5xx: 5, base: 30s, max_percent: 10% }
  orders-next: https://orders-next.internal:8443
  database: srv://_postgres._tcp.db.internal
"#;

#[test]
fn the_design_example_is_right() {
    let config = config(DESIGN);
    assert_eq!(config.warnings, []);
    assert_eq!(config.listeners.len(), 2);
}
