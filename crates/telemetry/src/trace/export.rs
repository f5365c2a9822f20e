//! Sends finished traces to a collector in batches: by OTLP, or as Zipkin's JSON.

use std::sync::Arc;

use attache_config::model::{self, Collector, ExportProtocol};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout_at},
};

use super::{convert, finished::FinishedTrace, zipkin};
use crate::{
    Metrics,
    otlp::{Dial, Exporter, PartialSuccess, resource},
};

/// The most traces in one export.
const BATCH: usize = 512;

/// The export of one config's traces.
#[derive(Debug)]
pub struct TraceExports {
    config: model::Tracing,
    waiting: mpsc::Receiver<Box<FinishedTrace>>,
    ending: Arc<Notify>,
    metrics: Metrics,
}

impl TraceExports {
    pub(super) const fn new(
        config: model::Tracing,
        waiting: mpsc::Receiver<Box<FinishedTrace>>,
        ending: Arc<Notify>,
        metrics: Metrics,
    ) -> Self {
        Self { config, waiting, ending, metrics }
    }

    #[cfg(test)]
    pub(super) const fn waiting(&mut self) -> &mut mpsc::Receiver<Box<FinishedTrace>> {
        &mut self.waiting
    }

    /// The collector: its address, and what a connection to it needs.
    pub const fn collector(&self) -> &Collector {
        &self.config.collector
    }

    /// The next trace; `None` when there will be no more.
    async fn next(&mut self) -> Option<Box<FinishedTrace>> {
        tokio::select! {
            biased;
            next = self.waiting.recv() => next,
            () = self.ending.notified() => {
                self.waiting.close();
                self.waiting.recv().await
            }
        }
    }

    /// Exports until every [`Traces`](super::Traces) of the config is dropped or was told to end, and nothing waits. Call it within a
    /// `LocalSet` or `LocalRuntime`.
    pub async fn run(mut self, dial: Dial) {
        let resource = resource(&self.config.collector);
        let metrics = self.metrics.worker();
        let interval = self.config.interval;
        let mut exporter = Exporter::new(self.config.collector.clone(), dial, "traces");
        let mut batch = Vec::new();
        while let Some(first) = self.next().await {
            batch.push(first);
            let until = Instant::now() + interval;
            while batch.len() < BATCH {
                match timeout_at(until, self.next()).await {
                    Ok(Some(more)) => batch.push(more),
                    Ok(None) | Err(_) => break,
                }
            }
            let spans: u64 = batch.iter().map(|one| one.spans()).sum();
            let message = if self.config.collector.protocol == ExportProtocol::Zipkin {
                zipkin::encode(&resource, &batch)
            } else {
                let resource_spans = vec![convert::resource_spans(&resource, &batch)];
                ExportTraceServiceRequest { resource_spans }.encode_to_vec()
            };
            batch.clear();
            match exporter.export(&message, rejected).await {
                Some(rejected) => {
                    let rejected = rejected.min(spans);
                    metrics.spans_exported(spans - rejected);
                    if rejected > 0 {
                        metrics.spans_dropped("rejected", rejected);
                    }
                }
                None => metrics.spans_dropped("export-failed", spans),
            }
        }
    }
}

fn rejected(answer: &[u8]) -> Option<PartialSuccess> {
    let partial = ExportTraceServiceResponse::decode(answer).ok()?.partial_success?;
    Some(PartialSuccess { count: partial.rejected_spans, message: partial.error_message })
}
