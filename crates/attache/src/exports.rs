//! The exports of a generation to OpenTelemetry collectors.

use attache_telemetry::{ExportHandle, OtlpLogHandle, Traces};

/// The exports of a generation to collectors.
#[derive(Clone, Debug, Default)]
pub(crate) struct OtlpExports {
    pub(crate) traces: Traces,
    pub(crate) logs: OtlpLogHandle,
    /// Metrics are sent as long as this is kept.
    pub(crate) metrics: Option<ExportHandle>,
}

impl OtlpExports {
    /// The process ends: waiting data is sent, and then nothing more.
    pub(crate) fn end(&self) {
        self.traces.end();
        self.logs.end();
        if let Some(metrics) = &self.metrics {
            metrics.end();
        }
    }

    /// Another generation is used now: an export of metrics that it doesn't keep ends. Otherwise both would send the same series.
    pub(crate) fn end_unless_kept(&self, next: &Self) {
        if let Some(own) = &self.metrics
            && next.metrics.as_ref().is_none_or(|other| !own.is(other))
        {
            own.end();
        }
    }
}
