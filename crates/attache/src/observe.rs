//! What observes requests, as a generation's config wants it: traces, the access log, and the exports to collectors.

use std::{io, rc::Rc};

use attache_config::model::{self, Config, ExportProtocol};
use attache_http::check_trace_context;
use attache_rpc::Io;
use attache_telemetry::{
    AccessLogger, DialFuture, Exchange, LogExports, MetricExports, OtlpLogHandle, OtlpLogger, TraceExports,
    Tracer, Traces, WorkerMetrics, finish_trace,
};
use attache_tls::{Connector, Workload};
use attache_wire::Fields;

use tokio::net::TcpStream;

use crate::{error::Error, exports::OtlpExports, generation::Generation, process::ProcessState};

/// A function that is called for every exchange that ended.
pub(crate) type OnFinish = Rc<dyn Fn(&Exchange)>;

/// The observer of one worker's requests. It is cheap to clone.
#[derive(Clone)]
pub(crate) struct Observer {
    tracer: Option<Tracer>,
    logger: AccessLogger,
    records: OtlpLogger,
}

impl Observer {
    pub(crate) fn new(generation: &Generation, metrics: &WorkerMetrics) -> Self {
        Self {
            tracer: generation.exported.traces.tracer(metrics),
            logger: generation.access_log.logger(metrics),
            records: generation.exported.logs.logger(metrics),
        }
    }

    /// A request arrived with these headers.
    pub(crate) fn request(&self, exchange: &Exchange, headers: &Fields) {
        self.logger.note_request(exchange, headers);
    }

    /// A request was read: it joins its trace, or begins one.
    pub(crate) fn traced(&self, exchange: &Exchange, headers: &mut Fields, tls: bool) {
        exchange.secure.set(tls);
        match &self.tracer {
            Some(tracer) => tracer.begin(exchange, headers, tls),
            None => exchange.trace_id.set(check_trace_context(headers)),
        }
    }

    /// A response with these headers is sent to the client.
    pub(crate) fn response(&self, exchange: &Exchange, headers: &Fields) {
        self.logger.note_response(exchange, headers);
    }
}

/// What happens at the end of every exchange. `observer` is the present one of the worker.
pub(crate) fn on_finish(metrics: WorkerMetrics, observer: Rc<std::cell::RefCell<Observer>>) -> OnFinish {
    Rc::new(move |exchange: &Exchange| {
        let total = metrics.request_finished(exchange);
        let observer = observer.borrow();
        observer.logger.write(exchange, total);
        observer.records.write(exchange, total);
        finish_trace(exchange, total);
    })
}

/// An export of a generation that was not started yet.
pub(crate) struct RunningCollector {
    export: Export,
    tls: Option<Connector>,
}

enum Export {
    Traces(TraceExports),
    Metrics(MetricExports),
    Logs(LogExports),
}

impl Export {
    const fn collector(&self) -> &model::Collector {
        match self {
            Self::Traces(exports) => exports.collector(),
            Self::Metrics(exports) => exports.collector(),
            Self::Logs(exports) => exports.collector(),
        }
    }
}

/// The exports of a config, and those that must be started for it. An export that is the same as in the generation before is taken over.
pub(crate) fn exported(
    config: &Config,
    before: &Generation,
    workload: Option<&Workload>,
    process: &ProcessState,
) -> Result<(OtlpExports, Vec<RunningCollector>), Error> {
    let (old, metrics) = (&before.config, &process.metrics);
    let known = before.number > 0;
    let mut begin = Vec::new();
    let mut exported = before.exported.clone();
    if !known || old.tracing != config.tracing {
        let (traces, exports) = Traces::new(config.tracing.as_ref(), metrics);
        exported.traces = traces;
        begin.extend(exports.map(Export::Traces));
    }
    if !known || old.otlp.logs != config.otlp.logs || old.access_log.filter != config.access_log.filter {
        let (logs, exports) =
            OtlpLogHandle::new(config.otlp.logs.as_ref(), &config.access_log.filter, metrics);
        exported.logs = logs;
        begin.extend(exports.map(Export::Logs));
    }
    if !known || old.otlp.metrics != config.otlp.metrics {
        exported.metrics = None;
        if let Some(settings) = config.otlp.metrics.clone() {
            let (ending, exports) = MetricExports::new(settings, metrics);
            exported.metrics = Some(ending);
            begin.push(Export::Metrics(exports));
        }
    }
    let begin = begin.into_iter().map(|export| RunningCollector::new(export, workload, process));
    Ok((exported, begin.collect::<Result<_, _>>()?))
}

impl RunningCollector {
    fn new(export: Export, workload: Option<&Workload>, process: &ProcessState) -> Result<Self, Error> {
        let settings = export.collector();
        let alpn: &[&[u8]] = match settings.protocol {
            ExportProtocol::Grpc => &[b"h2"],
            ExportProtocol::HttpProtobuf | ExportProtocol::Zipkin => &[b"http/1.1"],
        };
        let connector = |tls| Connector::with_workload(tls, alpn, workload);
        let tls = settings.tls.as_ref().map(connector).transpose().map_err(|source| Error::Tls {
            what: "the collector",
            name: settings.host.clone(),
            source,
        })?;
        if let Some(tls) = &tls {
            process.certificates.follow(tls);
        }
        Ok(Self { export, tls })
    }

    /// Exports until the generation has ended, or until it ends the export.
    pub(crate) async fn run(self) {
        let Self { export, tls } = self;
        let (host, port) = (export.collector().host.clone(), export.collector().port);
        let dial = move || -> DialFuture {
            let (host, tls) = (host.clone(), tls.clone());
            Box::pin(async move {
                let stream = TcpStream::connect((&*host, port)).await?;
                stream.set_nodelay(true)?;
                let io: Box<dyn Io> = match tls {
                    None => Box::new(stream),
                    Some(tls) => Box::new(tls.connect(&host, stream).await.map_err(io::Error::other)?),
                };
                Ok(io)
            })
        };
        match export {
            Export::Traces(exports) => exports.run(Box::new(dial)).await,
            Export::Metrics(exports) => exports.run(Box::new(dial)).await,
            Export::Logs(exports) => exports.run(Box::new(dial)).await,
        }
    }
}
