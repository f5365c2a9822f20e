//! The fast table against a slow reference that shares no code with it.
#![expect(clippy::cast_possible_wrap, reason = "small numbers of a test")]

use std::fmt::Write;

use attache_config::model::{
    AddressMatch, HostName, HostPattern, PathPattern, Route, Segment, ValueMatch, ValuePattern,
};
use attache_http::Client;
use proptest::{prelude::*, sample::select};

use crate::{
    RequestFacts, RouteTable, RouteVerdict, explain,
    testing::{client, listener, matching, range, request, route, value},
};

/// A score for each part, compared from left to right; the smallest wins.
type Score = (Vec<i64>, Vec<i64>, [i64; 3], Vec<i64>, Vec<i64>, usize);

fn reference(routes: &[Route], host: &str, port: u16, path: &str, facts: &RequestFacts<'_>) -> Option<usize> {
    let mut best: Option<(Score, usize)> = None;
    for (index, route) in routes.iter().enumerate() {
        let m = &route.matcher;
        let Some(host_score) = best_host(&m.hosts, host, port) else { continue };
        let Some(path_score) = m.path.as_ref().map_or(Some(vec![9]), |p| reference_path(p, path, index))
        else {
            continue;
        };
        if !m.methods.is_empty() && !m.methods.contains(facts.method) {
            continue;
        }
        let header = |name: &str| facts.headers.get(name).map(|v| v.to_str().unwrap().to_owned());
        let query = |name: &str| {
            facts
                .query?
                .split('&')
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
        };
        let holds = |v: &ValueMatch, actual: Option<String>| {
            let met = match &v.value {
                ValuePattern::Present => actual.is_some(),
                ValuePattern::Exact(text) => actual.as_deref() == Some(text),
                _ => unreachable!(),
            };
            met != v.not
        };
        if !m.headers.iter().all(|v| holds(v, header(&v.name)))
            || !m.query.iter().all(|v| holds(v, query(&v.name)))
        {
            continue;
        }
        let sni = facts.client.sni.as_deref();
        let sni_score = match (m.sni.is_empty(), sni) {
            (true, _) => Some(vec![9]),
            (false, None) => None,
            (false, Some(name)) => {
                best_host(&m.sni, name, facts.client.original_destination().map_or(0, |d| d.port()))
            }
        };
        let Some(sni_score) = sni_score else { continue };
        let destination_score = if m.destination.is_empty() {
            Some(vec![9])
        } else {
            // The generator has only whole addresses.
            let hit = |d: &AddressMatch| {
                let to = facts.client.original_destination()?;
                (to.ip() == d.network && d.port.is_none_or(|p| p == to.port()))
                    .then(|| vec![0, i64::from(d.port.is_none())])
            };
            m.destination.iter().filter_map(hit).min()
        };
        let Some(destination_score) = destination_score else { continue };
        let counts = [i64::from(m.methods.is_empty()), -(m.headers.len() as i64), -(m.query.len() as i64)];
        let score = (host_score, path_score, counts, sni_score, destination_score, index);
        if best.as_ref().is_none_or(|(known, _)| score < *known) {
            best = Some((score, index));
        }
    }
    best.map(|(_, index)| index)
}

fn best_host(patterns: &[HostPattern], host: &str, port: u16) -> Option<Vec<i64>> {
    if patterns.is_empty() {
        return Some(vec![3, 0, 1]);
    }
    let one = |pattern: &HostPattern| {
        if pattern.port.is_some_and(|p| p != port) {
            return None;
        }
        let (class, length) = match &pattern.name {
            HostName::Exact(name) if **name == *host => (0, 0),
            HostName::Suffix(name) if host.ends_with(&**name) && host.len() > name.len() => (1, name.len()),
            HostName::Prefix(name) if host.starts_with(&**name) && host.len() > name.len() => (2, name.len()),
            HostName::Any => (3, 0),
            _ => return None,
        };
        Some(vec![class, -(length as i64), i64::from(pattern.port.is_none())])
    };
    patterns.iter().filter_map(one).min()
}

fn reference_path(pattern: &PathPattern, path: &str, index: usize) -> Option<Vec<i64>> {
    match pattern {
        PathPattern::Exact(exact) => (**exact == *path).then(|| vec![0]),
        PathPattern::Template(segments) => {
            // The pattern as a regular expression, which shares no code with the trie.
            let mut text = String::from("^");
            let mut score = vec![1];
            for segment in segments {
                match segment {
                    Segment::Literal(literal) => {
                        write!(text, "/{}", regex::escape(literal)).unwrap();
                        score.push(0);
                    }
                    Segment::Capture(_) => {
                        text += "/[^/]+";
                        score.push(1);
                    }
                    Segment::Rest(_) => {
                        text += "/.*";
                        score.push(2);
                    }
                }
            }
            regex::Regex::new(&(text + "$")).unwrap().is_match(path).then_some(score)
        }
        PathPattern::Prefix(prefix) => (path == &**prefix || path.starts_with(&format!("{prefix}/")))
            .then(|| vec![2, -(prefix.len() as i64)]),
        PathPattern::Regex(regex) => regex.is_match(path).then(|| vec![3, index as i64]),
    }
}

