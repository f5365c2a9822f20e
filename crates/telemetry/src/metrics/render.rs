//! The page that Prometheus reads: text format 0.0.4, or OpenMetrics where that is asked for.
//!
//! All workers' cells are added up here, on the thread that asks. The order is that of the descriptors, then of the
//! labels, so that two scrapes can be compared by eye.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use attache_config::model::Name;

use super::{
    AdmissionCounts, Metrics, Registry, cell, descriptors as d, exemplars,
    expected::Expected,
    openmetrics,
    page::{Page, text},
    process::Process,
    semantic::{ClientSums, ServerSums},
    series::Sums,
};

/// The content type of [`Metrics::render`].
pub const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The content type of [`Metrics::render_openmetrics`], once it has its end.
pub const OPENMETRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Metrics {
    /// All metrics now, in Prometheus' text format ([`METRICS_CONTENT_TYPE`]). Reads `/proc`; meant for the control thread.
    pub fn render(&self) -> String {
        text(&self.page())
    }

    /// All metrics now, in OpenMetrics ([`OPENMETRICS_CONTENT_TYPE`]), without its end: `# EOF` comes after whatever else is told.
    pub fn render_openmetrics(&self) -> String {
        openmetrics::write(&self.page())
    }

    pub(crate) fn page(&self) -> Page {
        let mut page = Page::default();
        let expected = self.expected();
        exchanges(&self.0, &expected, &mut page);
        connections(&self.0, &expected, &mut page);
        upstreams(&self.0, &expected, &mut page);
        program(&self.0, &mut page);
        overload(&self.0, &mut page);
        process(&Process::read(), &mut page);
        page
    }

    /// When the process began, and with it everything that is counted.
    pub(crate) fn started() -> Option<SystemTime> {
        let seconds = Process::read().start_seconds?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds.max(0.0)))
    }

    /// Durations by the semantic conventions: of requests, and of attempts at upstreams.
    pub(crate) fn semantic_sums(&self) -> (ServerSums, ClientSums) {
        (self.0.semantics.server.sums(), self.0.semantics.client.sums())
    }

    /// The names of attache's own families, as OpenMetrics has them; what else is told must not have the same.
    pub fn family_names() -> impl Iterator<Item = &'static str> {
        d::ALL.iter().map(|what| openmetrics::family_name(what))
    }
}

fn exchanges(registry: &Registry, expected: &Expected, page: &mut Page) {
    let sums = registry.exchanges.sums();
    let mut counted = only(&sums, cell::COUNT);
    expected.requests(&mut counted);
    page.counter(&d::REQUESTS, &counted, 0);
    page.gauge(&d::IN_FLIGHT, &registry.in_flight.sums());
    let by_code = group(&sums, |[listener, route, upstream, protocol, code, _]| {
        [listener, route, upstream, protocol, code]
    });
    let exemplars = registry.exemplars.fold(exemplars::read);
    page.histograms(&d::DURATION, &by_code, cell::TOTAL, &exemplars);
    page.histograms(&d::TIME_TO_HEAD, &by_code, cell::HEAD, &BTreeMap::new());
    let by_pair = group(&sums, |[listener, _, upstream, ..]| [listener, upstream]);
    page.histograms(&d::UPSTREAM_DURATION, &by_pair, cell::UPSTREAM, &BTreeMap::new());
    page.histograms(&d::ADDED_DURATION, &by_pair, cell::ADDED, &BTreeMap::new());
    let by_route =
        group(&sums, |[listener, route, upstream, protocol, ..]| [listener, route, upstream, protocol]);
    page.counter(&d::RECEIVED, &by_route, cell::RECEIVED);
    page.counter(&d::SENT, &by_route, cell::SENT);
    let mut by_upstream = group(&sums, |[_, _, upstream, ..]| [upstream]);
    by_upstream.retain(|[upstream], _| !upstream.is_empty());
    page.counter(&d::UPSTREAM_ATTEMPTS, &by_upstream, cell::ATTEMPTS);
}

fn connections(registry: &Registry, expected: &Expected, page: &mut Page) {
    let sums = registry.connections.sums();
    page.counter(&d::CONNECTIONS_OPENED, &sums, cell::OPENED);
    page.gauge(&d::CONNECTIONS_ACTIVE, &only(&sums, cell::ACTIVE));
    page.counter(&d::CONNECTIONS_CLOSED, &expected.closed(registry.connections_closed.sums()), 0);
}

