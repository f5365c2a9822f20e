//! A page of metrics before it is written in one of the formats.

use std::collections::BTreeMap;

use attache_config::model::Name;
use prometheus::{
    TextEncoder,
    proto::{self, LabelPair, Metric, MetricFamily, MetricType},
};

use super::{
    descriptor::{MetricDescriptor, MetricKind},
    exemplars::{BUCKETS, Exemplars},
    histogram::{BOUNDS, SUM},
    series::Sums,
};

/// The families so far. A family without a sample is left out, as the formats require.
#[derive(Default)]
pub(crate) struct FamilyPage(pub(crate) Vec<ScrapedFamily>);

/// One metric with all its series.
pub(crate) struct ScrapedFamily {
    pub(crate) what: &'static MetricDescriptor,
    pub(crate) samples: FamilySamples,
}

/// The value of one series.
pub(crate) enum SeriesValue {
    Number(f64),
    Histogram(Box<Histogram>),
}

/// Durations of one series.
pub(crate) struct Histogram {
    /// Cumulative counts, by bound. The bucket without a bound is `count`.
    pub(crate) buckets: [u64; BOUNDS.len()],
    pub(crate) count: u64,
    /// In seconds.
    pub(crate) sum: f64,
    pub(crate) exemplars: Exemplars,
}

/// The series of one metric: the values of its labels, and its own value.
pub(crate) type FamilySamples = Vec<(Vec<Name>, SeriesValue)>;

impl FamilyPage {
    pub(super) fn push(&mut self, what: &'static MetricDescriptor, samples: FamilySamples) {
        if !samples.is_empty() {
            self.0.push(ScrapedFamily { what, samples });
        }
    }
}

/// The sums of a cell that only rises, for each series.
pub(super) fn counts<const L: usize, const C: usize>(sums: &Sums<L, C>, cell: usize) -> FamilySamples {
    numbers(sums.iter().map(|(labels, cells)| (&labels[..], cells[cell] as f64)))
}

/// The sums of a cell that rises and falls, for each series. Single cells may wrap, but their sum doesn't: one worker may subtract what
/// another one added.
pub(super) fn levels<const L: usize, const C: usize>(sums: &Sums<L, C>, cell: usize) -> FamilySamples {
    numbers(sums.iter().map(|(labels, cells)| (&labels[..], cells[cell].cast_signed() as f64)))
}

/// The only series of a metric without labels, if it has a value.
pub(super) fn number(value: Option<f64>) -> FamilySamples {
    numbers(value.map(|value| ([], value)))
}

pub(super) fn numbers<L: AsRef<[Name]>>(samples: impl IntoIterator<Item = (L, f64)>) -> FamilySamples {
    samples
        .into_iter()
        .map(|(labels, value)| (labels.as_ref().to_vec(), SeriesValue::Number(value)))
        .collect()
}

/// The histograms whose cells begin at `first`. Those without a value are left out.
pub(super) fn histograms<const L: usize, const C: usize>(
    sums: &Sums<L, C>,
    first: usize,
    exemplars: &BTreeMap<[Name; L], Exemplars>,
) -> FamilySamples {
    let samples = sums.iter().filter_map(|(labels, cells)| {
        let mut histogram = histogram(&cells[first..=first + SUM])?;
        if let Some(exemplars) = exemplars.get(labels) {
            histogram.exemplars = *exemplars;
        }
        Some((labels.to_vec(), SeriesValue::Histogram(Box::new(histogram))))
    });
    samples.collect()
}

/// Makes a histogram. Its count is computed from the buckets, so that the two always agree, even if the worker counts during the scrape.
fn histogram(cells: &[u64]) -> Option<Histogram> {
    let mut count = 0;
    let mut buckets = [0; BOUNDS.len()];
    for (bucket, cell) in buckets.iter_mut().zip(cells) {
        count += cell;
        *bucket = count;
    }
    count += cells[BOUNDS.len()];
    let sum = cells[SUM] as f64 / 1e6;
    (count > 0).then_some(Histogram { buckets, count, sum, exemplars: [None; BUCKETS] })
}

/// Writes Prometheus' text format 0.0.4.
pub(super) fn text(page: &FamilyPage) -> String {
    let families: Vec<_> = page.0.iter().map(family).collect();
    // The encoder only refuses families without a name or a sample, and `FamilyPage` never makes one.
    TextEncoder::new().encode_to_string(&families).unwrap_or_default()
}

fn family(of: &ScrapedFamily) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(of.what.name.into());
    family.set_help(of.what.help.into());
    family.set_field_type(match of.what.kind {
        MetricKind::Counter => MetricType::COUNTER,
        MetricKind::Gauge => MetricType::GAUGE,
        MetricKind::Histogram => MetricType::HISTOGRAM,
    });
    let metrics = of.samples.iter().map(|(labels, value)| {
        let mut metric = Metric::from_label(pairs(of.what, labels));
        match value {
            SeriesValue::Number(value) if of.what.kind == MetricKind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(*value);
                metric.set_counter(counter);
            }
            SeriesValue::Number(value) => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(*value);
                metric.set_gauge(gauge);
            }
            SeriesValue::Histogram(histogram) => metric.set_histogram(buckets(histogram)),
        }
        metric
    });
    family.set_metric(metrics.collect());
    family
}

fn buckets(of: &Histogram) -> proto::Histogram {
    let buckets = BOUNDS.iter().zip(of.buckets).map(|(bound, count)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e6);
        bucket.set_cumulative_count(count);
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(of.count);
    histogram.set_sample_sum(of.sum);
    histogram
}

fn pairs(what: &MetricDescriptor, values: &[Name]) -> Vec<LabelPair> {
    let pair = |(name, value): (&&str, &Name)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).into());
        pair.set_value(value.to_string());
        pair
    };
    what.labels.iter().zip(values).map(pair).collect()
}
