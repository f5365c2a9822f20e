use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use attache_config::model::{self, LimitKey};
use attache_http::{Client, VerifiedIdentity};
use http::HeaderName;
use proptest::prelude::*;

use super::*;
use crate::{
    front,
    testing::{FakeUpstream, get, respond},
};

const SECOND: Duration = Duration::from_secs(1);
const USER: HeaderName = HeaderName::from_static("x-user");

fn limit(requests: u32, burst: u32, by: LimitKey) -> model::RateLimit {
    model::RateLimit { requests, per: SECOND, burst, by, max_keys: 64 }
}

fn user(name: &str) -> Fields {
    Fields::from_iter([(USER, http::HeaderValue::from_str(name).unwrap())])
}

fn check(limiter: &Limiter, name: &str, now: Instant) -> Result<(), RateLimited> {
    limiter.check(&user(name), &Client::default(), now)
}

#[tokio::test(start_paused = true)]
async fn a_burst_and_then_evenly() {
    let limiter = Limiter::new(limit(10, 3, LimitKey::Route));
    let start = Instant::now();
    for _ in 0..3 {
        assert!(check(&limiter, "", start).is_ok());
    }
    let refused = check(&limiter, "", start).unwrap_err();
    assert_eq!(refused, RateLimited { retry_after: SECOND / 10, limit: 3, reset: 3 * SECOND / 10 });
    assert!(check(&limiter, "", start + SECOND / 10 - Duration::from_nanos(1)).is_err());
    assert!(check(&limiter, "", start + SECOND / 10).is_ok());
    assert!(check(&limiter, "", start + SECOND / 10).is_err());
}

#[tokio::test(start_paused = true)]
async fn the_answer_says_when_and_how_much() {
    let limiter = Some(Limiter::new(limit(2, 1, LimitKey::Route)));
    let route = Arc::new(RouteState { limiter, fault: None });
    let script = FakeUpstream::default().answer(1, || Ok(respond(200)));
    let mut service = front(&route, script);
    assert!(service.call(get()).await.is_ok());
    let error = service.call(get()).await.unwrap_err();
    assert_eq!((error.reason, error.sent), (Reason::RateLimited, SentPart::Nothing));
    assert_eq!(error.retry_after, Some(SECOND / 2));
    let headers = error.headers.unwrap();
    assert_eq!(headers.get("ratelimit-limit").unwrap(), "1");
    assert_eq!(headers.get("ratelimit-remaining").unwrap(), "0");
    assert_eq!(headers.get("ratelimit-reset").unwrap(), "1");
}

#[tokio::test(start_paused = true)]
async fn each_value_has_its_own_bucket() {
    let limiter = Limiter::new(limit(1, 1, LimitKey::Header(USER)));
    let now = Instant::now();
    for name in ["ann", "bob"] {
        assert!(check(&limiter, name, now).is_ok());
        assert!(check(&limiter, name, now).is_err());
    }
    let nobody = |now| limiter.check(&Fields::new(), &Client::default(), now);
    assert!(nobody(now).is_ok() && nobody(now).is_err());
}

#[tokio::test(start_paused = true)]
async fn invented_keys_share_one_bucket_and_remove_no_other() {
    let limiter = Limiter::new(limit(1, 1, LimitKey::Header(USER)));
    let now = Instant::now();
    assert!(check(&limiter, "ann", now).is_ok());
    let through = (0..10_000).filter(|n| check(&limiter, &format!("key-{n}"), now).is_ok()).count();
    assert!(through <= 64, "{through}");
    assert!(check(&limiter, "ann", now).is_err(), "her bucket is still hers");
    let later = now + SECOND;
    assert!(check(&limiter, "new", later).is_ok(), "full buckets make room");
}

#[tokio::test(start_paused = true)]
async fn addresses_and_identities_are_keys() {
    let client = |ip: [u8; 4], identity: &str| Client {
        address: Some((ip, 1234).into()),
        proven: VerifiedIdentity::names([identity], 0),
        ..Client::default()
    };
    let now = Instant::now();
    let headers = Fields::new();
    let by_client = Limiter::new(limit(1, 1, LimitKey::Client));
    assert!(by_client.check(&headers, &client([10, 0, 0, 1], "a"), now).is_ok());
    assert!(by_client.check(&headers, &client([10, 0, 0, 1], "b"), now).is_err());
    assert!(by_client.check(&headers, &client([10, 0, 0, 2], "a"), now).is_ok());
    let by_identity = Limiter::new(limit(1, 1, LimitKey::Identity));
    assert!(by_identity.check(&headers, &client([10, 0, 0, 1], "a"), now).is_ok());
    assert!(by_identity.check(&headers, &client([10, 0, 0, 2], "a"), now).is_err());
    assert!(by_identity.check(&headers, &client([10, 0, 0, 1], "b"), now).is_ok());
}

proptest! {
    #[test]
    fn no_key_ever_gets_more_than_its_burst_and_rate(
        requests in 1..20u32,
        burst in 1..20u32,
        max_keys in 1..40usize,
        steps in prop::collection::vec((0..60u8, 0..300u64), 1..400),
    ) {
        let config = model::RateLimit { max_keys, ..limit(requests, burst, LimitKey::Header(USER)) };
        let limiter = Limiter::new(config);
        let start = Instant::now();
        let mut now = start;
        let mut through: std::collections::HashMap<u8, Vec<Instant>> = std::collections::HashMap::new();
        for (key, wait) in steps {
            now += Duration::from_millis(wait / 10);
            if check(&limiter, &key.to_string(), now).is_ok() {
                let times = through.entry(key).or_default();
                times.push(now);
                // From its own bucket, and from the shared one if it began or ended there.
                for from in times.iter() {
                    let count = times.iter().filter(|time| *time >= from).count() as f64;
                    let most = f64::from(burst) + f64::from(requests) * now.duration_since(*from).as_secs_f64();
                    prop_assert!(count <= 2.0 * most + 1.0);
                }
            }
        }
    }

    #[test]
    fn the_route_never_gets_more_than_its_burst_and_rate(
        requests in 1..20u32,
        burst in 1..20u32,
        waits in prop::collection::vec(0..300u64, 1..300),
    ) {
        let limiter = Limiter::new(limit(requests, burst, LimitKey::Route));
        let mut now = Instant::now();
        let mut times: Vec<Instant> = Vec::new();
        for wait in waits {
            now += Duration::from_millis(wait / 10);
            if check(&limiter, "", now).is_ok() {
                times.push(now);
            }
        }
        for (i, from) in times.iter().enumerate() {
            for (j, to) in times.iter().enumerate().skip(i) {
                let most = f64::from(burst) + f64::from(requests) * to.duration_since(*from).as_secs_f64();
                prop_assert!((j - i + 1) as f64 <= most + 1e-6);
            }
        }
    }
}

#[test]
fn workers_at_one_instant_get_exactly_the_burst() {
    let limiter = Limiter::new(limit(1, 100, LimitKey::Header(USER)));
    let now = Instant::now();
    let through = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    through.fetch_add(u32::from(check(&limiter, "ann", now).is_ok()), Relaxed);
                }
            });
        }
    });
    assert_eq!(through.into_inner(), 100);
}
