//! Traces: the context that a request carries, the spans of its way through attache, and their export by OTLP or to Zipkin.
//!
//! Rules:
//! - A trace that comes with a request is passed on, and is sampled here exactly where it was sampled before. One that doesn't is
//!   begun, and sampled by the ratio of the config, decided from its id so that everybody decides alike (W3C Trace Context level 2,
//!   section "random trace id flag": the last 56 bits are random).
//! - Only a sampled request allocates for its spans; without `tracing` in the config nothing here runs.
//! - A worker hands finished traces to the control thread through a bounded queue. What doesn't fit is dropped and counted.
//!
//! Spans and their attributes follow OpenTelemetry's semantic conventions for HTTP: one of kind *server* for the request, one of
//! kind *client* for each attempt, and below that one for a connection that had to be made.

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
use attache_wire::{Fields, Known};
use http::HeaderValue;
use tokio::sync::{Notify, mpsc};

use self::finished::Finished;
pub use self::{
    attempt::{AttemptTrace, Connecting},
    export::Exports,
    ids::{SpanId, TraceId},
    request::RequestTrace,
    w3c::check_trace_context,
};
use crate::{Exchange, Metrics, WorkerMetrics};

/// What a request says of the trace that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Context {
    trace: TraceId,
    parent: SpanId,
    sampled: bool,
    /// The trace's id is known to be random (W3C level 2).
    random: bool,
}

/// What is found in a request's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// Only whether it shall be sampled (B3).
    Decision(bool),
    Context(Context),
}

/// The tracing of one config, shared by its workers; `None` inside where there is none. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<Arc<Settings>>);

#[derive(Debug)]
struct Settings {
    /// Traces whose last 56 bits are below this aren't sampled.
    threshold: u64,
    propagation: Vec<Propagation>,
    queue: mpsc::Sender<Box<Finished>>,
    ending: Arc<Notify>,
}

impl Traces {
    /// What workers begin traces with, and what the control thread exports them from (`None` without tracing).
    pub fn new(config: Option<&model::Tracing>, metrics: &Metrics) -> (Self, Option<Exports>) {
        let Some(config) = config else { return (Self(None), None) };
        let (queue, waiting) = mpsc::channel(config.queue.max(1));
        let ending = Arc::<Notify>::default();
        let settings = Settings {
            threshold: threshold(config.sample),
            propagation: config.propagation.clone(),
            queue,
            ending: ending.clone(),
        };
        (Self(Some(Arc::new(settings))), Some(Exports::new(config.clone(), waiting, ending, metrics.clone())))
    }

    /// The process ends: what waits is exported, and then the export ends.
    pub fn end(&self) {
        if let Some(settings) = &self.0 {
            settings.ending.notify_one();
        }
    }

    /// What one worker begins traces with; `None` without tracing.
    pub fn tracer(&self, metrics: &WorkerMetrics) -> Option<Tracer> {
        let settings = self.0.clone()?;
        Some(Tracer(Rc::new(Inner { settings, metrics: metrics.clone() })))
    }
}

/// W3C's and OpenTelemetry's common rule: sampled if the random 56 bits are at least (1 - ratio) * 2^56.
fn threshold(ratio: f64) -> u64 {
    ((1.0 - ratio.clamp(0.0, 1.0)) * RANDOM as f64) as u64
}

/// How many values the random part of an id has.
const RANDOM: u64 = 1 << 56;

/// Begins traces on one worker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tracer(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Arc<Settings>,
    metrics: WorkerMetrics,
}

impl Tracer {
    /// Reads the request's context, or begins one; notes it in the exchange and writes it into the headers.
    ///
    /// A context that can't be read counts as none (W3C Trace Context section 3.3.1), and so its `tracestate` goes with it.
    pub fn begin(&self, exchange: &Exchange, headers: &mut Fields, tls: bool) {
        let settings = &self.0.settings;
        let found = settings.propagation.iter().map(|format| extract(*format, headers));
        let found = found.into_iter().find(|found| *found != Found::Nothing).unwrap_or(Found::Nothing);
        if !matches!(found, Found::Context(_)) && settings.propagation.contains(&Propagation::TraceContext) {
            w3c::remove(headers);
        }
        let (context, known) = match found {
            Found::Context(context) => (context, true),
            Found::Nothing => (self.new_context(None), false),
            Found::Decision(sampled) => (self.new_context(Some(sampled)), false),
        };
        exchange.trace_id.set(Some(context.trace));
        if context.sampled {
            let parent = known.then_some(context.parent);
            let span = if known { SpanId::new() } else { context.parent };
            let trace = RequestTrace::new(
                self.clone(),
                Context { parent: span, ..context },
                parent,
                exchange.start,
                headers,
                tls,
            );
            self.inject(headers, Context { parent: span, ..context });
            *exchange.trace.borrow_mut() = Some(Rc::new(trace));
        } else if !known {
            // So that all services after us decide as we did.
            self.inject(headers, context);
        } else {
            // The context passes as it came: no span of ours is its parent's child.
            w3c::check_state(headers);
        }
    }

    fn new_context(&self, decided: Option<bool>) -> Context {
        let trace = TraceId::new();
        let sampled = decided.unwrap_or_else(|| trace.randomness() >= self.0.settings.threshold);
        Context { trace, parent: SpanId::new(), sampled, random: true }
    }

    /// Writes the context into every header that is configured.
    fn inject(&self, headers: &mut Fields, context: Context) {
        for format in &self.0.settings.propagation {
            match format {
                Propagation::TraceContext => w3c::inject(headers, context),
                Propagation::B3 => b3::inject_single(headers, context),
                Propagation::B3Multi => b3::inject_multi(headers, context),
            }
        }
    }

    fn send(&self, finished: Finished) {
        let spans = finished.spans();
        if self.0.settings.queue.try_send(Box::new(finished)).is_err() {
            self.0.metrics.spans_dropped("queue-full", spans);
        }
    }
}

fn extract(format: Propagation, headers: &Fields) -> Found {
    match format {
        Propagation::TraceContext => w3c::extract(headers).map_or(Found::Nothing, Found::Context),
        Propagation::B3 => b3::extract_single(headers),
        Propagation::B3Multi => b3::extract_multi(headers),
    }
}

/// A header of our own making.
fn own(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}

/// The one line of a header that may stand only once.
fn only(headers: &Fields, name: Known) -> Option<&[u8]> {
    let mut lines = headers.get_all(name);
    let line = lines.next()?.as_bytes();
    lines.next().is_none().then_some(line)
}

/// Sends the spans of a finished exchange off, if it has any.
pub fn finish_trace(exchange: &Exchange, total: Duration) {
    let Some(trace) = exchange.trace.borrow_mut().take() else { return };
    let finished = Finished::of(&trace, exchange, total);
    trace.tracer().send(finished);
}

/// When something that began `ago` did so by the wall clock.
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
