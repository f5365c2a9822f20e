//! Rules allow no request that some upstream could read as a forbidden one: the rules are checked again for the request
//! as the most lenient reader would read it.

use std::cell::OnceCell;

use attache_authorization::{AccessPolicy, Facts};
use attache_config::model::PathPolicy;
use attache_http::{Client, check_request, normalize_uri};
use attache_wire::{HeadLimits, RequestHead, request::TargetStrictness, server::RequestReader};
use bytes::BytesMut;

const LIMITS: HeadLimits = HeadLimits { line: 8000, size: 16000, count: 64 };
const RULES: [&str; 5] = [
    "deny: [ { path: /admin/* } ]",
    "allow: [ { path: /orders/* } ]",
    "allow: [ { headers: { x-role: admin } } ]",
    "allow: [ { methods: GET } ]",
    "deny: [ { host: admin.test } ]",
];

thread_local! {
    static POLICIES: OnceCell<Vec<AccessPolicy>> = const { OnceCell::new() };
}

fn policy(rules: &str) -> AccessPolicy {
    let text = format!(
        "listeners: {{ in: {{ bind: ':1', to: a, authorization: {{ {rules} }} }} }}\nupstreams: {{ a: 'http://a' }}"
    );
    let config = attache_config::parse(&text, None, &|_| None).unwrap_or_else(|error| panic!("{error}"));
    AccessPolicy::new(config.listeners[0].authorization.as_deref().unwrap())
}

/// The request, if the listener accepts it.
fn request(data: &[u8]) -> Option<RequestHead> {
    let (mut reader, mut buf) = (RequestReader::new(TargetStrictness::Lenient), BytesMut::from(data));
    let (_, head) = reader.head(&mut buf, &LIMITS).ok()??;
    let mut head = std::rc::Rc::unwrap_or_clone(head);
    check_request(&mut head, false, true).ok()?;
    normalize_uri(&mut head.uri, PathPolicy::default()).ok()?;
    Some(head)
}

/// Every way in which a path can be read: each step is done or not done.
fn readings(path: &str) -> Vec<String> {
    let mut found = vec![path.as_bytes().to_vec()];
    for _ in 0..3 {
        let more: Vec<_> =
            found.iter().map(|path| decoded(path)).filter(|path| !found.contains(path)).collect();
        found.extend(more);
    }
    let mut all = Vec::new();
    for bytes in found {
        let text = String::from_utf8_lossy(&bytes).replace('\\', "/").to_ascii_lowercase();
        for (bare, merged) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut segments: Vec<&str> = Vec::new();
            for segment in text.split('/').skip(1) {
                let segment = if bare { segment.split(';').next().unwrap_or_default() } else { segment };
                match segment {
                    "." => {}
                    "" if merged => {}
                    ".." => drop(segments.pop()),
                    segment => segments.push(segment),
                }
            }
            segments.retain(|segment| !segment.is_empty());
            all.push(segments.join("/"));
        }
    }
    all
}

fn decoded(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        let digits = path.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| byte == b'%') {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let Some(request) = request(data) else { return };
    let client = Client::default();
    let allowed = |index: usize| {
        POLICIES.with(|policies| {
            let policies = policies.get_or_init(|| RULES.iter().map(|rules| policy(rules)).collect());
            policies[index].decide(&Facts::of_request(&request, &client)).is_allowed()
        })
    };
    let path = request.uri.path();
    let below = |reading: &str, folder: &str| {
        reading.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    // The paths in a tunnel are not visible, so a rule that denies by a path denies the tunnel.
    if allowed(0) {
        let readings = readings(path);
        assert!(!readings.iter().any(|reading| below(reading, "admin")), "{path}: {readings:?}");
    }
    if allowed(1) {
        let readings = readings(path);
        assert!(readings.iter().all(|reading| below(reading, "orders")), "{path}: {readings:?}");
    }
    let same = |name: &str, ours: &str| name.replace('_', "-").eq_ignore_ascii_case(ours);
    let lines = |ours: &'static str| {
        request
            .headers
            .iter()
            .filter(move |(name, _)| same(&String::from_utf8_lossy(name.as_bytes()), ours))
            .map(|(_, value)| value)
    };
    if allowed(2) {
        assert!(lines("x-role").count() > 0 && lines("x-role").all(|value| value == "admin"));
    }
    if allowed(3) {
        assert_eq!(request.method, http::Method::GET);
        for ours in ["x-http-method", "x-http-method-override", "x-method-override"] {
            assert!(lines(ours).all(|value| value == "GET"), "{ours}");
        }
    }
    if allowed(4)
        && let Some(host) = request.uri.host()
    {
        assert!(!host.trim_end_matches('.').eq_ignore_ascii_case("admin.test"), "{host}");
    }
}
