//! The recent past: the counters of the metrics page as rates and percentiles over the last seconds and minutes.
//!
//! Rule: the control thread reads all workers' cells every five seconds, and keeps the differences of five minutes for those rows that
//! changed. Workers do nothing for this. A window is the sum of its steps and of what was counted since the last step.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use attache_config::model::Name;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{
    Metrics, cell,
    counts::{BUCKETS, RowCounts, failed, longer_waits},
    outage::{Outage, Period},
    point::Point,
};
use crate::Reason;

/// The time between two steps.
const STEP: Duration = Duration::from_secs(5);
/// The number of steps that are kept: five minutes.
const STEPS: usize = 60;
/// The number of steps of the short window: ten seconds, in addition to what came since.
const SHORT: usize = 2;
/// The number of steps of one point of the last hour: 15 seconds.
const COARSE: usize = 3;
/// The number of points of the last hour.
const HOUR: usize = 240;
/// The number of rows with a history of their own; further rows have only sums.
const ROWS: usize = 4096;
/// How long endpoints are counted after the last request for them.
const WATCHED: Duration = Duration::from_secs(60);

/// What a row counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum StatsRowKey {
    Total,
    Listener(Name),
    /// Listener and route.
    Route(Name, Name),
    Upstream(Name),
    /// Upstream and address.
    Endpoint(Name, Name),
}

type Rows = BTreeMap<StatsRowKey, RowCounts>;
/// By upstream and reason.
type Reasons = BTreeMap<[Name; 2], u64>;
/// Upstreams that answer every call with a 4xx.
type RefusingUpstreams = HashMap<Name, (u64, Duration)>;

#[derive(Debug)]
struct StatsInterval {
    /// When the step ended.
    at: Instant,
    took: Duration,
    rows: HashMap<usize, RowCounts>,
    reasons: Reasons,
}

#[derive(Debug)]
struct StatsHistory {
    ids: HashMap<StatsRowKey, usize>,
    last: Rows,
    last_reasons: Reasons,
    last_at: Instant,
    steps: VecDeque<StatsInterval>,
    /// The last hour of all traffic, oldest first.
    hour: VecDeque<Point>,
    /// What was counted since the last point, in how many steps, and for how long.
    gathered: (RowCounts, usize, Duration),
    watched: Option<Instant>,
}

/// How many calls were served well until now.
#[derive(Debug)]
pub(crate) struct ServedCalls(Rows);

impl ServedCalls {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self(rows(metrics))
    }

    /// Those of an upstream, or of a listener if there is no upstream.
    pub(crate) fn of(&self, upstream: Option<&Name>, listener: Option<&Name>) -> u64 {
        let row = match (upstream, listener) {
            (Some(upstream), _) => StatsRowKey::Upstream(upstream.clone()),
            (None, Some(listener)) => StatsRowKey::Listener(listener.clone()),
            (None, None) => StatsRowKey::Total,
        };
        self.0.get(&row).map_or(0, RowCounts::served)
    }

    /// For each upstream, its 4xx responses, and the calls that it served with another status.
    pub(crate) fn upstreams(&self) -> impl Iterator<Item = (&Name, u64, u64)> {
        self.0.iter().filter_map(|(row, counts)| {
            let StatsRowKey::Upstream(name) = row else { return None };
            let errors = counts.client_errors();
            Some((name, errors, counts.served().saturating_sub(errors)))
        })
    }
}

/// Rates and percentiles of the last minutes. Use it on the control thread, because it has a lock.
#[derive(Debug)]
pub struct Stats {
    metrics: Metrics,
    history: Mutex<StatsHistory>,
}

impl Stats {
    /// Starts with the current counts. Must be called within a runtime.
    pub fn new(metrics: &Metrics) -> Self {
        let (last, last_reasons) = (rows(metrics), reasons(metrics));
        let history = StatsHistory {
            ids: HashMap::new(),
            last,
            last_reasons,
            last_at: Instant::now(),
            steps: VecDeque::new(),
            hour: VecDeque::new(),
            gathered: (RowCounts::default(), 0, Duration::ZERO),
            watched: None,
        };
        Self { metrics: metrics.clone(), history: Mutex::new(history) }
    }

    /// Samples periodically, as long as it is polled.
    pub async fn run(&self) {
        let mut ticks = tokio::time::interval_at(Instant::now() + STEP, STEP);
        loop {
            ticks.tick().await;
            self.step();
        }
    }

