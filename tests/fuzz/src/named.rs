//! A header chooses an upstream only if the request has it once, with exactly the name of one of the route's upstreams.
//! No other spelling of the header reaches an upstream that would trust it.

use std::cell::OnceCell;

use attache_http::{Client, check_request, remove_underscored, strip_request};
use attache_routing::{RequestFacts, RouteTable};
use attache_wire::{HeadLimits, request::TargetStrictness, server::RequestReader};
use bytes::BytesMut;

const LIMITS: HeadLimits = HeadLimits { line: 8000, size: 16000, count: 64 };

thread_local! {
    static TABLE: OnceCell<RouteTable> = const { OnceCell::new() };
}

fn table() -> RouteTable {
    let text = "listeners: { in: { bind: ':1', routes: [{ upstream_header: x-upstream, to: [orders, billing] }] } }\n\
                upstreams: { orders: 'http://a', billing: 'http://b' }";
    let config = attache_config::parse(text, None, &|_| None).unwrap_or_else(|error| panic!("{error}"));
    RouteTable::new(&config.listeners[0])
}

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let (mut reader, mut buf) = (RequestReader::new(TargetStrictness::Lenient), BytesMut::from(data));
    let Ok(Some((_, head))) = reader.head(&mut buf, &LIMITS) else { return };
    let mut head = std::rc::Rc::unwrap_or_clone(head);
    if check_request(&mut head, false, true).is_err() {
        return;
    }
    let client = Client::default();
    // Headers that end at this hop are removed before anything is chosen, as for every request.
    strip_request(&mut head.headers, None, false);
    remove_underscored(&mut head.headers, |name| name == "x-upstream");
    let lines: Vec<Vec<u8>> = head
        .headers
        .iter()
        .filter(|(name, _)| {
            String::from_utf8_lossy(name.as_bytes()).replace('_', "-").eq_ignore_ascii_case("x-upstream")
        })
        .map(|(_, value)| value.as_bytes().to_vec())
        .collect();
    TABLE.with(|found| {
        let facts = RequestFacts::of(&head, &client);
        let Some(matched) = found.get_or_init(table).find_http(&facts) else { return };
        let chosen = matched.route.choose_for(&head.headers, 0).ok().map(|(id, _)| id.0);
        let expected = match &lines[..] {
            [only] if only == b"orders" => Some(0),
            [only] if only == b"billing" => Some(1),
            _ => None,
        };
        assert_eq!(chosen, expected, "{}", data.escape_ascii());
    });
}
