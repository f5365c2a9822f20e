//! Failures as load, for `least-request`: an endpoint that fails fast has few running requests, which must not attract
//! traffic.
//!
//! **Rule.** A failure counts as one more running request. It fades with `tau` = 10 s, and by a sixteenth with every
//! success: an endpoint that fails always looks as busy as one that takes ten seconds for each request, and one failure
//! in a hundred requests hardly counts. The most is 100; below a tenth it is zero. `peak-ewma` has the same rule in its
//! own unit ([`super::ewma`]).
//!
//! **Source.** The idea is that of linkerd2-proxy's load biaser.
//!
//! For an endpoint without failures a pick only loads a zero, and reads no clock. Workers may write the two atomics at the
//! same time; if an update is lost, one failure is not counted.

use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use crate::Endpoint;

const TAU: f64 = 10e9;
const SUCCESS: f64 = 15.0 / 16.0;
const MAX_BIAS: f64 = 100.0;
const MIN_BIAS: f64 = 0.1;

/// The number of requests that its failures count as.
pub(super) fn load(endpoint: &Endpoint) -> f64 {
    let bits = endpoint.bias.load(Relaxed);
    if bits == 0 {
        return 0.0;
    }
    let since = endpoint.since_added(Instant::now()).saturating_sub(endpoint.bias_at.load(Relaxed));
    let left = f64::from_bits(bits) * (-(since as f64) / TAU).exp();
    if left < MIN_BIAS {
        // Set to zero, so that no later pick reads the clock; unless the endpoint failed just now.
        let _ = endpoint.bias.compare_exchange(bits, 0, Relaxed, Relaxed);
        return 0.0;
    }
    left
}

/// A request to the endpoint ended.
pub(crate) fn ended(endpoint: &Endpoint, success: bool) {
    let before = load(endpoint);
    let after = match (success, before > 0.0) {
        (true, false) => return,
        (true, true) => before * SUCCESS,
        (false, _) => (before + 1.0).min(MAX_BIAS),
    };
    endpoint.bias_at.store(endpoint.since_added(Instant::now()), Relaxed);
    endpoint.bias.store(after.to_bits(), Relaxed);
}
