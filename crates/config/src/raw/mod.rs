//! The file as it is written: every key optional that has a default, shorthands as alternatives.
//!
//! These types are the only list of keys. The schema is generated from them (and from it the checker's rules and the
//! reference in `docs/config.md`); defaults shown there are taken from the model, where they stand.

mod collector;
mod otlp;
mod tracing;

use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) use collector::CollectorKeys;
pub(crate) use otlp::*;
pub(crate) use tracing::*;

pub(crate) use crate::shapes::*;

use crate::{
    model,
    section::{Read, Short},
    text::{Label, Positive, show_duration},
};

/// An attache config: what is listened on (`listeners`), where calls go (`upstreams`), and how the program runs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "the config")]
pub(crate) struct Root {
    /// What is listened on, by name. Without any, one listener `outbound` on `127.0.0.1:15001`.
    pub(crate) listeners: Option<Map<Label, At<Read<model::Listener>>>>,
    /// Where calls go, by name. An address alone is short for `{ address: … }`.
    pub(crate) upstreams: Option<Map<Label, Short<model::Upstream>>>,
    /// Issuers of tokens (JWT), by name, for `jwt` of `authorization`.
    pub(crate) jwt: Option<Map<Label, Read<model::JwtProvider>>>,
    /// Services that decide over requests, by name, for `external` of `authorization`.
    pub(crate) authorizers: Option<Map<Label, At<Read<model::Authorizer>>>>,
    /// Worker threads. By default the container's CPU quota, rounded up.
    #[schemars(range(min = 1, max = 1024), extend("examples" = [2]))]
    pub(crate) workers: Option<usize>,
    /// How names are looked up.
    pub(crate) dns: Option<At<model::Dns>>,
    /// Where `/metrics`, `/healthz` and `/readyz` answer, and what they tell of the application. An address alone is short for
    /// `{ bind: … }`.
    #[schemars(extend("default" = model::Config::METRICS.to_string()))]
    pub(crate) metrics: Option<Short<model::AppTold>>,
    /// Where the admin API and the dashboard answer. At the default a port that is taken only switches it off, with a warning; an
    /// address that stands here must be free. An address alone is short for `{ bind: … }`.
    #[schemars(extend("default" = model::Admin::ADDRESS.to_string()))]
    pub(crate) admin: Option<Short<model::Admin>>,
    /// Where finished requests and connections are written.
    #[schemars(extend("default" = "off"))]
    pub(crate) access_log: Option<Short<model::AccessLog>>,
    /// Traces by OpenTelemetry. An endpoint alone is short for `{ otlp: … }`; without this key none are begun, and those that come
    /// are passed on.
    pub(crate) tracing: Option<TracingForm>,
    /// Metrics and logs to an OpenTelemetry collector. An endpoint alone is short for `{ to: … }`; without this key none are sent.
    #[schemars(extend("examples" = ["http://collector:4318"]))]
    pub(crate) otlp: Option<OtlpForm>,
    /// How the program ends on SIGTERM.
    pub(crate) shutdown: Option<model::Shutdown>,
    /// How a changed config is taken while the old one serves.
    pub(crate) reload: Option<model::Reload>,
    /// What is done when the container's memory or the file descriptors run out. On by default; or `off`.
    pub(crate) overload: Option<OrOff<At<model::Overload>>>,
    /// How often the files that the config names (certificates, keys, roots, revocation lists, secrets) are looked at; a change is
    /// in use when two looks in a row found the same. At least 10 ms.
    #[schemars(extend("default" = show_duration(model::Config::WATCH_INTERVAL)))]
    pub(crate) watch_interval: Option<At<Txt<Positive>>>,
}
