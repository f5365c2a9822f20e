//! What watches requests pass, as one generation's config wants it: traces and the access log.

use std::{io, rc::Rc};

use attache_config::model::{Config, SpanProtocol};
use attache_http::check_trace_context;
use attache_telemetry::{
    AccessLogger, DialFuture, Exchange, Exports, Io, Tracer, Traces, WorkerMetrics, finish_trace,
};
use attache_tls::{Connector, Workload};
use attache_wire::Fields;

use tokio::net::TcpStream;

use crate::{error::Error, generation::Generation, process::Process};

/// Told of every exchange that ended.
pub(crate) type OnFinish = Rc<dyn Fn(&Exchange)>;

/// One worker's eyes on its requests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Observer {
    tracer: Option<Tracer>,
    logger: AccessLogger,
}

impl Observer {
    pub(crate) fn new(generation: &Generation, metrics: &WorkerMetrics) -> Self {
        Self { tracer: generation.traces.tracer(metrics), logger: generation.access_log.logger(metrics) }
    }

    /// A request came with these headers.
    pub(crate) fn request(&self, exchange: &Exchange, headers: &Fields) {
        self.logger.note_request(exchange, headers);
    }

    /// A request can be read: it joins its trace, or begins one.
    pub(crate) fn traced(&self, exchange: &Exchange, headers: &mut Fields, tls: bool) {
        match &self.tracer {
            Some(tracer) => tracer.begin(exchange, headers, tls),
            None => exchange.trace_id.set(check_trace_context(headers)),
        }
    }

    /// A response goes to the client with these headers.
    pub(crate) fn response(&self, exchange: &Exchange, headers: &Fields) {
        self.logger.note_response(exchange, headers);
    }
}

/// What is done at the end of every exchange. `observer` is the worker's current one.
pub(crate) fn on_finish(metrics: WorkerMetrics, observer: Rc<std::cell::RefCell<Observer>>) -> OnFinish {
    Rc::new(move |exchange: &Exchange| {
        let total = metrics.request_finished(exchange);
        observer.borrow().logger.write(exchange, total);
        finish_trace(exchange, total);
    })
}

/// The export of a generation's traces, before it runs.
pub(crate) struct Collector {
    exports: Exports,
    tls: Option<Connector>,
}

/// The tracing of a config; what the generation before has is taken over if it is the same.
pub(crate) fn traces(
    config: &Config,
    before: &Generation,
    workload: Option<&Workload>,
    process: &Process,
) -> Result<(Traces, Option<Collector>), Error> {
    if before.number > 0 && before.config.tracing == config.tracing {
        return Ok((before.traces.clone(), None));
    }
    let (traces, exports) = Traces::new(config.tracing.as_ref(), &process.metrics);
    let Some(exports) = exports else { return Ok((traces, None)) };
    let settings = exports.config();
    let alpn: &[&[u8]] = match settings.protocol {
        SpanProtocol::Grpc => &[b"h2"],
        SpanProtocol::HttpProtobuf | SpanProtocol::Zipkin => &[b"http/1.1"],
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
    Ok((traces, Some(Collector { exports, tls })))
}

impl Collector {
    /// Exports until the generation's traces have ended.
    pub(crate) async fn run(self) {
        let Self { exports, tls } = self;
        let (host, port) = (exports.config().host.clone(), exports.config().port);
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
        exports.run(Box::new(dial)).await;
    }
}
