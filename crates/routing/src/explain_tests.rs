//! What `explain` says of a config as it is written.

use attache_http::Client;

use crate::{RouteTable, explain, testing::request};

fn explained(config: &str, method: &str, url: &str, headers: &[(&str, &str)]) -> String {
    let config = attache_config::parse(config, None, &|_| None).unwrap();
    let table = RouteTable::new(&config.listeners[0]);
    explain(&table, &request(method, url, headers), &Client::default(), &config.upstreams).to_string()
}

const SHOP: &str = "listeners: { inbound: { bind: ':15006', cors: { origins: ['https://shop.test'] }, to: app,\n\
                    authorization: { allow: [{ identity: ['spiffe://shop/web'] }] } } }\n\
                    upstreams: { app: 'http://127.0.0.1:8080' }\n";

#[test]
fn a_preflight_meets_no_access_rules_and_the_request_behind_it_does() {
    let asks = [("origin", "https://shop.test"), ("access-control-request-method", "PUT")];
    let preflight = explained(SHOP, "OPTIONS", "app.test/v1", &asks);
    assert!(preflight.contains("\nanswer the preflight with 200"), "{preflight}");
    assert!(preflight.contains("this one is"), "{preflight}");
    for word in ["access rules of", "denied-by-rule", "to upstream"] {
        assert!(!preflight.contains(word), "{word} in {preflight}");
    }
    // Without the header of a preflight it is a request like any other.
    for (method, headers) in [("OPTIONS", &asks[..1]), ("PUT", &asks[..1])] {
        let text = explained(SHOP, method, "app.test/v1", headers);
        assert!(text.contains("answered with denied-by-rule"), "{text}");
    }
}

#[test]
fn what_becomes_of_connections_to_an_unhealthy_endpoint_is_said_where_one_can_turn_so() {
    let of = |keys: &str| {
        explained(
            &format!("upstreams: {{ a: {{ address: 'http://a.test', {keys} }} }}"),
            "GET",
            "a.test/",
            &[],
        )
    };
    assert!(of("on_unhealthy: close").contains("unhealthy endpoints: idle connections are closed"));
    assert!(of("health_check: { path: / }").contains("unhealthy endpoints: open connections stay"));
    assert!(!of("connect_timeout: 1s").contains("unhealthy endpoints"));
}
