//! Counters that are shown as 0 before anything is counted: one for each event that the config makes possible.
//!
//! Why: Prometheus' `rate` and `increase` compare two samples. A series whose first sample is a 1 shows no increase. So the first failure
//! of a kind, often the only one, would be missed by every alert.
//!
//! Rule: a row of [`table`](super::table) says which zeros it starts with, and a scrape adds them; workers hold no cell for them. Only
//! likely reasons have a zero. At most [`MAX_SERIES`] series of `attache_requests_total` are added, in the order of the config: the number
//! of series still depends only on the config.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
};

use attache_config::model::{Action, Config, ListenProtocol, Name, UpstreamProtocol};

use super::Metrics;
use crate::Reason;

/// The most series of `attache_requests_total` that are shown as 0.
const MAX_SERIES: usize = 4096;

/// The most frequent reasons why calls and connections to an upstream fail.
const COMMON: &[Reason] = &[
    Reason::NoEndpoint,
    Reason::NoHealthyEndpoint,
    Reason::ConnectRefused,
    Reason::ConnectTimeout,
    Reason::ConnectFailed,
    Reason::DnsNxdomain,
    Reason::DnsTimeout,
    Reason::DnsFailed,
    Reason::CircuitOpen,
    Reason::OverflowRequests,
    Reason::OverflowPending,
    Reason::OverflowConnections,
    Reason::Overloaded,
];
/// Reasons that only calls have.
const OF_CALLS: &[Reason] = &[
    Reason::UpstreamReset,
    Reason::RequestTimeout,
    Reason::PerTryTimeout,
    Reason::UpstreamProtocolError,
    Reason::RateLimited,
    Reason::DeniedByRule,
];
/// Reasons of upstreams that are called over TLS.
pub(super) const OF_TLS: &[Reason] = &[
    Reason::TlsUntrusted,
    Reason::TlsNameMismatch,
    Reason::TlsExpired,
    Reason::TlsHandshakeFailed,
    Reason::TlsTimeout,
];
pub(super) const OF_CONNECTIONS: &[Reason] =
    &[Reason::ConnectRefused, Reason::ConnectTimeout, Reason::ConnectFailed];
pub(super) const OF_RETRIES: &[Reason] = &[
    Reason::ConnectRefused,
    Reason::ConnectTimeout,
    Reason::ConnectFailed,
    Reason::UpstreamReset,
    Reason::UpstreamError,
    Reason::PerTryTimeout,
];
pub(super) const OF_OVERFLOW: &[Reason] = &[
    Reason::OverflowRequests,
    Reason::OverflowPending,
    Reason::OverflowConnections,
    Reason::CircuitOpen,
    Reason::RetryBudgetExhausted,
];
/// Why connections of clients end with an error.
const OF_LISTENERS: &[Reason] =
    &[Reason::HeaderTimeout, Reason::IdleTimeout, Reason::BadRequest, Reason::Overloaded];
/// Reasons of listeners that accept TLS.
const OF_TLS_LISTENERS: &[Reason] = &[
    Reason::TlsNoClientCertificate,
    Reason::TlsUntrusted,
    Reason::TlsExpired,
    Reason::TlsHandshakeFailed,
    Reason::TlsTimeout,
];
/// The changes of state that endpoints of every upstream can have.
const OF_STATES: &[(&str, &str)] =
    &[("connection", "unreachable"), ("connection", "back"), ("ejection", "ejected"), ("ejection", "back")];
pub(super) const OF_DNS: &[&str] = &["ok", "dns-nxdomain", "dns-timeout", "dns-failed"];

/// What the running config makes possible.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    /// Labels of `attache_requests_total`.
    requests: Vec<[Name; 6]>,
    listeners: Vec<ExpectedListener>,
    upstreams: Vec<ExpectedUpstream>,
}

#[derive(Clone, Debug)]
struct ExpectedListener {
    name: Name,
    tls: bool,
}

#[derive(Clone, Debug)]
struct ExpectedUpstream {
    name: Name,
    tls: bool,
    /// It has a failure breaker.
    breaker: bool,
    /// Its health is checked.
    checked: bool,
}

impl Metrics {
    /// Starts to use this config: everything that it makes possible is counted from 0.
    pub fn expect(&self, config: &Config) {
        let expected = Expected::of(config);
        self.0.semantic.store(super::semantic::wanted(config), Relaxed);
        let known = Arc::new(super::ConfiguredParts::of(config));
        *self.0.control.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
        *self.0.control.expected.lock().unwrap_or_else(PoisonError::into_inner) = expected;
    }
}

