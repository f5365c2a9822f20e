//! Log records for a collector: one for each finished exchange, and the program's own log.
//!
//! They pass through a bounded queue to the control thread, which exports them. Records that don't fit are dropped and counted.

use std::{rc::Rc, sync::Arc, time::Duration};

use attache_config::model::{self, Collector, LogFilter};
use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    logs::v1::{ResourceLogs, ScopeLogs},
};
use prost::Message;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{
    Dial, ExportHandle, Exporter, PartialSuccess,
    attributes::{resource, scope},
    ending::ExportEnding,
    log_records::OtlpRecord,
    own_log,
};
use crate::{Exchange, Metrics, WorkerMetrics, access_log};

/// The most records in one export.
const BATCH: usize = 512;
/// How long records are collected (OpenTelemetry's batching processor waits as long).
const GATHER_TIME: Duration = Duration::from_secs(1);

/// The log records of one config, shared by its workers; without a collector it does nothing. It is cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct OtlpLogHandle(Option<Arc<OtlpLogSettings>>);

#[derive(Debug)]
struct OtlpLogSettings {
    filter: Vec<LogFilter>,
    queue: mpsc::Sender<OtlpRecord>,
    ending: ExportHandle,
}

/// The export of a config's log records.
#[derive(Debug)]
pub struct LogExports {
    config: model::OtlpLogs,
    waiting: mpsc::Receiver<OtlpRecord>,
    queue: mpsc::WeakSender<OtlpRecord>,
    ended: ExportEnding,
    metrics: Metrics,
}

impl OtlpLogHandle {
    /// The handle with which workers write records, and the export for the control thread (`None` without a collector). `filter` is that of
    /// the access log.
    pub fn new(
        config: Option<&model::OtlpLogs>,
        filter: &[LogFilter],
        metrics: &Metrics,
    ) -> (Self, Option<LogExports>) {
        let Some(config) = config else { return (Self(None), None) };
        let (queue, waiting) = mpsc::channel(config.queue.max(1));
        let (ending, ended) = ExportHandle::new();
        let weak = queue.downgrade();
        let exports =
            LogExports { config: config.clone(), waiting, queue: weak, ended, metrics: metrics.clone() };
        (Self(Some(Arc::new(OtlpLogSettings { filter: filter.to_vec(), queue, ending }))), Some(exports))
    }

    /// The process ends: waiting records are exported, and then the export ends.
    pub fn end(&self) {
        if let Some(settings) = &self.0 {
            settings.ending.end();
        }
    }

    /// The logger of one worker. Its `metrics` count the records that are dropped.
    pub fn logger(&self, metrics: &WorkerMetrics) -> OtlpLogger {
        OtlpLogger(self.0.clone().map(|settings| Rc::new((settings, metrics.clone()))))
    }
}

/// The log records as one worker uses them. It is cheap to clone, and stays on its thread.
#[derive(Clone, Debug)]
pub struct OtlpLogger(Option<Rc<(Arc<OtlpLogSettings>, WorkerMetrics)>>);

impl OtlpLogger {
    /// Writes the record of a finished exchange that took `total`. Never waits.
    pub fn write(&self, exchange: &Exchange, total: Duration) {
        let Some((settings, metrics)) = self.0.as_deref() else { return };
        if access_log::passes(&settings.filter, exchange, total)
            && settings.queue.try_send(OtlpRecord::of(exchange, total)).is_err()
        {
            metrics.log_records("queue-full", 1);
        }
    }
}

impl LogExports {
    /// The collector: its address, and what a connection to it needs.
    pub const fn collector(&self) -> &Collector {
        &self.config.collector
    }

    async fn next(&mut self) -> Option<OtlpRecord> {
        tokio::select! {
            biased;
            next = self.waiting.recv() => next,
            () = self.ended.wait() => {
                self.waiting.close();
                self.waiting.recv().await
            }
        }
    }

    /// Exports until every [`OtlpLogHandle`] of the config is dropped or was told to end, and nothing waits. Call it within a `LocalSet` or
    /// `LocalRuntime`.
    pub async fn run(mut self, dial: Dial) {
        let resource = resource(&self.config.collector);
        let worker = self.metrics.worker();
        let mut exporter = Exporter::new(self.config.collector.clone(), dial, "log records");
        own_log::take(self.queue.clone());
        let mut batch = Vec::new();
        while let Some(first) = self.next().await {
            batch.push(first.converted());
            let until = Instant::now() + GATHER_TIME;
            while batch.len() < BATCH {
                match timeout_at(until, self.next()).await {
                    Ok(Some(more)) => batch.push(more.converted()),
                    Ok(None) | Err(_) => break,
                }
            }
            let count = batch.len() as u64;
            let scope = ScopeLogs {
                scope: Some(scope()),
                log_records: std::mem::take(&mut batch),
                ..ScopeLogs::default()
            };
            let request = ExportLogsServiceRequest {
                resource_logs: vec![ResourceLogs {
                    resource: Some(resource.clone()),
                    scope_logs: vec![scope],
                    ..ResourceLogs::default()
                }],
            };
            match exporter.export(&request.encode_to_vec(), rejected).await {
                Some(rejected) => {
                    let rejected = rejected.min(count);
                    worker.log_records("exported", count - rejected);
                    if rejected > 0 {
                        worker.log_records("rejected", rejected);
                    }
                }
                None => worker.log_records("export-failed", count),
            }
        }
    }
}

fn rejected(answer: &[u8]) -> Option<PartialSuccess> {
    let partial = ExportLogsServiceResponse::decode(answer).ok()?.partial_success?;
    Some(PartialSuccess { count: partial.rejected_log_records, message: partial.error_message })
}
