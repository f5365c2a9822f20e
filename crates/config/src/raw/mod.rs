//! The file as it is written: every key optional that has a default, shorthands as alternatives.
//!
//! These types are the only list of keys. The schema is generated from them (and from it the checker's rules and the
//! reference in `docs/config.md`); defaults shown there are taken from the model, where they stand.

mod access_log;
mod app;
mod authorization;
mod authorizer;
mod credential;
mod global_limit;
mod jwt;
mod listener;
mod load;
mod overload;
mod route;
mod shapes;
mod tls;
mod tracing;
mod upstream;
mod web;

use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) use access_log::*;
pub(crate) use app::*;
pub(crate) use authorization::*;
pub(crate) use authorizer::*;
pub(crate) use credential::*;
pub(crate) use global_limit::*;
pub(crate) use jwt::*;
pub(crate) use listener::*;
pub(crate) use load::*;
pub(crate) use overload::*;
pub(crate) use route::*;
pub(crate) use shapes::*;
pub(crate) use tls::*;
pub(crate) use tracing::*;
pub(crate) use upstream::*;
pub(crate) use web::*;

use crate::{
    model,
    text::{AdminAddress, DnsServer, File, Label, Length, Positive, Word, show_duration},
};

/// An attache config: what is listened on (`listeners`), where calls go (`upstreams`), and how the program runs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "the config")]
pub(crate) struct Root {
    /// What is listened on, by name. Without any, one listener `outbound` on `127.0.0.1:15001`.
    pub(crate) listeners: Option<Map<Label, Listener>>,
    /// Where calls go, by name. An address alone is short for `{ address: … }`.
    pub(crate) upstreams: Option<Map<Label, Upstream>>,
    /// Issuers of tokens (JWT), by name, for `jwt` of `authorization`.
    pub(crate) jwt: Option<Map<Label, JwtProvider>>,
    /// Services that decide over requests, by name, for `external` of `authorization`.
    pub(crate) authorizers: Option<Map<Label, Authorizer>>,
    /// Worker threads. By default the container's CPU quota, rounded up.
    #[schemars(range(min = 1, max = 1024), extend("examples" = [2]))]
    pub(crate) workers: Option<usize>,
    /// How names are looked up.
    pub(crate) dns: Option<Dns>,
    /// Where `/metrics`, `/healthz` and `/readyz` answer, and what they tell of the application. An address alone is short for
    /// `{ bind: … }`.
    #[schemars(extend("default" = model::Config::METRICS.to_string()))]
    pub(crate) metrics: Option<At<MetricsForm>>,
    /// Where the admin API and the dashboard answer. At the default a port that is taken only switches it off, with a warning; an
    /// address that stands here must be free.
    #[schemars(extend("default" = model::Admin::ADDRESS.to_string()))]
    pub(crate) admin: Option<At<Txt<AdminAddress>>>,
    /// Where finished requests and connections are written.
    #[schemars(extend("default" = "off"))]
    pub(crate) access_log: Option<AccessLogForm>,
    /// Traces by OpenTelemetry. An endpoint alone is short for `{ otlp: … }`; without this key none are begun, and those that come
    /// are passed on.
    pub(crate) tracing: Option<TracingForm>,
    /// How the program ends on SIGTERM.
    pub(crate) shutdown: Option<Shutdown>,
    /// How a changed config is taken while the old one serves.
    pub(crate) reload: Option<Reload>,
    /// What is done when the container's memory or the file descriptors run out. On by default; or `off`.
    pub(crate) overload: Option<OrOff<Overload>>,
    /// How often the files that the config names (certificates, keys, roots, revocation lists, secrets) are looked at; a change is
    /// in use when two looks in a row found the same. At least 10 ms.
    #[schemars(extend("default" = show_duration(model::Config::WATCH_INTERVAL)))]
    pub(crate) watch_interval: Option<At<Txt<Positive>>>,
}

/// Name resolution.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`dns`")]
pub(crate) struct Dns {
    /// Servers to ask instead of those of `resolv_conf`; the port is 53 unless given.
    pub(crate) servers: Option<OneOrMany<Txt<DnsServer>>>,
    /// Where search domains, `ndots` and servers are read from.
    #[schemars(extend("default" = model::Dns::default().resolv_conf))]
    pub(crate) resolv_conf: Option<Txt<File>>,
    /// Search domains instead of those of `resolv_conf`.
    #[schemars(extend("examples" = [["shop.svc.cluster.local", "svc.cluster.local"]]))]
    pub(crate) search: Option<OneOrMany<Txt<Word>>>,
    /// A name with fewer dots is tried with the search domains first; instead of that of `resolv_conf`.
    #[schemars(range(max = 15), extend("examples" = [5]))]
    pub(crate) ndots: Option<u8>,
    /// How long one server is waited for. While it has its default, `timeout` of `resolv_conf` counts.
    #[schemars(extend("default" = show_duration(model::Dns::default().timeout)))]
    pub(crate) timeout: Option<Txt<Positive>>,
    /// How often the list of servers is gone through. While it has its default, `attempts` of `resolv_conf` counts.
    #[schemars(range(min = 1, max = 10), extend("default" = model::Dns::default().attempts))]
    pub(crate) attempts: Option<usize>,
    /// A TTL below this counts as this.
    #[schemars(extend("default" = show_duration(model::Dns::default().min_ttl)))]
    pub(crate) min_ttl: Option<Txt<Positive>>,
    /// A TTL above this counts as this.
    #[schemars(extend("default" = show_duration(model::Dns::default().max_ttl)))]
    pub(crate) max_ttl: Option<At<Txt<Positive>>>,
    /// How long a failed look-up waits before it is tried again, doubled up to 5 s (not above `max_ttl`).
    #[schemars(extend("default" = show_duration(model::Dns::default().retry_interval)))]
    pub(crate) retry_interval: Option<Txt<Positive>>,
    /// Which address families are used.
    #[schemars(extend("default" = model::DnsFamily::default()))]
    pub(crate) family: Option<model::DnsFamily>,
}

/// How the program ends.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`shutdown`")]
pub(crate) struct Shutdown {
    /// New work is still accepted for this long after SIGTERM.
    #[schemars(extend("default" = show_duration(model::Shutdown::default().delay)))]
    pub(crate) delay: Option<Txt<Length>>,
    /// Running work may take this long before it is cut. The default is below Kubernetes' 30 s.
    #[schemars(extend("default" = show_duration(model::Shutdown::default().drain_timeout)))]
    pub(crate) drain_timeout: Option<Txt<Length>>,
}

/// How a changed config is taken.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`reload`")]
pub(crate) struct Reload {
    /// The file, and those that it takes values from by `!file`, are followed and read again when they change. SIGHUP
    /// and the admin API reload in any case.
    #[schemars(extend("default" = model::Reload::default().watch))]
    pub(crate) watch: Option<bool>,
    /// Connections of a listener that is gone, or changed in what concerns open connections, may finish for this long before
    /// they are cut.
    #[schemars(extend("default" = show_duration(model::Reload::default().drain_timeout)))]
    pub(crate) drain_timeout: Option<Txt<Length>>,
}
