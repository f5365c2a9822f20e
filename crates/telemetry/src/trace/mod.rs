//! Traces: the context that a request carries, the spans of the request within attache, and their export by OTLP or to Zipkin.
//!
//! Rules:
//! - The trace of a request is passed on, and is sampled here if and only if it was sampled before. For a request without one, attache
//!   begins a trace. The ratio of the config decides whether that is sampled; the decision depends on the trace's id, so that every service
//!   decides the same (W3C Trace Context level 2, section "random trace id flag": the last 56 bits are random).
//! - Only a sampled request allocates for its spans; without `tracing` in the config nothing here runs.
//! - A worker passes finished traces to the control thread through a bounded queue. Traces that don't fit are dropped and counted.
//!
//! Spans and their attributes follow OpenTelemetry's semantic conventions for HTTP: one span of kind *server* for the request, one of kind
//! *client* for each attempt, and below that one for each connection that had to be opened.

mod attempt;
mod b3;
mod convert;
mod export;
mod finished;
mod ids;
mod request;
mod w3c;
mod zipkin;

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use attache_config::model::{self, Propagation};
use attache_wire::{Fields, KnownName};
use http::HeaderValue;
use tokio::sync::{Notify, mpsc};

use self::finished::FinishedTrace;
pub use self::{
    attempt::{AttemptTrace, ConnectingSpan},
    export::TraceExports,
    ids::{SpanId, TraceId},
    request::RequestTrace,
    w3c::check_trace_context,
};
use crate::{Exchange, Metrics, WorkerMetrics};

/// The trace that a request belongs to, according to its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TraceContext {
    trace: TraceId,
    parent: SpanId,
    sampled: bool,
    /// It is known that the trace's id is random (W3C level 2).
    random: bool,
}

/// What the headers of a request contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IncomingContext {
    Nothing,
    /// Only the decision whether to sample (B3).
    Decision(bool),
    Context(TraceContext),
}

/// The tracing of one config, shared by its workers; without tracing it is empty. It is cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<Arc<TracerSettings>>);

#[derive(Debug)]
struct TracerSettings {
    /// Traces whose last 56 bits are below this value aren't sampled.
    threshold: u64,
    propagation: Vec<Propagation>,
    queue: mpsc::Sender<Box<FinishedTrace>>,
    ending: Arc<Notify>,
}

impl Traces {
    /// The handle with which workers begin traces, and the export for the control thread (`None` without tracing).
    pub fn new(config: Option<&model::Tracing>, metrics: &Metrics) -> (Self, Option<TraceExports>) {
        let Some(config) = config else { return (Self(None), None) };
        let (queue, waiting) = mpsc::channel(config.queue.max(1));
        let ending = Arc::<Notify>::default();
        let settings = TracerSettings {
            threshold: threshold(config.sample),
            propagation: config.propagation.clone(),
            queue,
            ending: ending.clone(),
        };
        (
            Self(Some(Arc::new(settings))),
            Some(TraceExports::new(config.clone(), waiting, ending, metrics.clone())),
        )
    }

    /// The process ends: waiting traces are exported, and then the export ends.
    pub fn end(&self) {
        if let Some(settings) = &self.0 {
            settings.ending.notify_one();
        }
    }

    /// The tracer of one worker; `None` without tracing.
    pub fn tracer(&self, metrics: &WorkerMetrics) -> Option<Tracer> {
        let settings = self.0.clone()?;
        Some(Tracer(Rc::new(TracerState { settings, metrics: metrics.clone() })))
    }
}

/// The common rule of W3C and OpenTelemetry: a trace is sampled if its random 56 bits are at least (1 - ratio) * 2^56.
fn threshold(ratio: f64) -> u64 {
    ((1.0 - ratio.clamp(0.0, 1.0)) * RANDOM as f64) as u64
}

/// The number of values that the random part of an id can have.
const RANDOM: u64 = 1 << 56;

/// Begins traces on one worker. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct Tracer(Rc<TracerState>);