fn upstreams(registry: &Registry, expected: &Expected, page: &mut Page) {
    page.counter(&d::UPSTREAM_RETRIES, &expected.retries(registry.retries.sums()), 0);
    let budgets = registry.control.retry_budgets.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let of =
        |at: usize| budgets.iter().map(move |(upstream, all)| ([Name::clone(upstream)], f64::from(all[at])));
    page.numbers(&d::UPSTREAM_RETRIES_ACTIVE, of(0));
    page.numbers(&d::UPSTREAM_RETRIES_LIMIT, of(1));
    page.counter(&d::UPSTREAM_HEDGES, &registry.hedges.sums(), 0);
    let sums = registry.upstream_connections.sums();
    page.counter(&d::UPSTREAM_CONNECTIONS_OPENED, &sums, cell::OPENED);
    page.gauge(&d::UPSTREAM_CONNECTIONS_ACTIVE, &only(&sums, cell::ACTIVE));
    page.counter(
        &d::UPSTREAM_CONNECTION_FAILURES,
        &expected.connection_failures(registry.upstream_failures.sums()),
        0,
    );
    page.histograms(&d::UPSTREAM_CONNECT, &registry.connects.sums(), 0, &BTreeMap::new());
    page.counter(&d::UPSTREAM_POOL_REUSED, &registry.pool_reused.sums(), 0);
    page.counter(&d::UPSTREAM_OVERFLOW, &expected.overflow(registry.overflow.sums()), 0);
    page.counter(&d::UPSTREAM_EJECTIONS, &expected.ejections(registry.ejections.sums()), 0);
    let endpoints = registry.control.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let states = endpoints.iter().flat_map(|(upstream, counts)| {
        [
            ("circuit-open", counts.circuit_open),
            ("unreachable", counts.unreachable),
            ("ejected", counts.ejected),
            ("healthy", counts.healthy),
            ("unhealthy", counts.unhealthy),
        ]
        .map(|(state, count)| ([Name::clone(upstream), state.into()], count as f64))
    });
    page.numbers(&d::UPSTREAM_ENDPOINTS, states);
    let circuits = registry.control.circuits.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let states = circuits.iter().flat_map(|(upstream, now)| {
        ["closed", "half-open", "open"]
            .map(|state| ([Name::clone(upstream), state.into()], f64::from(u8::from(*now == state))))
    });
    page.numbers(&d::UPSTREAM_CIRCUIT, states);
    page.counter(&d::UPSTREAM_TRANSITIONS, &expected.transitions(registry.transitions.sums()), 0);
    let admissions = registry.control.admissions.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let of = |value: fn(&AdmissionCounts) -> f64| {
        admissions.iter().map(move |(upstream, counts)| ([Name::clone(upstream)], value(counts)))
    };
    page.numbers(&d::UPSTREAM_CONCURRENCY_LIMIT, of(|counts| f64::from(counts.limit)));
    page.numbers(&d::UPSTREAM_CONCURRENCY, of(|counts| f64::from(counts.running)));
    page.numbers(&d::UPSTREAM_QUEUE, of(|counts| f64::from(counts.waiting)));
    let measured = admissions
        .iter()
        .filter_map(|(upstream, counts)| Some(([Name::clone(upstream)], counts.min_rtt?.as_secs_f64())));
    page.numbers(&d::UPSTREAM_MIN_RTT, measured);
    page.counter(&d::RATE_LIMIT_SERVICE, &registry.limit_service.sums(), 0);
    page.counter(&d::MIRRORED, &registry.mirrored.sums(), 0);
    page.counter(&d::SUBSET_FALLBACKS, &registry.subset_fallbacks.sums(), 0);
    page.counter(&d::AUTHORIZATION, &registry.authorization.sums(), 0);
    page.counter(&d::AUTHORIZER, &registry.authorizer.sums(), 0);
    page.counter(&d::CORS, &registry.cors.sums(), 0);
    page.counter(&d::COMPRESSED, &registry.compressed.sums(), 0);
    page.counter(&d::JWT_KEYS, &registry.jwt_keys.sums(), 0);
    page.counter(&d::DNS_LOOKUPS, &expected.dns(registry.dns.sums()), 0);
    page.counter(&d::ENDPOINT_SLICES, &registry.endpoint_slices.sums(), 0);
}

