//! What a worker counts.

use std::{marker::PhantomData, rc::Rc, sync::Arc, time::Duration};

use attache_config::model::Name;

use super::{
    Hedge, Registry, cell, exemplars, histogram, semantic,
    series::{Label, Series, Table},
};
use crate::{Exchange, Reason, Side, watch::Watcher};

/// What came of a TLS client's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It proved one, and may talk.
    Allowed,
    /// What it proved, or that it proved nothing, is not allowed.
    Denied,
    /// It proved none, and may talk.
    Anonymous,
}

/// Counts one series without looking its labels up. It belongs to the worker whose metrics it came from, so it is not `Send`.
#[derive(Debug)]
pub struct DecisionCounter {
    series: Arc<Series<4, 1>>,
    _of_one_thread: PhantomData<Rc<()>>,
}

impl DecisionCounter {
    /// One more.
    #[inline]
    pub fn count(&self) {
        self.series.add(0, 1);
    }
}

/// Adding this takes one away: cells wrap.
const MINUS_ONE: u64 = u64::MAX;

/// The counters of one worker. Cheap to clone, and never shared between threads: that is what lets it count
/// without a lock.
#[derive(Clone, Debug)]
pub struct WorkerMetrics(pub(super) Rc<Tables>);

#[derive(Debug)]
pub(super) struct Tables {
    exchanges: Table<6, { cell::ALL }>,
    in_flight: Table<2, 1>,
    exemplars: Table<5, { exemplars::CELLS }>,
    connects: Table<2, { histogram::CELLS }>,
    connections: Table<1, 2>,
    connections_closed: Table<2, 1>,
    upstream_connections: Table<1, 2>,
    upstream_failures: Table<2, 1>,
    pool_reused: Table<1, 1>,
    retries: Table<2, 1>,
    hedges: Table<2, 1>,
    overflow: Table<2, 1>,
    ejections: Table<2, 1>,
    transitions: Table<3, 1>,
    dns: Table<2, 1>,
    endpoint_slices: Table<2, 1>,
    tls_handshakes: Table<5, 1>,
    tls_clients: Table<2, 1>,
    log_dropped: Table<1, 1>,
    spans_exported: Table<0, 1>,
    spans_dropped: Table<1, 1>,
    panics: Table<0, 1>,
    endpoints: Table<2, { cell::ENDPOINT }>,
    watcher: Watcher,
    limit_service: Table<2, 1>,
    mirrored: Table<2, 1>,
    subset_fallbacks: Table<2, 1>,
    authorization: Table<4, 1>,
    authorizer: Table<2, 1>,
    cors: Table<3, 1>,
    compressed: Table<3, 1>,
    jwt_keys: Table<2, 1>,
    log_records: Table<1, 1>,
    metric_exports: Table<1, 1>,
    pub(super) semantic: semantic::Tables,
    pub(super) registry: Arc<Registry>,
}

impl WorkerMetrics {
    pub(super) fn new(registry: &Arc<Registry>) -> Self {
        Self(Rc::new(Tables {
            exchanges: Table::new(&registry.exchanges),
            in_flight: Table::new(&registry.in_flight),
            exemplars: Table::new(&registry.exemplars),
            connects: Table::new(&registry.connects),
            connections: Table::new(&registry.connections),
            connections_closed: Table::new(&registry.connections_closed),
            upstream_connections: Table::new(&registry.upstream_connections),
            upstream_failures: Table::new(&registry.upstream_failures),
            pool_reused: Table::new(&registry.pool_reused),
            retries: Table::new(&registry.retries),
            hedges: Table::new(&registry.hedges),
            overflow: Table::new(&registry.overflow),
            ejections: Table::new(&registry.ejections),
            transitions: Table::new(&registry.transitions),
            dns: Table::new(&registry.dns),
            endpoint_slices: Table::new(&registry.endpoint_slices),
            tls_handshakes: Table::new(&registry.tls_handshakes),
            tls_clients: Table::new(&registry.tls_clients),
            log_dropped: Table::new(&registry.log_dropped),
            spans_exported: Table::new(&registry.spans_exported),
            spans_dropped: Table::new(&registry.spans_dropped),
            panics: Table::new(&registry.panics),
            endpoints: Table::new(&registry.endpoints),
            watcher: Watcher::new(&registry.watch),
            limit_service: Table::new(&registry.limit_service),
            mirrored: Table::new(&registry.mirrored),
            subset_fallbacks: Table::new(&registry.subset_fallbacks),
            authorization: Table::new(&registry.authorization),
            authorizer: Table::new(&registry.authorizer),
            cors: Table::new(&registry.cors),
            compressed: Table::new(&registry.compressed),
            jwt_keys: Table::new(&registry.jwt_keys),
            log_records: Table::new(&registry.log_records),
            metric_exports: Table::new(&registry.metric_exports),
            semantic: semantic::Tables::new(&registry.semantics),
            registry: Arc::clone(registry),
        }))
    }

