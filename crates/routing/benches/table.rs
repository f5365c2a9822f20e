//! What a look-up costs with one route and with 5,000: `cargo bench -p attache-routing`.
//!
//! Both are measured in turn, in ten rounds, and the best of each counts, because other programs disturb a measurement.
//! It prints times and checks nothing; only the ratio within one run is meaningful.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::{fmt::Write, hint::black_box, time::Instant};

use attache_http::Client;
use attache_routing::{RequestFacts, RouteTable};
use attache_wire::RequestHead;

const LOOKUPS: u32 = 100_000;

fn main() {
    compare("hosts", |i| (format!("svc-{i:04}.shop.internal"), "/v1".to_owned()));
    compare("paths", |i| ("svc-0000.shop.internal".to_owned(), format!("/v{i:04}")));
}

/// `place` gives the host and path prefix of the i-th route.
fn compare(kind: &str, place: impl Fn(usize) -> (String, String)) {
    let client = Client::default();
    let tables = [1, 5000].map(|count| (count, table(count, &place), request(place(count / 2))));
    let mut best = [u128::MAX; 2];
    for _ in 0..10 {
        for ((_, table, parts), best) in tables.iter().zip(&mut best) {
            let start = Instant::now();
            for _ in 0..LOOKUPS {
                let facts = RequestFacts::of(black_box(parts), &client);
                assert!(black_box(table.find_http(&facts)).is_some());
            }
            *best = start.elapsed().as_nanos().min(*best);
        }
    }
    for ((count, ..), best) in tables.iter().zip(best) {
        println!("{kind}, {count} routes: {} ns a look-up", best / u128::from(LOOKUPS));
    }
}

fn table(count: usize, place: &impl Fn(usize) -> (String, String)) -> RouteTable {
    let mut text =
        "upstreams: { a: 'http://127.0.0.1:1' }\nlisteners:\n  l:\n    bind: 127.0.0.1:1\n    routes:\n"
            .to_owned();
    for i in 0..count {
        let (host, path) = place(i);
        writeln!(text, "      - {{ match: {{ host: {host}, path: {path}/* }}, to: a }}").unwrap();
    }
    let config = attache_config::parse(&text, None, &|_| None).unwrap();
    RouteTable::new(&config.listeners[0])
}

fn request((host, path): (String, String)) -> RequestHead {
    http::Request::get(format!("http://{host}{path}/x")).body(()).unwrap().into_parts().0.into()
}
