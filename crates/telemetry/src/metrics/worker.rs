//! The counters that a worker uses.

use std::{marker::PhantomData, rc::Rc, sync::Arc, time::Duration};

use attache_config::model::Name;

use super::{
    WorkerMetrics, cell, exemplars, histogram,
    series::{Label, Series},
};
use crate::{Exchange, Reason};

/// Counts in one series, whose labels were looked up once. It belongs to the worker whose metrics it came from, so it is not `Send`.
#[derive(Debug)]
pub struct DecisionCounter {
    series: Arc<Series<4, 1>>,
    _of_one_thread: PhantomData<Rc<()>>,
}

impl DecisionCounter {
    /// Counts one more.
    #[inline]
    pub fn count(&self) {
        self.series.add(0, 1);
    }
}

/// Adding this subtracts one, because cells wrap.
const MINUS_ONE: u64 = u64::MAX;

impl WorkerMetrics {
    /// A request or an opaque connection has begun.
    pub fn request_started(&self, exchange: &Exchange) {
        exchange.in_flight.set(true);
        self.0.shared.in_flight.add(in_flight(exchange), 0, 1);
    }

    /// The client of a request ended its side before there was a response. If it had waited, it has most likely given up: an HTTP/1 client
    /// that only ends its writing does so together with its request. The request itself continues, and is counted when it ends.
    #[cold]
    pub fn client_left(&self, exchange: &Exchange) {
        let waited = exchange.start.elapsed();
        if waited <= super::counts::MIN_CLIENT_WAIT
            || exchange.reason.get().is_some()
            || exchange.left.replace(true)
        {
            return;
        }
        let (route, upstream) = (exchange.route.borrow(), exchange.upstream.borrow());
        let labels = [
            Label::Name(&exchange.listener),
            Label::from(route.as_ref()),
            Label::from(upstream.as_ref()),
            Label::Word(exchange.protocol),
            Label::Word(code_class(0)),
            Label::from(Reason::ClientClosed),
        ];
        self.0.shared.exchanges.with(labels, |series| series.add(cell::LEFT, 1));
        drop((route, upstream));
        let shown = Duration::from_millis(waited.as_millis() as u64);
        exchange.fail(
            Reason::ClientClosed,
            format!("the client left after {shown:?}, before there was an answer"),
        );
        self.0.watcher.keep(exchange, waited);
        exchange.reason.set(None);
        exchange.detail.replace(None);
    }

    /// A request or an opaque connection has ended. Its record is counted as it is, even if the exchange never began (a failed handshake).
    /// Call it once for each exchange. It returns how long the exchange took, so that the access log doesn't read the clock again.
    ///
    /// If the series is known, it allocates nothing and takes no lock.
    pub fn request_finished(&self, exchange: &Exchange) -> Duration {
        let total = exchange.start.elapsed();
        if exchange.in_flight.take() {
            self.0.shared.in_flight.add(in_flight(exchange), 0, MINUS_ONE);
        }
        let route = exchange.route.borrow();
        let upstream = exchange.upstream.borrow();
        let labels = [
            Label::Name(&exchange.listener),
            Label::from(route.as_ref()),
            Label::from(upstream.as_ref()),
            Label::Word(exchange.protocol),
            Label::Word(code_class(exchange.outcome())),
            Label::from(exchange.reason.get()),
        ];
        self.0.shared.exchanges.with(labels, |series| {
            series.add(cell::COUNT, 1);
            series.add(cell::RECEIVED, exchange.received.get());
            series.add(cell::SENT, exchange.sent.get());
            series.add(cell::ATTEMPTS, u64::from(exchange.attempts.get()));
            let (bucket, micros) = histogram::observe(total);
            series.add(cell::TOTAL + bucket, 1);
            series.add(cell::TOTAL + histogram::SUM, micros);
            if let Some(head) = exchange.time_to_head.get() {
                let (bucket, micros) = histogram::observe(head);
                series.add(cell::HEAD + bucket, 1);
                series.add(cell::HEAD + histogram::SUM, micros);
                if let Some(upstream) = exchange.upstream_time() {
                    let (bucket, micros) = histogram::observe(upstream);
                    series.add(cell::UPSTREAM + bucket, 1);
                    series.add(cell::UPSTREAM + histogram::SUM, micros);
                    let (bucket, micros) = histogram::observe(head.saturating_sub(upstream));
                    series.add(cell::ADDED + bucket, 1);
                    series.add(cell::ADDED + histogram::SUM, micros);
                }
            }
        });
        if let Some(trace) = exchange.trace_id.get()
            && exchange.trace.borrow().is_some()
        {
            let [listener, route, upstream, protocol, code, _] = labels;
            let labels = [listener, route, upstream, protocol, code];
            self.0.shared.exemplars.with(labels, |series| exemplars::write(series, trace, total));
        }
        if self.semantic() {
            self.server_request(exchange, total);
        }
        if self.0.watcher.ended(exchange, total) {
            self.endpoint(exchange, total);
        }
        total
    }