    fn step(&self) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.step(rows(&self.metrics), reasons(&self.metrics), Instant::now());
        if history.watched.is_some_and(|at| at.elapsed() > WATCHED) {
            history.watched = None;
            self.metrics.watch().count_endpoints(false);
        }
    }

    /// The upstreams that answer every call with a 4xx of their own now.
    pub fn client_errors(&self) -> HashSet<Name> {
        self.metrics.client_errors(&ServedCalls::new(&self.metrics)).into_keys().collect()
    }

    /// Everything as JSON. From the first call on, endpoints are counted too, until a minute after the last call.
    pub fn json(&self) -> Value {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.watched = Some(Instant::now());
        self.metrics.watch().count_endpoints(true);
        let served = ServedCalls::new(&self.metrics);
        let refusing = self.metrics.client_errors(&served);
        history.json(&served.0, &reasons(&self.metrics), &refusing, Instant::now())
    }
}

impl StatsHistory {
    fn step(&mut self, now: Rows, reasons: Reasons, at: Instant) {
        let mut rows = HashMap::new();
        for (row, counts) in &now {
            let since = counts.since(self.last.get(row).unwrap_or(&RowCounts::default()));
            if since.is_empty() {
                continue;
            }
            let next = self.ids.len();
            match self.ids.get(row) {
                Some(id) => {
                    rows.insert(*id, since);
                }
                None if next < ROWS => {
                    self.ids.insert(row.clone(), next);
                    rows.insert(next, since);
                }
                None => {}
            }
        }
        let news = news(&reasons, &self.last_reasons);
        if self.steps.len() >= STEPS {
            self.steps.pop_front();
        }
        let took = at.saturating_duration_since(self.last_at);
        let all = now.get(&StatsRowKey::Total).copied().unwrap_or_default();
        let before = self.last.get(&StatsRowKey::Total).copied().unwrap_or_default();
        self.gather(&all.since(&before), took, at);
        self.steps.push_back(StatsInterval { at, took, rows, reasons: news });
        (self.last, self.last_reasons, self.last_at) = (now, reasons, at);
    }

    fn gather(&mut self, since: &RowCounts, took: Duration, at: Instant) {
        let (counts, steps, over) = &mut self.gathered;
        counts.add(since);
        (*steps, *over) = (*steps + 1, *over + took);
        if *steps < COARSE {
            return;
        }
        if self.hour.len() >= HOUR {
            self.hour.pop_front();
        }
        self.hour.push_back(Point::new(at, counts, *over));
        self.gathered = (RowCounts::default(), 0, Duration::ZERO);
    }

    /// The counts of a row in the last `steps` steps and since the last one, and how long that period is.
    fn window(&self, row: &StatsRowKey, now: &RowCounts, at: Instant, steps: usize) -> (RowCounts, Duration) {
        let mut sum = now.since(self.last.get(row).unwrap_or(&RowCounts::default()));
        let mut over = at.saturating_duration_since(self.last_at);
        let id = self.ids.get(row);
        for step in self.steps.iter().rev().take(steps) {
            over += step.took;
            if let Some(counts) = id.and_then(|id| step.rows.get(id)) {
                sum.add(counts);
            }
        }
        (sum, over)
    }

    /// What a row counted in each step, and since the last one, newest first.
    fn newest_first(&self, row: &StatsRowKey, now: &RowCounts, at: Instant) -> impl Iterator<Item = Period> {
        let since = now.since(self.last.get(row).unwrap_or(&RowCounts::default()));
        let running = at.saturating_duration_since(self.last_at);
        let id = self.ids.get(row).copied();
        let steps = self.steps.iter().rev().filter_map(move |step| {
            let counts = *step.rows.get(&id?)?;
            Some(Period { counts, ended: at.saturating_duration_since(step.at), took: step.took })
        });
        std::iter::once(Period { counts: since, ended: Duration::ZERO, took: running }).chain(steps)
    }

    fn row(
        &self,
        row: &StatsRowKey,
        now: &RowCounts,
        refusing: &RefusingUpstreams,
        at: Instant,
    ) -> Map<String, Value> {
        let (short, short_over) = self.window(row, now, at, SHORT);
        let (long, long_over) = self.window(row, now, at, STEPS);
        let [c1, c2, c3, c4, c5, none] = now.classes;
        let mut out = Map::new();
        out.insert("requests".into(), now.requests().into());
        out.insert(
            "classes".into(),
            json!({ "1xx": c1, "2xx": c2, "3xx": c3, "4xx": c4, "5xx": c5, "none": none }),
        );
        out.insert("failed".into(), now.failed.into());
        out.insert("attempts".into(), now.attempts.into());
        out.insert("received_bytes".into(), now.received.into());
        out.insert("sent_bytes".into(), now.sent.into());
        out.insert("last_10s".into(), short.window(short_over));
        out.insert("last_5m".into(), long.window(long_over));
        let outage = Outage::of(&short, &long, self.newest_first(row, now, at)).or_else(|| {
            let StatsRowKey::Upstream(name) = row else { return None };
            refusing.get(name).map(|(count, since)| Outage::of_client_errors(*count, *since))
        });
        out.insert("outage".into(), outage.map_or(Value::Null, |outage| outage.json()));
        out
    }