#[derive(Debug)]
struct TracerState {
    settings: Arc<TracerSettings>,
    metrics: WorkerMetrics,
}

impl Tracer {
    /// Reads the request's context, or begins a new one. Notes it in the exchange and writes it into the headers.
    ///
    /// A context that can't be parsed counts as none (W3C Trace Context section 3.3.1), so its `tracestate` is removed too.
    pub fn begin(&self, exchange: &Exchange, headers: &mut Fields, tls: bool) {
        let settings = &self.0.settings;
        let found = settings.propagation.iter().map(|format| extract(*format, headers));
        let found = found
            .into_iter()
            .find(|found| *found != IncomingContext::Nothing)
            .unwrap_or(IncomingContext::Nothing);
        if !matches!(found, IncomingContext::Context(_))
            && settings.propagation.contains(&Propagation::TraceContext)
        {
            w3c::remove(headers);
        }
        let (context, known) = match found {
            IncomingContext::Context(context) => (context, true),
            IncomingContext::Nothing => (self.new_context(None), false),
            IncomingContext::Decision(sampled) => (self.new_context(Some(sampled)), false),
        };
        exchange.trace_id.set(Some(context.trace));
        if context.sampled {
            let parent = known.then_some(context.parent);
            let span = if known { SpanId::new() } else { context.parent };
            let trace = RequestTrace::new(
                self.clone(),
                TraceContext { parent: span, ..context },
                parent,
                exchange.start,
                headers,
                tls,
            );
            self.inject(headers, TraceContext { parent: span, ..context });
            *exchange.trace.borrow_mut() = Some(Rc::new(trace));
        } else if !known {
            // All later services then decide as attache did.
            self.inject(headers, context);
        } else {
            // The context is passed on unchanged: attache has no span that could be the parent.
            w3c::check_state(headers);
        }
    }

    fn new_context(&self, decided: Option<bool>) -> TraceContext {
        let trace = TraceId::new();
        let sampled = decided.unwrap_or_else(|| trace.randomness() >= self.0.settings.threshold);
        TraceContext { trace, parent: SpanId::new(), sampled, random: true }
    }

    /// Writes the context into every configured header.
    fn inject(&self, headers: &mut Fields, context: TraceContext) {
        for format in &self.0.settings.propagation {
            match format {
                Propagation::TraceContext => w3c::inject(headers, context),
                Propagation::B3 => b3::inject_single(headers, context),
                Propagation::B3Multi => b3::inject_multi(headers, context),
            }
        }
    }

    fn send(&self, finished: FinishedTrace) {
        let spans = finished.spans();
        if self.0.settings.queue.try_send(Box::new(finished)).is_err() {
            self.0.metrics.spans_dropped("queue-full", spans);
        }
    }
}

fn extract(format: Propagation, headers: &Fields) -> IncomingContext {
    match format {
        Propagation::TraceContext => {
            w3c::extract(headers).map_or(IncomingContext::Nothing, IncomingContext::Context)
        }
        Propagation::B3 => b3::extract_single(headers),
        Propagation::B3Multi => b3::extract_multi(headers),
    }
}

/// A header value that attache makes.
fn own(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}

/// The only line of a header that must not occur twice.
fn only(headers: &Fields, name: KnownName) -> Option<&[u8]> {
    let mut lines = headers.get_all(name);
    let line = lines.next()?.as_bytes();
    lines.next().is_none().then_some(line)
}

/// Sends the spans of a finished exchange to the export, if there are any.
pub fn finish_trace(exchange: &Exchange, total: Duration) {
    let Some(trace) = exchange.trace.borrow_mut().take() else { return };
    let finished = FinishedTrace::of(&trace, exchange, total);
    trace.tracer().send(finished);
}

/// The wall-clock time of something that began `ago` before now.
fn wall_clock(ago: Duration) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(ago).unwrap_or(now)
}

#[cfg(test)]
pub(crate) fn sampled_config() -> model::Tracing {
    tests::config(1.0, &[Propagation::TraceContext])
}

#[cfg(test)]
mod tests;
