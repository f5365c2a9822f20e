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
        bind(Text<MetricsAddress>),
        /// The application's own metrics, put behind attache's on `/metrics`. If the application doesn't answer, attache's own metrics are
        /// still there, and `attache_app_scrape_success` is 0.
        app in metrics: Vec<AppMetrics> as List<NestedOrShort> = Vec::new(),
        /// Answers for probes and monitors, made from endpoints of the application (the adapter pattern). Each has its
        /// own path.
        adapt(Mapping<AppPath, Spanned<ParsedSection<Adapter>>>): Vec<Adapter> as Adapters = Vec::new(),
        /// Under which names the series are shown, for existing dashboards and alerts. Only in Prometheus' text format, not in
        /// OpenMetrics.
        names: MetricNames = MetricNames::default(),
        /// With `names: istio`: the workload's name.
        #[schema(default = "unknown", examples = ["${WORKLOAD}"])]
        workload: Option<Name> as Optional<Word> = None,
        /// With `names: istio`: the workload's namespace.
        #[schema(default = "unknown", examples = ["${POD_NAMESPACE}"])]
        namespace: Option<Name> as Optional<Word> = None,
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
        /// What its answer must be.
        ..expect: Expect,
    }
    holds {
        /// The path that it has on the port of the metrics.
        path: Name = "".into(),
        /// Whether the file has `statuses` or `json`. If not, the answer is passed on unchanged.
        checks: bool = false,
    }
    requires from
    shows Self::show_expected
}

impl Adapter {
    /// Bytes of an answer's body.
    pub const MAX_SIZE: usize = 1 << 20;

    fn show_expected(&self, shown: &mut Object<String, Value>) {
        shown.retain(|key, _| self.checks || !Expect::KEYS.contains(&key.as_str()));
    }
}

section! {
    "what an adapter expects"
    /// What is expected of an answer.
    pub struct Expect: Eq {
        /// The statuses of a good answer. With this or `json`, every answer becomes `ok` or `failed`; no answer is `failed`.
        #[schema(default = "2xx")]
        status: Vec<StatusRange> as List<StatusRangeText> = vec![StatusRange { from: 200, to: 299 }],
        /// JSON pointers (RFC 6901) into a good answer's body, each with the expected value.
        #[schema(examples = [json!({ "/status": "UP" })])]
        json: Vec<(Name, Name)> as Pairs<JsonPointer, JsonScalar> = Vec::new(),
        /// The adapter's status if the answer is as expected.
        #[schema(minimum = 200, maximum = 599)]
        ok: StatusCode as StatusNumber = StatusCode::OK,
        /// The adapter's status otherwise.
        #[schema(minimum = 200, maximum = 599)]
        failed: StatusCode as StatusNumber = StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl Expect {
    /// If the file gives one of these keys, answers are checked.
    pub(crate) const KEYS: [&str; 4] = ["status", "json", "ok", "failed"];
}

/// A value of JSON that isn't a mapping or list.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum JsonScalar {
    Truth(bool),
    Text(Text<Word>),
}

impl Show<Name> for JsonScalar {
    fn show(value: &Name) -> Value {
        Value::from(&**value)
    }
}

impl Notation<Name> for JsonScalar {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Self>()
    }

    fn read(value: Value) -> serde_json::Result<Name> {
        Ok(match serde_json::from_value(value)? {
            Self::Truth(truth) => truth.to_string().into(),
            Self::Text(text) => text.0,
        })
    }
}

/// Adapters by their path.
struct Adapters;

impl Show<Vec<Adapter>> for Adapters {
    fn show(value: &Vec<Adapter>) -> Value {
        Value::Object(value.iter().map(|adapter| (adapter.path.to_string(), json!(adapter))).collect())
    }
}

/// A URL of the application: plain HTTP to an address, so that a request needs no DNS look-up.
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