    /// One point for each step, oldest first: the seconds before now, requests and failures per second, and the percentiles.
    fn series(&self, row: &StatsRowKey, at: Instant) -> Vec<Value> {
        let id = self.ids.get(row);
        let none = RowCounts::default();
        let points = self.steps.iter().map(|step| {
            let counts = id.and_then(|id| step.rows.get(id)).unwrap_or(&none);
            Point::new(step.at, counts, step.took).json(at)
        });
        points.collect()
    }

    fn json(&self, now: &Rows, reasons: &Reasons, refusing: &RefusingUpstreams, at: Instant) -> Value {
        let (mut listeners, mut routes, mut upstreams, mut endpoints) = (vec![], vec![], vec![], vec![]);
        let mut total = Map::new();
        for (row, counts) in now {
            let mut out = self.row(row, counts, refusing, at);
            let mut named = |names: &[(&str, &Name)]| {
                for (key, name) in names {
                    out.insert((*key).to_owned(), Value::from(&***name));
                }
                Value::Object(std::mem::take(&mut out))
            };
            match row {
                StatsRowKey::Total => total = out,
                StatsRowKey::Listener(name) => listeners.push(named(&[("listener", name)])),
                StatsRowKey::Route(listener, route) => {
                    routes.push(named(&[("listener", listener), ("route", route)]));
                }
                StatsRowKey::Upstream(name) => {
                    let mut value = named(&[("upstream", name)]);
                    if let Some(value) = value.as_object_mut() {
                        value.insert("series".into(), self.series(row, at).into());
                    }
                    upstreams.push(value);
                }
                StatsRowKey::Endpoint(upstream, endpoint) => {
                    endpoints.push(named(&[("upstream", upstream), ("endpoint", endpoint)]));
                }
            }
        }
        let mut lately = news(reasons, &self.last_reasons);
        for step in &self.steps {
            for (key, count) in &step.reasons {
                *lately.entry(key.clone()).or_default() += count;
            }
        }
        let reasons: Vec<_> = reasons
            .iter()
            .map(|(key @ [upstream, reason], count)| {
                json!({
                    "upstream": Some(&**upstream).filter(|name| !name.is_empty()),
                    "reason": &**reason,
                    "count": count,
                    "last_5m": lately.get(key).copied().unwrap_or(0),
                })
            })
            .collect();
        json!({
            "step_seconds": STEP.as_secs(),
            "total": total,
            "series": self.series(&StatsRowKey::Total, at),
            "hour": self.hour.iter().map(|point| point.json(at)).collect::<Vec<_>>(),
            "listeners": listeners,
            "routes": routes,
            "upstreams": upstreams,
            "endpoints": endpoints,
            "reasons": reasons,
        })
    }
}

fn news(now: &Reasons, before: &Reasons) -> Reasons {
    let since = |(key, count): (&[Name; 2], &u64)| {
        let news = count.saturating_sub(before.get(key).copied().unwrap_or(0));
        (news > 0).then(|| (key.clone(), news))
    };
    now.iter().filter_map(since).collect()
}

fn rows(metrics: &Metrics) -> Rows {
    let mut rows = Rows::new();
    rows.insert(StatsRowKey::Total, RowCounts::default());
    for ([listener, route, upstream, protocol, code, reason], cells) in metrics.0.shared.exchanges.sums() {
        let mut counts = RowCounts::default();
        let class = code.bytes().next().map_or(0, |digit| usize::from(digit.wrapping_sub(b'0')));
        let count = cells[cell::COUNT];
        let column = if (1..=5).contains(&class) { class - 1 } else { cell::CLASSES - 1 };
        if let Some(column) = counts.classes.get_mut(column) {
            *column = count;
        }
        let reason = Reason::ALL.iter().copied().find(|known| known.as_str() == &*reason);
        let is_http = protocol.starts_with("http");
        if is_http {
            counts.durations.copy_from_slice(&cells[cell::TOTAL..cell::TOTAL + BUCKETS]);
        }
        match (class, reason) {
            (class, reason) if failed(class, reason) => counts.failed = count,
            (0, Some(Reason::ClientClosed)) if is_http => {
                (counts.given_up, counts.waited) = (count, longer_waits(&counts.durations));
            }
            (4, Some(_)) => counts.refused = count,
            _ => {}
        }
        counts.waited += cells[cell::LEFT];
        (counts.attempts, counts.received, counts.sent) =
            (cells[cell::ATTEMPTS], cells[cell::RECEIVED], cells[cell::SENT]);
        let mut of = |row| rows.entry(row).or_default().add(&counts);
        of(StatsRowKey::Total);
        of(StatsRowKey::Listener(listener.clone()));
        if !route.is_empty() {
            of(StatsRowKey::Route(listener, route));
        }
        if !upstream.is_empty() {
            of(StatsRowKey::Upstream(upstream));
        }
    }
    for ([upstream, endpoint], cells) in metrics.0.shared.endpoints.sums() {
        let mut counts = RowCounts { failed: cells[cell::FAILED], ..RowCounts::default() };
        counts.classes.copy_from_slice(&cells[..cell::CLASSES]);
        counts.durations.copy_from_slice(&cells[cell::ENDPOINT_TOTAL..cell::ENDPOINT_TOTAL + BUCKETS]);
        counts.attempts = counts.requests();
        rows.insert(StatsRowKey::Endpoint(upstream, endpoint), counts);
    }
    rows
}