fn program(registry: &Registry, page: &mut Page) {
    let control = &registry.control;
    let outcomes = [("failed", &control.reloads_failed), ("ok", &control.reloads_ok)];
    let outcomes = outcomes.map(|(word, count)| ([Name::from(word)], count.load(Relaxed) as f64));
    page.numbers(&d::CONFIG_RELOADS, outcomes);
    let loaded = control.last_loaded.load(Relaxed);
    let failed = control.last_reload_failed.load(Relaxed);
    page.number(&d::CONFIG_LAST_RELOAD_OK, Some(f64::from(u8::from(loaded != 0 && !failed))));
    page.number(&d::CONFIG_LAST_LOADED, (loaded != 0).then_some(loaded as f64));
    let expiries = control.expiries.lock().unwrap_or_else(PoisonError::into_inner).clone();
    page.numbers(&d::CERTIFICATE_EXPIRY, expiries.iter().map(|(labels, at)| (&labels[..], *at as f64)));
    let outcomes = [("failed", &control.certificate_failures), ("ok", &control.certificate_reloads)];
    let outcomes = outcomes.map(|(word, count)| ([Name::from(word)], count.load(Relaxed) as f64));
    page.numbers(&d::CERTIFICATE_RELOADS, outcomes);
    page.number(&d::CERTIFICATES_FAILING, Some(control.certificates_failing.load(Relaxed) as f64));
    page.counter(&d::TLS_HANDSHAKES, &registry.tls_handshakes.sums(), 0);
    page.counter(&d::TLS_CLIENTS, &registry.tls_clients.sums(), 0);
    let outcomes = [("failed", &control.credential_failures), ("ok", &control.credential_reloads)];
    let outcomes = outcomes.map(|(word, count)| ([Name::from(word)], count.load(Relaxed) as f64));
    page.numbers(&d::CREDENTIAL_RELOADS, outcomes);
    page.number(&d::CREDENTIALS_FAILING, Some(control.credentials_failing.load(Relaxed) as f64));
    let insecure = control.insecure.lock().unwrap_or_else(PoisonError::into_inner).clone();
    page.numbers(&d::TLS_INSECURE, insecure.into_iter().map(|upstream| ([upstream], 1.0)));
    // What should be zero is shown as zero: an alert on a series that isn't there never fires.
    let mut dropped = BTreeMap::from(["queue-full", "write-failed"].map(|cause| ([Name::from(cause)], [0])));
    dropped.extend(registry.log_dropped.sums());
    page.counter(&d::LOG_DROPPED, &dropped, 0);
    page.counter(&d::LOG_RECORDS, &registry.log_records.sums(), 0);
    page.counter(&d::METRIC_EXPORTS, &registry.metric_exports.sums(), 0);
    let exported = registry.spans_exported.sums().values().map(|cells| cells[0]).sum::<u64>();
    page.number(&d::SPANS_EXPORTED, Some(exported as f64));
    let causes = ["export-failed", "queue-full", "rejected"];
    let mut dropped = BTreeMap::from(causes.map(|cause| ([Name::from(cause)], [0])));
    dropped.extend(registry.spans_dropped.sums());
    page.counter(&d::SPANS_DROPPED, &dropped, 0);
    let panics = registry.panics.sums().values().map(|cells| cells[0]).sum::<u64>();
    page.number(&d::PANICS, Some(panics as f64));
    page.numbers(&d::BUILD_INFO, [([Name::from(env!("CARGO_PKG_VERSION"))], 1.0)]);
}

fn overload(registry: &Registry, page: &mut Page) {
    let gauges = registry.control.overload.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let pressure = gauges.pressure.iter().map(|(resource, share)| ([Name::from(*resource)], *share));
    page.numbers(&d::OVERLOAD_PRESSURE, pressure);
    let actions = gauges.actions.iter().map(|(action, on)| ([Name::from(*action)], f64::from(u8::from(*on))));
    page.numbers(&d::OVERLOAD_ACTIVE, actions);
}

fn process(process: &Process, page: &mut Page) {
    page.number(&d::THROTTLED, process.throttled_seconds);
    page.number(&d::PROCESS_CPU, process.cpu_seconds);
    page.number(&d::PROCESS_RSS, process.resident_bytes);
    page.number(&d::PROCESS_FDS, process.open_fds);
    page.number(&d::PROCESS_MAX_FDS, process.max_fds);
    page.number(&d::PROCESS_THREADS, process.threads);
    page.number(&d::PROCESS_START, process.start_seconds);
}

/// Adds up what differs only in labels that aren't kept.
fn group<const FROM: usize, const TO: usize, const CELLS: usize>(
    sums: &Sums<FROM, CELLS>,
    keep: impl Fn(&[Name; FROM]) -> [&Name; TO],
) -> Sums<TO, CELLS> {
    let mut grouped = Sums::new();
    for (labels, cells) in sums {
        let group = grouped.entry(keep(labels).map(Name::clone)).or_insert([0; CELLS]);
        for (sum, cell) in group.iter_mut().zip(cells) {
            *sum = sum.wrapping_add(*cell);
        }
    }
    grouped
}

/// One cell of several.
fn only<const LABELS: usize, const CELLS: usize>(sums: &Sums<LABELS, CELLS>, cell: usize) -> Sums<LABELS, 1> {
    sums.iter().map(|(labels, cells)| (labels.clone(), [cells[cell]])).collect()
}
