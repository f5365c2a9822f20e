//! The application on the metrics port: its own metrics, and its endpoints in the form that others expect (the adapter
//! pattern).

use super::prelude::*;

/// Under which names the metrics are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MetricNames {
    /// attache's alone.
    #[default]
    Attache,
    /// Envoy's series of clusters, listeners and connection managers, behind attache's.
    Envoy,
    /// Istio's standard metrics (`istio_requests_total`), behind attache's.
    Istio,
}

section! {
    "`metrics`"
    /// Metrics, probes, and the application's own metrics and probes.
    pub struct MetricsPage {
        /// The address of the metrics and probes.
        #[schema(default = Config::METRICS.to_string())]
        bind(Txt<MetricsAddress>),
        /// The application's own metrics, put behind attache's on `/metrics`. If the application doesn't answer, attache's own metrics are
        /// still there, and `attache_app_scrape_success` is 0.
        app in metrics: Vec<AppMetrics> as List<NestedOrShort> = Vec::new(),
        /// Endpoints of the application under another path, with another meaning (the adapter pattern): what a prober or monitor
        /// asks for, made of what the application has.
        adapt(Mapping<AppPath, Read<Adapter>>): Vec<Adapter> as Adapters = Vec::new(),
        /// Under which names the series are shown, for existing dashboards and alerts. Only in Prometheus' text format, not in
        /// OpenMetrics.
        names: MetricNames = MetricNames::default(),
        /// With `names: istio`: the workload's name.
        #[schema(default = "unknown", examples = ["${WORKLOAD}"])]
        workload: Option<Name> as Maybe<Word> = None,
        /// With `names: istio`: the workload's namespace.
        #[schema(default = "unknown", examples = ["${POD_NAMESPACE}"])]
        namespace: Option<Name> as Maybe<Word> = None,
    }
    or bind
}

section! {
    "`app` of the metrics"
    /// The application's metrics.
    pub struct AppMetrics {
        /// The URL of the metrics.
        from: AppUrl as AppUrlText = AppUrl::default(),
        /// The longest wait for them.
        timeout: Duration as Positive = Duration::from_secs(5),
        /// A page larger than this counts as none.
        max_size: usize as Size = 8 << 20,
        /// The page is JSON: gauges by their name, each with the JSON pointer (RFC 6901) of its number, or of its `true` or `false`.
        // Empty: it is Prometheus' text.
        #[schema(examples = [json!({ "app_queue_depth": "/queue/depth" })])]
        gauges: Vec<(Name, Name)> as Pairs<MetricName, JsonPointer> = Vec::new(),
    }
    requires from
    or from
}

section! {
    "`adapt` of the metrics"
    /// An endpoint of the application in another form. Without any expectation its answer is passed on unchanged.
    pub struct Adapter {
        /// The URL that gets a `GET`.
        from: AppUrl as AppUrlText = AppUrl::default(),
        /// The longest wait for its answer.
        // As long as the kubelet waits.
        timeout: Duration as Positive = Duration::from_secs(1),
        /// The statuses of a good answer. With this or `json`, every answer becomes `ok` or `failed`; no answer is `failed`.
        #[schema(default = "2xx")]
        status(OneOrMany<Txt<StatusRangeText>>),
        /// JSON pointers (RFC 6901) into a good answer's body, each with the expected value.
        #[schema(examples = [json!({ "/status": "UP" })])]
        json(Mapping<JsonPointer, JsonScalar>),
        /// The status of the adapter where everything is as expected.
        #[schema(minimum = 200, maximum = 599, default = 200)]
        ok(u16),
        /// The status of the adapter where it isn't.
        #[schema(minimum = 200, maximum = 599, default = 503)]
        failed(u16),
    }
    holds {
        /// The path that it has on the port of the metrics.
        path: Name = "".into(),
        /// What its answer becomes.
        answer: Adapt = Adapt::Pass,
    }
    requires from
    shows Self::show_expected
}

impl Adapter {
    /// Bytes of an answer's body.
    pub const MAX_SIZE: usize = 1 << 20;

    fn show_expected(&self, shown: &mut Object<String, Value>) {
        let Adapt::Expect(Expect { status, json, ok, failed }) = &self.answer else { return };
        shown.insert("status".into(), List::<Written>::show(status));
        let json = json.iter().map(|(at, is)| (at.to_string(), Value::from(&**is)));
        shown.insert("json".into(), Value::Object(json.collect()));
        shown.extend([("ok".into(), ok.as_u16().into()), ("failed".into(), failed.as_u16().into())]);
    }
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
struct Adapters;

impl Show<Vec<Adapter>> for Adapters {
    fn show(value: &Vec<Adapter>) -> Value {
        Value::Object(value.iter().map(|adapter| (adapter.path.to_string(), json!(adapter))).collect())
    }
}

/// What an adapter's answer is.
#[derive(Clone, Debug, PartialEq)]
pub enum Adapt {
    /// The application's own answer, unchanged.
    Pass,
    /// `ok` where everything that is expected is there, `failed` where it isn't or where there is no answer.
    Expect(Expect),
}

/// What is expected of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Expect {
    /// Its status is within one of these. Default 200 to 299.
    pub status: Vec<StatusRange>,
    /// JSON pointers (RFC 6901) into its body, each with the expected value, as text.
    pub json: Vec<(Name, Name)>,
    /// The status for "yes". Default 200.
    pub ok: StatusCode,
    /// The status for "no". Default 503.
    pub failed: StatusCode,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            status: vec![StatusRange { from: 200, to: 299 }],
            json: Vec::new(),
            ok: StatusCode::OK,
            failed: StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// A URL of the application: plain HTTP to an address, so that asking needs no look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppUrl {
    /// Where it listens.
    pub address: SocketAddr,
    /// The value of `Host`.
    pub authority: Name,
    /// Path and query.
    pub path: Name,
}

impl Default for AppUrl {
    fn default() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        Self { address, authority: "localhost".into(), path: "/".into() }
    }
}