fn reasons(metrics: &Metrics) -> Reasons {
    let mut reasons = Reasons::new();
    for ([_, _, upstream, _, _, reason], cells) in metrics.0.shared.exchanges.sums() {
        if !reason.is_empty() {
            *reasons.entry([upstream, reason]).or_default() += cells[cell::COUNT];
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Exchange;

    fn finish(metrics: &Metrics, status: u16, reason: Option<Reason>) {
        let exchange = Exchange::new("outbound".into(), "http1", None);
        exchange.route.replace(Some("outbound/0".into()));
        exchange.upstream.replace(Some("orders".into()));
        exchange.endpoint.replace(Some("10.0.0.8:80".into()));
        exchange.attempts.set(1);
        exchange.status.set(status);
        exchange.reason.set(reason);
        metrics.worker().request_finished(&exchange);
    }

    #[tokio::test(start_paused = true)]
    async fn windows_move_and_sums_stay() {
        let metrics = Metrics::new();
        let stats = Stats::new(&metrics);
        for _ in 0..10 {
            finish(&metrics, 200, None);
        }
        finish(&metrics, 503, Some(Reason::ConnectRefused));
        let now = stats.json();
        assert_eq!(now["total"]["last_10s"]["requests"], 11);
        assert_eq!(now["total"]["last_10s"]["failed"], 1);
        tokio::time::advance(STEP).await;
        stats.step();
        let now = stats.json();
        assert_eq!(now["total"]["last_10s"]["per_second"], 2.2);
        assert_eq!(now["reasons"][0]["reason"], "connect-refused");
        assert_eq!(now["reasons"][0]["last_5m"], 1);
        assert_eq!(now["upstreams"][0]["upstream"], "orders");
        assert_eq!(now["upstreams"][0]["series"][0][1], 2.2);
        for _ in 0..2 {
            tokio::time::advance(STEP).await;
            stats.step();
        }
        let now = stats.json();
        assert_eq!(now["total"]["last_10s"]["requests"], 0);
        assert_eq!(now["total"]["last_5m"]["requests"], 11);
        for _ in 0..STEPS {
            tokio::time::advance(STEP).await;
            stats.step();
        }
        let now = stats.json();
        assert_eq!(
            (&now["total"]["last_5m"]["requests"], &now["total"]["requests"]),
            (&json!(0), &json!(11))
        );
        assert_eq!(now["series"].as_array().unwrap().len(), STEPS);
    }

    #[tokio::test(start_paused = true)]
    async fn an_hour_of_all_traffic_is_kept_in_so_many_points() {
        let metrics = Metrics::new();
        let stats = Stats::new(&metrics);
        for minute in 0..90 {
            finish(&metrics, if minute == 89 { 500 } else { 200 }, None);
            for _ in 0..12 {
                tokio::time::advance(STEP).await;
                stats.step();
            }
        }
        let seen = stats.json();
        let hour = seen["hour"].as_array().unwrap();
        assert_eq!(hour.len(), HOUR);
        assert_eq!((&hour[0][0], &hour[HOUR - 1][0]), (&json!(3585), &json!(0)));
        let sum = |column: usize| hour.iter().filter_map(|point| point[column].as_f64()).sum::<f64>() * 15.0;
        // Rates are rounded to a hundredth.
        assert!((sum(1) - 60.0).abs() < 10.0 && (sum(2) - 1.0).abs() < 0.2, "{} {}", sum(1), sum(2));
    }

    #[tokio::test(start_paused = true)]
    async fn endpoints_are_counted_from_the_first_request_for_them_until_a_minute_after_the_last() {
        let metrics = Metrics::new();
        let stats = Stats::new(&metrics);
        finish(&metrics, 200, None);
        assert_eq!(stats.json()["endpoints"], json!([]));
        finish(&metrics, 200, None);
        assert_eq!(stats.json()["endpoints"][0]["requests"], 1);
        tokio::time::advance(WATCHED + STEP).await;
        stats.step();
        finish(&metrics, 200, None);
        assert_eq!(stats.json()["endpoints"][0]["requests"], 1);
    }
}