impl Expected {
    fn of(config: &Config) -> Self {
        let mut requests = BTreeSet::new();
        for listener in &config.listeners {
            let spoken: &[&str] = match listener.protocol {
                ListenProtocol::Http1 => &["http1"],
                ListenProtocol::Http2 => &["http2"],
                ListenProtocol::Tcp => &["tcp"],
                ListenProtocol::Tls => &["tls"],
                ListenProtocol::Auto | ListenProtocol::Http => &["http1", "http2"],
            };
            for protocol in spoken.iter().filter(|protocol| protocol.starts_with("http")) {
                let reason = Reason::NoRoute;
                let words = ["", "", protocol, class(reason), reason.as_str()].map(Name::from);
                let [route, upstream, protocol, code, reason] = words;
                requests.insert([listener.name.clone(), route, upstream, protocol, code, reason]);
            }
            for route in &listener.routes {
                let Action::Forward(forward) = &route.action else { continue };
                for upstream in forward.to.iter().filter_map(|to| config.upstreams.get(to.upstream.0)) {
                    let of = |protocol: &str, code: &str, reason: &str| {
                        let [protocol, code, reason] = [protocol, code, reason].map(Name::from);
                        [
                            listener.name.clone(),
                            route.name.clone(),
                            upstream.name.clone(),
                            protocol,
                            code,
                            reason,
                        ]
                    };
                    let spoken: &[&str] = match upstream.protocol {
                        _ if !route.matcher.sni.is_empty() => &["tls"],
                        UpstreamProtocol::Tcp => &["tcp"],
                        _ => spoken,
                    };
                    for protocol in spoken {
                        if requests.len() >= MAX_SERIES {
                            break;
                        }
                        if !protocol.starts_with("http") {
                            requests.extend(COMMON.iter().map(|reason| of(protocol, "", reason.as_str())));
                            continue;
                        }
                        requests.extend(["2xx", "5xx"].map(|code| of(protocol, code, "")));
                        // The response had begun.
                        requests.insert(of(protocol, "2xx", Reason::UpstreamClosedMidBody.as_str()));
                        let tls = if upstream.tls.is_some() { OF_TLS } else { &[] };
                        let reasons = COMMON.iter().chain(OF_CALLS).chain(tls);
                        requests.extend(reasons.map(|reason| of(protocol, class(*reason), reason.as_str())));
                    }
                }
            }
        }
        let listeners = config
            .listeners
            .iter()
            .map(|listener| ExpectedListener { name: listener.name.clone(), tls: listener.tls.is_some() });
        let upstreams = config.upstreams.iter().map(|upstream| ExpectedUpstream {
            name: upstream.name.clone(),
            tls: upstream.tls.is_some(),
            breaker: upstream.circuit_breaker.failures.is_some(),
            checked: upstream.health_check.is_some(),
        });
        Self {
            requests: requests.into_iter().collect(),
            listeners: listeners.collect(),
            upstreams: upstreams.collect(),
        }
    }

    /// Labels of `attache_requests_total`.
    pub(super) fn requests(&self) -> Vec<[Name; 6]> {
        self.requests.clone()
    }

    /// Each upstream with each of these words.
    pub(super) fn upstreams(&self, words: &[&str]) -> Vec<[Name; 2]> {
        let each = self
            .upstreams
            .iter()
            .flat_map(|upstream| words.iter().map(|word| [upstream.name.clone(), Name::from(*word)]));
        each.collect()
    }

    /// Each upstream with each of these reasons; and if it is called over TLS, with those of TLS.
    pub(super) fn upstream_reasons(&self, reasons: &[Reason], of_tls: &[Reason]) -> Vec<[Name; 2]> {
        let each = self.upstreams.iter().flat_map(|upstream| {
            let of_tls = if upstream.tls { of_tls } else { &[] };
            [reasons, of_tls]
                .concat()
                .into_iter()
                .map(|reason| [upstream.name.clone(), reason.as_str().into()])
        });
        each.collect()
    }

    /// Each listener with the reasons why its clients' connections may end.
    pub(super) fn listener_reasons(&self) -> Vec<[Name; 2]> {
        let each = self.listeners.iter().flat_map(|listener| {
            let of_tls = if listener.tls { OF_TLS_LISTENERS } else { &[] };
            let reasons = OF_LISTENERS.iter().chain(of_tls);
            reasons.map(|reason| [listener.name.clone(), reason.as_str().into()])
        });
        each.collect()
    }

    /// Each upstream with the changes of state that its config makes possible.
    pub(super) fn transitions(&self) -> Vec<[Name; 3]> {
        let each = self.upstreams.iter().flat_map(|upstream| {
            let breaker = ["open", "half-open", "closed"].map(|to| ("circuit", to));
            let health = ["unhealthy", "healthy"].map(|to| ("health", to));
            let breaker = breaker.into_iter().filter(|_| upstream.breaker);
            let health = health.into_iter().filter(|_| upstream.checked);
            let all = OF_STATES.iter().copied().chain(breaker).chain(health);
            all.map(|(what, to)| [upstream.name.clone(), what.into(), to.into()])
        });
        each.collect()
    }
}

