//! How an endpoint is chosen.

use super::prelude::*;

section! {
    "`balance`"
    /// How an endpoint is chosen among the healthy ones of the chosen priority.
    pub struct Balance {
        /// The algorithm.
        algorithm: Algorithm = Algorithm::LeastRequest,
        /// What `ring-hash` and `maglev` hash: `header:NAME`, `cookie:NAME`, `source` (the client's address) or `path`.
        // It is set for these two algorithms, and for no other.
        hash: Option<HashKey> as Optional<Hash> = None,
        /// The weight of a new or recovered endpoint rises to its full value over this time; zero is off.
        slow_start: Duration as Timeout = Duration::ZERO,
        /// Below this share of healthy endpoints all are used, healthy or not.
        panic_threshold: f64 as Ratio = 0.5,
        /// attache's own zone: endpoints of it are preferred, overflow goes to the others in proportion.
        #[schema(examples = ["${ZONE:-}"])]
        zone: Option<Name> as UnlessEmpty = None,
    }
    or algorithm
}

/// A balancing algorithm.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    // Power of two choices, Mitzenmacher 2001.
    /// The less loaded of two chosen at random.
    #[default]
    LeastRequest,
    // As Finagle's.
    /// The one of two chosen at random with the lower latency (moving average, sensitive to peaks) times load.
    PeakEwma,
    /// One after the other, by weight.
    RoundRobin,
    /// At random, by weight.
    Random,
    // Karger 1997.
    /// Consistent hashing on a ring; needs `hash`.
    RingHash,
    // Eisenbud 2016.
    /// Consistent hashing by lookup table; needs `hash`.
    Maglev,
}

impl Algorithm {
    /// True if it hashes a value of the request.
    pub const fn hashes(&self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }
}

/// What a consistent hash is taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// A header's value.
    Header(HeaderName),
    /// A cookie's value.
    Cookie(Name),
    /// The client's address.
    Source,
    /// The path without the query.
    Path,
}
