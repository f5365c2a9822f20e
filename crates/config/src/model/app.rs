//! What the port of the metrics tells of the application: its own metrics, and its endpoints in the form that others expect (the
//! adapter pattern).

use std::{net::SocketAddr, time::Duration};

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Name, StatusRange};

/// Under whose names the metrics are told.
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

/// What the port of the metrics tells of the application.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct AppTold {
    /// Under whose names attache's own series are told.
    pub names: MetricNames,
    /// What Istio's names say of the workload: its name and namespace.
    pub workload: Option<Name>,
    /// The workload's namespace.
    pub namespace: Option<Name>,
    /// Pages of the application's metrics, put behind attache's own.
    pub metrics: Vec<AppMetrics>,
    /// Endpoints in another form.
    pub adapt: Vec<Adapter>,
}

/// One page of the application's metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct AppMetrics {
    /// Where it is.
    pub from: AppUrl,
    /// How long it may take. Default 5 s.
    pub timeout: Duration,
    /// Bytes that it may have. Default 8 MiB.
    pub max_size: usize,
    /// The page is JSON: gauges by their name, each with the JSON pointer (RFC 6901) of its number. Empty: it is Prometheus' text.
    pub gauges: Vec<(Name, Name)>,
}

impl AppMetrics {
    /// How long a page may take.
    pub const TIMEOUT: Duration = Duration::from_secs(5);
    /// Bytes that a page may have.
    pub const MAX_SIZE: usize = 8 << 20;
}

/// One endpoint of the application under another path, with another meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// The path that it has on the port of the metrics.
    pub path: Name,
    /// What is asked.
    pub from: AppUrl,
    /// How long it may take. Default 1 s, what the kubelet waits.
    pub timeout: Duration,
    /// What its answer becomes.
    pub answer: Adapt,
}

impl Adapter {
    /// How long an answer may take.
    pub const TIMEOUT: Duration = Duration::from_secs(1);
    /// Bytes of an answer's body.
    pub const MAX_SIZE: usize = 1 << 20;
}

/// What an adapter's answer is.
#[derive(Clone, Debug, PartialEq)]
pub enum Adapt {
    /// The application's own, as it is.
    Pass,
    /// `ok` where everything that is expected is there, `failed` where it isn't or where there is no answer.
    Expect(Expect),
}

/// What is expected of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Expect {
    /// Its status is within one of these. Default 200 to 299.
    pub status: Vec<StatusRange>,
    /// JSON pointers (RFC 6901) into its body, each with the value that must stand there, as text.
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
    /// What stands in `Host`.
    pub authority: Name,
    /// Path and query.
    pub path: Name,
}
