//! `metrics:`, and what is told there of the application.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Map, OneOrMany, Txt};
use crate::{
    model,
    text::{
        AdminAddress, AppPath, AppUrlText, JsonPointer, MetricName, MetricsAddress, Positive, Size,
        StatusRangeText, Word, show_duration,
    },
};

/// The address alone, or with what is told of the application.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum MetricsForm {
    At(Txt<MetricsAddress>),
    Full(Box<MetricsPort>),
}

/// Metrics, probes, and what is told there of the application.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`metrics`")]
pub(crate) struct MetricsPort {
    /// Where they answer.
    #[schemars(extend("default" = model::Config::METRICS.to_string()))]
    pub(crate) bind: Option<Txt<MetricsAddress>>,
    /// The application's own metrics, put behind attache's on `/metrics`. While it gives no answer, attache's are there all the same, and
    /// `attache_app_scrape_success` is 0.
    pub(crate) app: Option<OneOrMany<AppMetricsForm>>,
    /// Endpoints of the application under another path, with another meaning (the adapter pattern): what a prober or monitor
    /// asks for, made of what the application has.
    pub(crate) adapt: Option<Map<AppPath, Adapter>>,
    /// Under whose names the series are told, for dashboards and alerts that are there already. Only in Prometheus' text, not in OpenMetrics.
    #[schemars(extend("default" = "attache"))]
    pub(crate) names: Option<model::MetricNames>,
    /// With `names: istio`: the workload's name.
    #[schemars(extend("default" = "unknown", "examples" = ["${WORKLOAD}"]))]
    pub(crate) workload: Option<Txt<Word>>,
    /// With `names: istio`: the workload's namespace.
    #[schemars(extend("default" = "unknown", "examples" = ["${POD_NAMESPACE}"]))]
    pub(crate) namespace: Option<Txt<Word>>,
}

/// What `metrics` says beside its address.
#[derive(Default)]
pub(crate) struct MetricsRest {
    pub(crate) app: Option<OneOrMany<AppMetricsForm>>,
    pub(crate) adapt: Adapters,
    pub(crate) names: Option<model::MetricNames>,
    pub(crate) workload: Option<Txt<Word>>,
    pub(crate) namespace: Option<Txt<Word>>,
}

/// Where the application's metrics are, alone or with options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum AppMetricsForm {
    Url(Txt<AppUrlText>),
    Full(AppMetrics),
}

/// The application's metrics.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`app` of the metrics")]
pub(crate) struct AppMetrics {
    /// Where they are.
    pub(crate) from: Txt<AppUrlText>,
    /// How long they are waited for.
    #[schemars(extend("default" = show_duration(model::AppMetrics::TIMEOUT)))]
    pub(crate) timeout: Option<Txt<Positive>>,
    /// A page larger than this counts as none.
    #[schemars(extend("default" = "8MiB"))]
    pub(crate) max_size: Option<Txt<Size>>,
    /// The page is JSON: gauges by their name, each with the JSON pointer (RFC 6901) of its number, or of its `true` or `false`.
    #[schemars(extend("examples" = [{ "app_queue_depth": "/queue/depth" }]))]
    pub(crate) gauges: Option<Map<MetricName, Txt<JsonPointer>>>,
}

/// An endpoint of the application in another form. Without any expectation its answer is passed on as it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`adapt` of the metrics")]
pub(crate) struct Adapter {
    /// What is asked, with `GET`.
    pub(crate) from: Txt<AppUrlText>,
    /// How long its answer is waited for.
    #[schemars(extend("default" = show_duration(model::Adapter::TIMEOUT)))]
    pub(crate) timeout: Option<Txt<Positive>>,
    /// The statuses of a good answer. With this or `json`, every answer becomes `ok` or `failed`, and so does none.
    #[schemars(extend("default" = "2xx"))]
    pub(crate) status: Option<OneOrMany<Txt<StatusRangeText>>>,
    /// JSON pointers (RFC 6901) into a good answer's body, each with the value that stands there.
    #[schemars(extend("examples" = [{ "/status": "UP" }]))]
    pub(crate) json: Option<Map<JsonPointer, JsonScalar>>,
    /// The status of the adapter where everything is as expected.
    #[schemars(range(min = 200, max = 599), extend("default" = 200))]
    pub(crate) ok: Option<u16>,
    /// The status of the adapter where it isn't.
    #[schemars(range(min = 200, max = 599), extend("default" = 503))]
    pub(crate) failed: Option<u16>,
}

/// A value of JSON that isn't a mapping or list.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum JsonScalar {
    Truth(bool),
    Text(Txt<Word>),
}

/// Adapters by their path.
pub(crate) type Adapters = Option<Map<AppPath, Adapter>>;

impl MetricsForm {
    /// The address, and the rest.
    pub(crate) fn parts(self) -> (Option<MetricsAddress>, MetricsRest) {
        match self {
            Self::At(bind) => (Some(bind.0), MetricsRest::default()),
            Self::Full(full) => {
                let MetricsPort { bind, app, adapt, names, workload, namespace } = *full;
                (bind.map(|bind| bind.0), MetricsRest { app, adapt, names, workload, namespace })
            }
        }
    }
}

/// The address of the admin API alone, or with its options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum AdminForm {
    At(Txt<AdminAddress>),
    Full(AdminPort),
}

/// Where the admin API and the dashboard answer, and what else is there.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`admin`")]
pub(crate) struct AdminPort {
    /// Where they answer.
    #[schemars(extend("default" = model::Admin::ADDRESS.to_string()))]
    pub(crate) bind: Option<Txt<AdminAddress>>,
    /// Paths of Envoy's admin API are answered, too: `/stats/prometheus`, `/clusters`, `/config_dump`, `/ready`, `/server_info`, `/logging`.
    #[schemars(extend("default" = false))]
    pub(crate) envoy_compatible: Option<bool>,
}

impl AdminForm {
    /// The address where one is said, and whether Envoy's paths are answered.
    pub(crate) fn parts(self) -> (Option<AdminAddress>, bool) {
        match self {
            Self::At(bind) => (Some(bind.0), false),
            Self::Full(full) => (full.bind.map(|bind| bind.0), full.envoy_compatible.unwrap_or(false)),
        }
    }
}
