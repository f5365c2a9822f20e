//! The buckets of one route.

use std::{net::IpAddr, time::Duration};

use attache_config::model::{self, LimitKey};
use attache_http::Client;
use attache_wire::{Fields, ValueRef};
use tokio::time::Instant;

use super::table::{Bucket, BucketTable};

/// The buckets of one route, shared by all workers.
#[derive(Debug)]
pub struct Limiter {
    config: model::RateLimit,
    rate: BucketRate,
    epoch: Instant,
    all: Bucket,
    table: BucketTable,
}

/// The times of a bucket, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct BucketRate {
    token: u64,
    full: u64,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimited {
    /// Time until the next token.
    pub retry_after: Duration,
    /// The burst: requests at once.
    pub limit: u32,
    /// Time until the bucket is full.
    pub reset: Duration,
}

impl Limiter {
    /// Makes full buckets.
    pub fn new(config: model::RateLimit) -> Self {
        let per = u64::try_from(config.per.as_nanos()).unwrap_or(u64::MAX);
        let token = (per / u64::from(config.requests.max(1))).max(1);
        let rate = BucketRate { token, full: token.saturating_mul(u64::from(config.burst.max(1))) };
        let keys = if config.by == LimitKey::Route { 0 } else { config.max_keys };
        let epoch = Instant::now();
        Self { config, rate, epoch, all: Bucket::default(), table: BucketTable::new(keys) }
    }

    /// Takes a token for a request.
    pub fn check(&self, headers: &Fields, client: &Client, now: Instant) -> Result<(), RateLimited> {
        let now = u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX);
        let by = |key: &[u8]| self.table.bucket(key, now).unwrap_or(&self.all);
        let bucket = match &self.config.by {
            LimitKey::Route => &self.all,
            LimitKey::Header(name) => by(headers.get(name).map_or(b"", ValueRef::as_bytes)),
            LimitKey::Client => match client.address.map(|address| address.ip()) {
                Some(IpAddr::V4(ip)) => by(&ip.octets()),
                Some(IpAddr::V6(ip)) => by(&ip.octets()),
                None => by(b""),
            },
            LimitKey::Identity => by(client.identities().first().map_or(b"", |name| name.as_bytes())),
        };
        bucket.take(self.rate.token, self.rate.full, now).map_err(|full_at| RateLimited {
            retry_after: Duration::from_nanos(
                full_at.saturating_add(self.rate.token).saturating_sub(now.saturating_add(self.rate.full)),
            ),
            limit: self.config.burst.max(1),
            reset: Duration::from_nanos(full_at.saturating_sub(now)),
        })
    }
}
