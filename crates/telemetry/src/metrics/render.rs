//! The page that Prometheus reads: text format 0.0.4.
//!
//! All workers' cells are added up here, on the thread that asks. The order is that of the descriptors, then of the
//! labels, so that two scrapes can be compared by eye.

use std::{collections::BTreeMap, sync::PoisonError, sync::atomic::Ordering::Relaxed};

use attache_config::model::Name;
use prometheus::{
    TextEncoder,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

use super::{
    Metrics, Registry,
    descriptors::{self as d, Descriptor, Kind},
    histogram::{BOUNDS, SUM},
    process::Process,
    worker::cell,
};

/// The content type of [`Metrics::render`].
pub const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Metrics {
    /// All metrics now, in Prometheus' text format ([`METRICS_CONTENT_TYPE`]). Reads `/proc`; meant for the control thread.
    pub fn render(&self) -> String {
        let mut page = Page::default();
        exchanges(&self.0, &mut page);
        connections(&self.0, &mut page);
        upstreams(&self.0, &mut page);
        program(&self.0, &mut page);
        process(&Process::read(), &mut page);
        // The encoder only refuses families without a name or a sample, which `Page` never makes.
        TextEncoder::new().encode_to_string(&page.0).unwrap_or_default()
    }
}

fn exchanges(registry: &Registry, page: &mut Page) {
    let sums = registry.exchanges.sums();
    page.numbers(&d::REQUESTS, sums.iter().map(|(labels, cells)| (&labels[..], cells[cell::COUNT] as f64)));
    page.gauge(&d::IN_FLIGHT, &registry.in_flight.sums());
    let by_code = group(&sums, |[listener, route, upstream, protocol, code, _]| {
        [listener, route, upstream, protocol, code]
    });
    page.histograms(&d::DURATION, &by_code, cell::TOTAL);
    page.histograms(&d::TIME_TO_HEAD, &by_code, cell::HEAD);
    let by_route =
        group(&sums, |[listener, route, upstream, protocol, ..]| [listener, route, upstream, protocol]);
    page.counter(&d::RECEIVED, &by_route, cell::RECEIVED);
    page.counter(&d::SENT, &by_route, cell::SENT);
    let mut by_upstream = group(&sums, |[_, _, upstream, ..]| [upstream]);
    by_upstream.retain(|[upstream], _| !upstream.is_empty());
    page.counter(&d::UPSTREAM_TRIES, &by_upstream, cell::TRIES);
}

fn connections(registry: &Registry, page: &mut Page) {
    let sums = registry.connections.sums();
    page.counter(&d::CONNECTIONS_OPENED, &sums, cell::OPENED);
    page.gauge(&d::CONNECTIONS_ACTIVE, &only(&sums, cell::ACTIVE));
    page.counter(&d::CONNECTIONS_CLOSED, &registry.connections_closed.sums(), 0);
}

fn upstreams(registry: &Registry, page: &mut Page) {
    page.counter(&d::UPSTREAM_RETRIES, &registry.retries.sums(), 0);
    page.counter(&d::UPSTREAM_HEDGES, &registry.hedges.sums(), 0);
    let sums = registry.upstream_connections.sums();
    page.counter(&d::UPSTREAM_CONNECTIONS_OPENED, &sums, cell::OPENED);
    page.gauge(&d::UPSTREAM_CONNECTIONS_ACTIVE, &only(&sums, cell::ACTIVE));
    page.counter(&d::UPSTREAM_CONNECTION_FAILURES, &registry.upstream_failures.sums(), 0);
    page.counter(&d::UPSTREAM_POOL_REUSED, &registry.pool_reused.sums(), 0);
    page.counter(&d::UPSTREAM_OVERFLOW, &registry.overflow.sums(), 0);
    page.counter(&d::UPSTREAM_EJECTIONS, &registry.ejections.sums(), 0);
    let endpoints = registry.control.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let states = endpoints.iter().flat_map(|(upstream, counts)| {
        [
            ("circuit-open", counts.circuit_open),
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
    page.counter(&d::UPSTREAM_TRANSITIONS, &registry.transitions.sums(), 0);
    page.counter(&d::DNS_LOOKUPS, &registry.dns.sums(), 0);
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
    let insecure = control.insecure.lock().unwrap_or_else(PoisonError::into_inner).clone();
    page.numbers(&d::TLS_INSECURE, insecure.into_iter().map(|upstream| ([upstream], 1.0)));
    // What should be zero is shown as zero: an alert on a series that isn't there never fires.
    let mut dropped = BTreeMap::from(["queue-full", "write-failed"].map(|cause| ([Name::from(cause)], [0])));
    dropped.extend(registry.log_dropped.sums());
    page.counter(&d::LOG_DROPPED, &dropped, 0);
    let panics = registry.panics.sums().values().map(|cells| cells[0]).sum::<u64>();
    page.number(&d::PANICS, Some(panics as f64));
    page.numbers(&d::BUILD_INFO, [([Name::from(env!("CARGO_PKG_VERSION"))], 1.0)]);
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

type Sums<const LABELS: usize, const CELLS: usize> = BTreeMap<[Name; LABELS], [u64; CELLS]>;

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

/// The families so far. A family without a sample is left out, as the format wants it.
#[derive(Default)]
struct Page(Vec<MetricFamily>);

impl Page {
    fn counter<const L: usize, const C: usize>(&mut self, what: &Descriptor, sums: &Sums<L, C>, cell: usize) {
        self.numbers(what, sums.iter().map(|(labels, cells)| (&labels[..], cells[cell] as f64)));
    }

    /// Workers' cells wrap, their sum doesn't: what one counted up another may have counted down.
    fn gauge<const L: usize>(&mut self, what: &Descriptor, sums: &Sums<L, 1>) {
        self.numbers(what, sums.iter().map(|(labels, [cell])| (&labels[..], cell.cast_signed() as f64)));
    }

    fn number(&mut self, what: &Descriptor, value: Option<f64>) {
        self.numbers(what, value.map(|value| ([], value)));
    }

    fn numbers<L: AsRef<[Name]>>(&mut self, what: &Descriptor, samples: impl IntoIterator<Item = (L, f64)>) {
        let metrics = samples.into_iter().map(|(labels, value)| {
            let mut metric = Metric::from_label(pairs(what, labels.as_ref()));
            if what.kind == Kind::Counter {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            } else {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            metric
        });
        self.family(what, metrics.collect());
    }

    /// Histograms whose cells start at `first`; those that never saw a value are left out.
    fn histograms<const C: usize>(&mut self, what: &Descriptor, sums: &Sums<5, C>, first: usize) {
        let metrics = sums.iter().filter_map(|(labels, cells)| {
            let histogram = histogram(&cells[first..=first + SUM])?;
            let mut metric = Metric::from_label(pairs(what, labels));
            metric.set_histogram(histogram);
            Some(metric)
        });
        self.family(what, metrics.collect());
    }

    fn family(&mut self, what: &Descriptor, metrics: Vec<Metric>) {
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(what.name.into());
        family.set_help(what.help.into());
        family.set_field_type(match what.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(metrics);
        self.0.push(family);
    }
}

/// The count is made from the buckets, so that the two always agree, however the scrape met the worker.
fn histogram(cells: &[u64]) -> Option<Histogram> {
    let mut count = 0;
    let mut buckets = Vec::with_capacity(BOUNDS.len());
    for (bound, cell) in BOUNDS.iter().zip(cells) {
        count += cell;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e6);
        bucket.set_cumulative_count(count);
        buckets.push(bucket);
    }
    count += cells[BOUNDS.len()];
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(count);
    histogram.set_sample_sum(cells[SUM] as f64 / 1e6);
    (count > 0).then_some(histogram)
}

fn pairs(what: &Descriptor, values: &[Name]) -> Vec<LabelPair> {
    let pair = |(name, value): (&&str, &Name)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).into());
        pair.set_value(value.to_string());
        pair
    };
    what.labels.iter().zip(values).map(pair).collect()
}
