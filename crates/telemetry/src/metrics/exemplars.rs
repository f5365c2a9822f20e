//! Exemplars: for each bucket of a duration histogram, the trace of one request in that bucket, so that a slow bar of a graph leads to a
//! trace. Only the last sampled request of each bucket is kept: the memory is limited by the number of series, and without tracing it costs
//! nothing.
//!
//! One worker writes its cells and a scrape reads them, as for every metric. The four cells of an exemplar belong together: see
//! [`sequence`].

use std::time::{Duration, SystemTime};

use super::{
    histogram::{self, BOUNDS},
    sequence,
    series::Series,
};
use crate::TraceId;

/// The number of buckets, including the last one, which has no bound.
pub(crate) const BUCKETS: usize = BOUNDS.len() + 1;
/// The cells of an exemplar: the trace (two), the duration in microseconds, the time in milliseconds since the Unix epoch.
const EACH: usize = 4;
/// The count of changes, then the exemplars.
pub(crate) const CELLS: usize = 1 + BUCKETS * EACH;

/// One request that belongs to a bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Exemplar {
    pub(crate) trace: TraceId,
    pub(crate) micros: u64,
    /// Milliseconds since the Unix epoch.
    pub(crate) at: u64,
}

/// The newest exemplar of each bucket.
pub(crate) type Exemplars = [Option<Exemplar>; BUCKETS];

pub(crate) fn write<const L: usize>(series: &Series<L, CELLS>, trace: TraceId, total: Duration) {
    let (bucket, micros) = histogram::observe(total);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let [high, low] = trace.halves();
    sequence::write(series.cell(0), || {
        for (offset, value) in [high, low, micros, now.as_millis() as u64].into_iter().enumerate() {
            series.set(1 + bucket * EACH + offset, value);
        }
    });
}

/// Reads exemplars, and keeps the newer one of each bucket.
pub(crate) fn read<const L: usize>(series: &Series<L, CELLS>, into: &mut Exemplars) {
    let cells = || -> [[u64; EACH]; BUCKETS] {
        std::array::from_fn(|bucket| std::array::from_fn(|offset| series.get(1 + bucket * EACH + offset)))
    };
    let Some(found) = sequence::read(series.cell(0), cells) else { return };
    for (known, [high, low, micros, at]) in into.iter_mut().zip(found) {
        if at > known.map_or(0, |known| known.at) {
            *known = Some(Exemplar { trace: TraceId::of_halves([high, low]), micros, at });
        }
    }
}