/// Each of these words as the only label.
pub(super) fn words(words: &[&str]) -> Vec<[Name; 1]> {
    words.iter().map(|word| [Name::from(*word)]).collect()
}

/// The `code` of an answer that attache makes for this reason.
fn class(reason: Reason) -> &'static str {
    if reason.status().is_server_error() { "5xx" } else { "4xx" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Exchange;

    fn config(text: &str) -> Config {
        attache_config::parse(text, None, &|_| None).unwrap()
    }

    fn value(page: &str, series: &str) -> Option<f64> {
        let line = page.lines().find(|line| line.starts_with(series))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    #[test]
    fn the_first_failure_of_a_kind_is_an_increase() {
        let metrics = Metrics::new();
        metrics.expect(&config("upstreams: { orders: 'http://127.0.0.1:1' }"));
        let series = "attache_requests_total{listener=\"outbound\",route=\"outbound/0\",upstream=\"orders\",protocol=\"http1\",\
                      code=\"5xx\",reason=\"connect-refused\"}";
        let failures =
            "attache_upstream_connection_failures_total{upstream=\"orders\",reason=\"connect-refused\"}";
        let before = metrics.render();
        assert_eq!(value(&before, series), Some(0.0), "{before}");
        assert_eq!(value(&before, failures), Some(0.0), "{before}");
        for series in [
            "attache_connections_closed_total{listener=\"outbound\",reason=\"header-timeout\"}",
            "attache_upstream_transitions_total{upstream=\"orders\",what=\"ejection\",to=\"ejected\"}",
        ] {
            assert_eq!(value(&before, series), Some(0.0), "{before}");
        }
        assert!(!before.contains("what=\"circuit\"") && !before.contains("what=\"health\""), "{before}");
        // No histogram without a value, and no reason of TLS if no upstream uses TLS.
        assert!(
            !before.contains("attache_request_duration_seconds") && !before.contains("tls-untrusted"),
            "{before}"
        );

        let exchange = Exchange::new("outbound".into(), "http1", None);
        exchange.route.replace(Some("outbound/0".into()));
        exchange.upstream.replace(Some("orders".into()));
        exchange.status.set(503);
        exchange.reason.set(Some(Reason::ConnectRefused));
        metrics.worker().request_finished(&exchange);
        assert_eq!(value(&metrics.render(), series), Some(1.0));
    }

    #[test]
    fn the_features_of_a_config_have_their_counters() {
        let metrics = Metrics::new();
        metrics.expect(&config(
            "listeners: { in: { bind: ':1', tls: { certificate: a.crt, key: a.key }, to: orders } }\n\
             upstreams: { orders: { address: 'http://127.0.0.1:1', health_check: { tcp: true }, circuit_breaker: { failures: { consecutive: 3 } } } }\n",
        ));
        let page = metrics.render();
        for series in [
            "attache_connections_closed_total{listener=\"in\",reason=\"tls-handshake-failed\"} 0\n",
            "attache_upstream_transitions_total{upstream=\"orders\",what=\"circuit\",to=\"open\"} 0\n",
            "attache_upstream_transitions_total{upstream=\"orders\",what=\"health\",to=\"unhealthy\"} 0\n",
            "code=\"2xx\",reason=\"upstream-closed-mid-body\"} 0\n",
        ] {
            assert!(page.contains(series), "{series} in {page}");
        }
    }

    #[test]
    fn the_number_of_series_is_bounded_however_many_routes_there_are() {
        let routes: Vec<_> =
            (0..500).map(|at| format!("{{ match: {{ path: /{at} }}, to: orders }}")).collect();
        let text = format!(
            "listeners: {{ a: {{ bind: ':1', routes: [{}] }} }}\nupstreams: {{ orders: 'http://127.0.0.1:1' }}\n",
            routes.join(", ")
        );
        let metrics = Metrics::new();
        metrics.expect(&config(&text));
        let series =
            metrics.render().lines().filter(|line| line.starts_with("attache_requests_total")).count();
        assert!((MAX_SERIES..MAX_SERIES + 64).contains(&series), "{series}");
    }

    #[test]
    fn a_reload_removes_unused_zeros_and_keeps_counted_series() {
        let metrics = Metrics::new();
        metrics.expect(&config("upstreams: { orders: 'tcp://127.0.0.1:1' }"));
        assert!(metrics.render().contains("protocol=\"tcp\",code=\"\",reason=\"connect-refused\""));
        metrics.expect(&config("upstreams: { users: 'https://users.test' }"));
        let page = metrics.render();
        assert!(
            !page.contains("orders") && page.contains("upstream=\"users\",reason=\"tls-untrusted\""),
            "{page}"
        );
    }
}