    /// Whether somebody follows exchanges and needs their headers, see [`Exchange::see_request`]. It costs one relaxed load.
    pub fn tapped(&self) -> bool {
        self.0.watcher.tapped()
    }

    #[cold]
    fn endpoint(&self, exchange: &Exchange, total: Duration) {
        let (upstream, endpoint) = (exchange.upstream.borrow(), exchange.endpoint.borrow());
        let (Some(upstream), Some(endpoint)) = (&*upstream, &*endpoint) else { return };
        self.0.shared.endpoints.with([Label::Name(upstream), Label::Name(endpoint)], |series| {
            let class = usize::from(exchange.outcome() / 100).min(5);
            series.add(if (1..=5).contains(&class) { class - 1 } else { 5 }, 1);
            series.add(cell::FAILED, u64::from(super::counts::failed(class, exchange.reason.get())));
            let (bucket, micros) = histogram::observe(total);
            series.add(cell::ENDPOINT_TOTAL + bucket, 1);
            series.add(cell::ENDPOINT_TOTAL + histogram::SUM, micros);
        });
    }

    /// A client's connection was accepted.
    pub fn connection_opened(&self, listener: &Name) {
        self.0.shared.connections.with([Label::Name(listener)], |series| {
            series.add(cell::OPENED, 1);
            series.add(cell::ACTIVE, 1);
        });
    }

    /// A client's connection has ended, without an error or for a reason.
    pub fn connection_closed(&self, listener: &Name, reason: Option<Reason>) {
        self.0.shared.connections.add([Label::Name(listener)], cell::ACTIVE, MINUS_ONE);
        self.connections_closed(listener, reason);
    }

    /// A connection to an endpoint is open and usable (with TLS), or could not be opened.
    pub fn upstream_connection(&self, upstream: &Name, outcome: Result<(), Reason>) {
        match outcome {
            Ok(()) => self.0.shared.upstream_connections.with([Label::Name(upstream)], |series| {
                series.add(cell::OPENED, 1);
                series.add(cell::ACTIVE, 1);
            }),
            Err(reason) => self.upstream_connection_failed(upstream, reason),
        }
    }

    /// How long it took to open a connection to an endpoint: `tcp` (or the Unix socket), then `tls`. A step that was not reached has no
    /// time.
    pub fn upstream_connect_times(&self, upstream: &Name, tcp: Option<Duration>, tls: Option<Duration>) {
        for (step, took) in [("tcp", tcp), ("tls", tls)] {
            if let Some(took) = took {
                self.0.shared.connects.with([Label::Name(upstream), Label::Word(step)], |series| {
                    let (bucket, micros) = histogram::observe(took);
                    series.add(bucket, 1);
                    series.add(histogram::SUM, micros);
                });
            }
        }
    }

    /// An open connection to an endpoint has ended.
    pub fn upstream_connection_closed(&self, upstream: &Name) {
        self.0.shared.upstream_connections.add([Label::Name(upstream)], cell::ACTIVE, MINUS_ONE);
    }

    /// A state of the upstream or of one of its endpoints has changed: `what` (`circuit`, `endpoint-circuit`, `ejection`, `health`,
    /// `connection`) is now `to`, because of this reason.
    pub fn transition(
        &self,
        upstream: &Name,
        endpoint: Option<&str>,
        what: &'static str,
        to: &'static str,
        because: &str,
    ) {
        self.transitions(upstream, what, to);
        self.0.watcher.event(what, upstream, endpoint, to, because);
    }

    /// The copy of a request failed. Its exchange says why. No caller sees this, so the log and the list of failures must show it.
    pub fn mirror_failed(&self, upstream: &Name, exchange: &Exchange) {
        self.mirrored(upstream, exchange.reason.get().map_or(Ok(()), Err));
        exchange.upstream.replace(Some(upstream.clone()));
        self.0.watcher.keep(exchange, exchange.start.elapsed());
    }

    /// A counter for the same as [`authorized`](Self::authorized), for code that keeps it: the decision of an access rule is counted for
    /// every request.
    pub fn authorizations(
        &self,
        listener: &Name,
        route: Option<&Name>,
        rule: Option<&Name>,
        outcome: &'static str,
    ) -> DecisionCounter {
        let labels = [Label::Name(listener), Label::from(route), Label::from(rule), Label::Word(outcome)];
        let series = self.0.counters.authorized.with(labels, Arc::clone);
        DecisionCounter { series, _of_one_thread: PhantomData }
    }
}

fn in_flight(exchange: &Exchange) -> [Label<'_>; 2] {
    [Label::Name(&exchange.listener), Label::Word(exchange.protocol)]
}

fn code_class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        0 => "",
        // RFC 9110 section 15: a client treats a status of 600 or more as a 5xx.
        _ => "5xx",
    }
}