fn subset(of: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<&'static str>> {
    proptest::sample::subsequence(of, 0..=most)
}

const HOSTS: &[&str] =
    &["a.b", "a.b:81", "b", "x.a.b", "*.b", "*.b:81", "*.a.b", "a.*", "a.*:81", "x.a.*", "*", "*:81", "A.c"];
const PATHS: &[&str] = &[
    "-",
    "-",
    "/",
    "/a",
    "/a/b",
    "/a/",
    "/*",
    "/a/*",
    "/a/b/*",
    "/b/*",
    "/{x}",
    "/a/{x}",
    "/{x}/b",
    "/{x}/{y}",
    "/{x}/{y...}",
    "/a/{y...}",
    "/{y...}",
    "/a/{x}/",
    "~^/a.*$",
    "~^/.*b$",
];

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let one = (
        // Half of the routes have the same host, so that the later rules decide as well.
        prop_oneof![subset(&["a.b"], 1), subset(HOSTS, 2)],
        prop_oneof![select(&["-", "/a/*"][..]), select(PATHS)],
        subset(&["GET", "POST"], 1),
        subset(&["x=1", "y", "!z"], 2),
        subset(&["q=1", "!r"], 1),
        subset(&["*", "a.b", "*.b"], 1),
        subset(&["10.0.0.1/32", "10.0.0.1/32:80", "10.0.0.2/32"], 1),
    )
        .prop_map(|(hosts, path, methods, headers, query, sni, destinations)| {
            let mut matcher = matching(&hosts, path);
            // In the form in which the parser stores them.
            for host in &mut matcher.hosts {
                if let HostName::Exact(name) = &host.name {
                    host.name = HostName::Exact(name.to_ascii_lowercase().into());
                }
            }
            matcher.methods = methods.into_iter().map(|m| m.parse().unwrap()).collect();
            matcher.headers = headers.into_iter().map(value).collect();
            matcher.query = query.into_iter().map(value).collect();
            matcher.sni = sni.into_iter().map(crate::testing::host).collect();
            matcher.destination = destinations.into_iter().map(range).collect();
            route("", matcher)
        });
    proptest::collection::vec(one, 0..12).prop_map(|mut routes| {
        for (index, route) in routes.iter_mut().enumerate() {
            route.name = index.to_string().into();
        }
        routes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_table_finds_what_sorting_and_scanning_finds(
        routes in routes(),
        host in select(&["a.b", "b", "x.a.b", "y.x.a.b", "a.c", "x.a.c", "c"][..]),
        port in select(&["", ":80", ":81"][..]),
        segments in proptest::collection::vec(select(&["a", "b", ""][..]), 1..5),
        query in select(&["", "?q=1", "?r=2&q=1"][..]),
        method in select(&["GET", "POST"][..]),
        headers in subset(&["x", "y", "z"], 3),
        sni in select(&["", "a.b", "c.b", "c"][..]),
        destination in select(&["", "10.0.0.1:80", "10.0.0.2:81"][..]),
    ) {
        let path = format!("/{}", segments.join("/"));
        let headers: Vec<_> = headers.into_iter().map(|name| (name, "1")).collect();
        let parts = request(method, &format!("{host}{port}{path}{query}"), &headers);
        let client = client(destination, sni);
        let facts = RequestFacts::of(&parts, &client);
        let expected = reference(&routes, host, facts.port, &path, &facts);

        let table = RouteTable::new(&listener(routes));
        let found = table.find_http(&facts).map(|matched| matched.route.name.parse::<usize>().unwrap());
        prop_assert_eq!(found, expected);

        let explained = explain(&table, &parts, &client, &[]);
        let told = explained.candidates.iter().find(|candidate| candidate.verdict == RouteVerdict::Wins);
        prop_assert_eq!(told.map(|winner| winner.route.parse::<usize>().unwrap()), expected);
    }

    #[test]
    fn no_path_and_no_host_make_it_panic(path in "/\\PC{0,40}", host in "[a.:\\[\\]*]{0,12}") {
        let routes = vec![route("a", matching(&["a.*", "*.a"], "/a/{b}/{c...}")), route("b", matching(&[], "/a/*"))];
        let table = RouteTable::new(&listener(routes));
        let client = Client::default();
        if let Ok(uri) = path.parse::<http::Uri>() {
            let mut parts = request("GET", "a/", &[]);
            let mut uri = uri.into_parts();
            uri.scheme = Some(http::uri::Scheme::HTTP);
            let Ok(authority) = host.parse() else { return Ok(()) };
            uri.authority = Some(authority);
            parts.uri = http::Uri::from_parts(uri).unwrap();
            let _ = table.find_http(&RequestFacts::of(&parts, &client));
        }
    }
}
