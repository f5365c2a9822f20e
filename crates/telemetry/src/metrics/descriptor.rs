//! The name, kind, labels and help text of a metric.

/// How the value of a metric changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricKind {
    /// It only rises, until the process restarts.
    Counter,
    /// It rises and falls.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

impl MetricKind {
    /// Its name in Prometheus' formats.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug)]
pub(crate) struct MetricDescriptor {
    pub(crate) name: &'static str,
    pub(crate) kind: MetricKind,
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
}

impl MetricDescriptor {
    /// The unit, which is the last part of the name: `seconds`, `bytes`, or none.
    pub(crate) fn unit(&self) -> Option<&'static str> {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit))
    }
}