    /// A request, or an opaque connection, began.
    pub fn request_started(&self, exchange: &Exchange) {
        exchange.in_flight.set(true);
        self.0.in_flight.add(in_flight(exchange), 0, 1);
    }

    /// The client of a request ended its side before there was an answer. One that had waited has most likely given up: an HTTP/1 client
    /// that only ends its writing does so with its request. The request itself goes on, and is counted as it ends.
    #[cold]
    pub fn client_left(&self, exchange: &Exchange) {
        let waited = exchange.start.elapsed();
        if waited <= super::counts::PATIENT || exchange.reason.get().is_some() || exchange.left.replace(true)
        {
            return;
        }
        let (route, upstream) = (exchange.route.borrow(), exchange.upstream.borrow());
        let labels = [
            Label::Name(&exchange.listener),
            Label::optional(route.as_ref()),
            Label::optional(upstream.as_ref()),
            Label::Word(exchange.protocol),
            Label::Word(code_class(0)),
            reason_label(Some(Reason::ClientClosed)),
        ];
        self.0.exchanges.with(labels, |series| series.add(cell::LEFT, 1));
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

    /// A request, or an opaque connection, ended: its record is counted as it stands, also where it never began (a
    /// handshake that failed). Once for each exchange. Returns how long it took, so that the access log reads no clock again.
    ///
    /// Allocates nothing and takes no lock once the series is known.
    pub fn request_finished(&self, exchange: &Exchange) -> Duration {
        let total = exchange.start.elapsed();
        if exchange.in_flight.take() {
            self.0.in_flight.add(in_flight(exchange), 0, MINUS_ONE);
        }
        let route = exchange.route.borrow();
        let upstream = exchange.upstream.borrow();
        let labels = [
            Label::Name(&exchange.listener),
            Label::optional(route.as_ref()),
            Label::optional(upstream.as_ref()),
            Label::Word(exchange.protocol),
            Label::Word(code_class(exchange.outcome())),
            reason_label(exchange.reason.get()),
        ];
        self.0.exchanges.with(labels, |series| {
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
            self.0.exemplars.with(labels, |series| exemplars::write(series, trace, total));
        }
        if self.semantic() {
            self.server_request(exchange, total);
        }
        if self.0.watcher.ended(exchange, total) {
            self.endpoint(exchange, total);
        }
        total
    }

    /// Somebody follows exchanges: their headers are wanted, see [`Exchange::see_request`]. One relaxed load.
    pub fn tapped(&self) -> bool {
        self.0.watcher.tapped()
    }

    #[cold]
    fn endpoint(&self, exchange: &Exchange, total: Duration) {
        let (upstream, endpoint) = (exchange.upstream.borrow(), exchange.endpoint.borrow());
        let (Some(upstream), Some(endpoint)) = (&*upstream, &*endpoint) else { return };
        self.0.endpoints.with([Label::Name(upstream), Label::Name(endpoint)], |series| {
            let class = usize::from(exchange.outcome() / 100);
            series.add(if (1..=5).contains(&class) { class - 1 } else { 5 }, 1);
            series.add(cell::FAILED, u64::from(super::counts::failed(class, exchange.reason.get())));
            let (bucket, micros) = histogram::observe(total);
            series.add(cell::ENDPOINT_TOTAL + bucket, 1);
            series.add(cell::ENDPOINT_TOTAL + histogram::SUM, micros);
        });
    }

    /// A client's connection was accepted.
    pub fn connection_opened(&self, listener: &Name) {
        self.0.connections.with([Label::Name(listener)], |series| {
            series.add(cell::OPENED, 1);
            series.add(cell::ACTIVE, 1);
        });
    }

    /// A client's connection ended, orderly or for a reason.
    pub fn connection_closed(&self, listener: &Name, reason: Option<Reason>) {
        self.0.connections.add([Label::Name(listener)], cell::ACTIVE, MINUS_ONE);
        self.0.connections_closed.add([Label::Name(listener), reason_label(reason)], 0, 1);
    }

    /// A connection to an endpoint is open and usable (TLS included), or could not be made.
    pub fn upstream_connection(&self, upstream: &Name, outcome: Result<(), Reason>) {
        match outcome {
            Ok(()) => self.0.upstream_connections.with([Label::Name(upstream)], |series| {
                series.add(cell::OPENED, 1);
                series.add(cell::ACTIVE, 1);
            }),
            Err(reason) => self.0.upstream_failures.add(upstream_reason(upstream, reason), 0, 1),
        }
    }

    /// How long a connection to an endpoint took to be made, as far as it came: `tcp` (or the Unix socket), then `tls`.
    pub fn upstream_connect_times(&self, upstream: &Name, tcp: Option<Duration>, tls: Option<Duration>) {
        for (step, took) in [("tcp", tcp), ("tls", tls)] {
            if let Some(took) = took {
                self.0.connects.with([Label::Name(upstream), Label::Word(step)], |series| {
                    let (bucket, micros) = histogram::observe(took);
                    series.add(bucket, 1);
                    series.add(histogram::SUM, micros);
                });
            }
        }
    }

    /// A connection to an endpoint that had been opened is gone.
    pub fn upstream_connection_closed(&self, upstream: &Name) {
        self.0.upstream_connections.add([Label::Name(upstream)], cell::ACTIVE, MINUS_ONE);
    }

    /// A call went out on a connection that was open already.
    pub fn pool_reused(&self, upstream: &Name) {
        self.0.pool_reused.add([Label::Name(upstream)], 0, 1);
    }

    /// A call is tried again, since the attempt before failed for this reason.
    pub fn retry(&self, upstream: &Name, reason: Reason) {
        self.0.retries.add(upstream_reason(upstream, reason), 0, 1);
    }

    /// A second attempt beside a slow one was sent and ended, or was refused.
    pub fn hedge(&self, upstream: &Name, outcome: Hedge) {
        let word = match outcome {
            Hedge::Won => "won",
            Hedge::Lost => "lost",
            Hedge::Refused => "refused",
        };
        self.0.hedges.add([Label::Name(upstream), Label::Word(word)], 0, 1);
    }

    /// A limit of the upstream turned something away: a breaker's bound, its open circuit, an empty retry budget, a rate limit.
    pub fn overflow(&self, upstream: &Name, reason: Reason) {
        self.0.overflow.add(upstream_reason(upstream, reason), 0, 1);
    }

    /// An endpoint was ejected.
    pub fn ejected(&self, upstream: &Name, reason: Reason) {
        self.0.ejections.add(upstream_reason(upstream, reason), 0, 1);
    }

    /// A state of the upstream, or of one of its endpoints, changed: `what` (`circuit`, `endpoint-circuit`, `ejection`, `health`,
    /// `connection`) is `to` now, and why.
    pub fn transition(
        &self,
        upstream: &Name,
        endpoint: Option<&str>,
        what: &'static str,
        to: &'static str,
        because: &str,
    ) {
        self.0.transitions.add([Label::Name(upstream), Label::Word(what), Label::Word(to)], 0, 1);
        self.0.watcher.event(what, upstream, endpoint, to, because);
    }

    /// A name of the upstream was looked up.
    pub fn dns_lookup(&self, upstream: &Name, outcome: Result<(), Reason>) {
        let outcome = outcome.err().map_or("ok", Reason::as_str);
        self.0.dns.add([Label::Name(upstream), Label::Word(outcome)], 0, 1);
    }

    /// Kubernetes' API server was asked for the upstream's EndpointSlices, by a list or a watch.
    pub fn endpoint_slices(&self, upstream: &Name, outcome: Result<(), Reason>) {
        let outcome = outcome.err().map_or("ok", Reason::as_str);
        self.0.endpoint_slices.add([Label::Name(upstream), Label::Word(outcome)], 0, 1);
    }

    /// The copy of a request was answered, with any answer.
    pub fn mirrored(&self, upstream: &Name) {
        self.0.mirrored.add([Label::Name(upstream), Label::Word("ok")], 0, 1);
    }

    /// The copy of a request failed, as its exchange says: no caller sees it, so the log and the list of failures must.
    pub fn mirror_failed(&self, upstream: &Name, exchange: &Exchange) {
        let outcome = exchange.reason.get().map_or("ok", Reason::as_str);
        self.0.mirrored.add([Label::Name(upstream), Label::Word(outcome)], 0, 1);
        exchange.upstream.replace(Some(upstream.clone()));
        self.0.watcher.keep(exchange, exchange.start.elapsed());
    }

    /// An attempt of a route with a `subset` went to any endpoint, since none has the labels.
    pub fn subset_fallback(&self, upstream: &Name, route: Option<&Name>) {
        self.0.subset_fallbacks.add([Label::Name(upstream), Label::optional(route)], 0, 1);
    }

    /// The rate limit service was asked: `ok`, `over-limit`, or `error`.
    pub fn rate_limit_service(&self, upstream: &Name, outcome: &'static str) {
        self.0.limit_service.add([Label::Name(upstream), Label::Word(outcome)], 0, 1);
    }

    /// The rules of a listener (then `route` is empty) or route decided: `allowed`, `denied`, or `would-deny` in a dry run. Without a
    /// rule that decided, `rule` is empty.
    pub fn authorized(
        &self,
        listener: &Name,
        route: Option<&Name>,
        rule: Option<&Name>,
        outcome: &'static str,
    ) {
        self.authorizations(listener, route, rule, outcome).count();
    }

    /// Counts the same as [`authorized`](Self::authorized), for who keeps it: what a rule allows is decided for every request.
    pub fn authorizations(
        &self,
        listener: &Name,
        route: Option<&Name>,
        rule: Option<&Name>,
        outcome: &'static str,
    ) -> DecisionCounter {
        let labels =
            [Label::Name(listener), Label::optional(route), Label::optional(rule), Label::Word(outcome)];
        let series = self.0.authorization.with(labels, Arc::clone);
        DecisionCounter { series, _of_one_thread: PhantomData }
    }

    /// An authorizer was asked: `allowed`, `denied`, `failed`, or `failed-open`.
    pub fn authorizer(&self, authorizer: &Name, outcome: &'static str) {
        self.0.authorizer.add([Label::Name(authorizer), Label::Word(outcome)], 0, 1);
    }

    /// A page asked, on a route with `cors`: `allowed`, `foreign`, `preflight-allowed` or `preflight-foreign`.
    pub fn cors(&self, listener: &Name, route: &Name, outcome: &'static str) {
        self.0.cors.add([Label::Name(listener), Label::Name(route), Label::Word(outcome)], 0, 1);
    }

    /// A response was compressed, with this coding.
    pub fn compressed(&self, listener: &Name, route: &Name, coding: &'static str) {
        self.0.compressed.add([Label::Name(listener), Label::Name(route), Label::Word(coding)], 0, 1);
    }

    /// The keys of an issuer of tokens were read or asked for: `ok`, or `failed`.
    pub fn jwt_keys(&self, issuer: &Name, outcome: &'static str) {
        self.0.jwt_keys.add([Label::Name(issuer), Label::Word(outcome)], 0, 1);
    }

    /// A TLS handshake succeeded. `version` and `key_exchange` are words of closed lists.
    pub fn tls_handshake(
        &self,
        side: Side,
        name: &Name,
        version: &'static str,
        resumed: bool,
        key_exchange: &'static str,
    ) {
        let kind = if resumed { "resumed" } else { "full" };
        let words = [side.as_str(), version, kind, key_exchange].map(Label::Word);
        let [side, version, kind, key_exchange] = words;
        self.0.tls_handshakes.add([side, Label::Name(name), version, kind, key_exchange], 0, 1);
    }

    /// What came of a TLS client's identity.
    pub fn tls_client(&self, listener: &Name, outcome: Admitted) {
        let outcome = match outcome {
            Admitted::Allowed => "allowed",
            Admitted::Denied => "denied",
            Admitted::Anonymous => "anonymous",
        };
        self.0.tls_clients.add([Label::Name(listener), Label::Word(outcome)], 0, 1);
    }

    /// A request's panic was caught and the worker continues.
    pub fn panic_caught(&self) {
        self.0.panics.add([], 0, 1);
    }

    /// The collector took spans.
    pub(crate) fn spans_exported(&self, spans: u64) {
        self.0.spans_exported.add([], 0, spans);
    }

    /// Spans were lost: `queue-full`, `export-failed` or `rejected`.
    pub(crate) fn spans_dropped(&self, cause: &'static str, spans: u64) {
        self.0.spans_dropped.add([Label::Word(cause)], 0, spans);
    }

    /// Log records came to a collector (`exported`), or were lost: `queue-full`, `export-failed` or `rejected`.
    pub(crate) fn log_records(&self, outcome: &'static str, records: u64) {
        self.0.log_records.add([Label::Word(outcome)], 0, records);
    }

    /// An export of metrics ended: `ok`, `rejected` (in part), or `failed`.
    pub(crate) fn metric_export(&self, outcome: &'static str) {
        self.0.metric_exports.add([Label::Word(outcome)], 0, 1);
    }

    /// Lines of the access log were lost: `queue-full` or `write-failed`.
    pub(crate) fn access_log_dropped(&self, cause: &'static str, lines: u64) {
        self.0.log_dropped.add([Label::Word(cause)], 0, lines);
    }
}

fn in_flight(exchange: &Exchange) -> [Label<'_>; 2] {
    [Label::Name(&exchange.listener), Label::Word(exchange.protocol)]
}

fn upstream_reason(upstream: &Name, reason: Reason) -> [Label<'_>; 2] {
    [Label::Name(upstream), Label::Word(reason.as_str())]
}

fn reason_label(reason: Option<Reason>) -> Label<'static> {
    Label::Word(reason.map_or("", Reason::as_str))
}

fn code_class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "",
    }
}
