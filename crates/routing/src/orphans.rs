//! Requests that a change of the config leaves without a route.
//!
//! Rule: for every old route, an example request is made that it matched (its host or `localhost`, its path, its
//! method). If no new route matches the request, attache would answer it with `no-route`. For example, a second
//! upstream does this to callers that never named the first one by its Host.

use attache_config::model::{Bind, HostName, HostPattern, Listener, Match, PathPattern, Segment};
use attache_http::Client;
use attache_wire::{RequestHead, header::HOST};
use http::Method;

use crate::{RequestFacts, RouteTable};

/// A longer list doesn't help the reader.
const MAX_SHOWN: usize = 10;

/// Requests that the old routes matched and the new ones don't, a line each.
pub fn orphaned(before: &Listener, now: &Listener) -> Vec<String> {
    if before.routes == now.routes {
        return Vec::new();
    }
    let (old, new) = (RouteTable::new(before), RouteTable::new(now));
    let port = before.bind.iter().find_map(|bind| match bind {
        Bind::Tcp(address) => Some(address.port()),
        Bind::Unix { .. } => None,
    });
    let own = port.map_or_else(|| "localhost".to_owned(), |port| format!("localhost:{port}"));
    let mut lines = Vec::new();
    for route in &before.routes {
        for host in hosts(&route.matcher, &own) {
            let Some(request) = sample(&route.matcher, &host) else { continue };
            let client = Client::default();
            let facts = RequestFacts::of(&request, &client);
            let Some(found) = old.find_http(&facts) else { continue };
            if new.find_http(&facts).is_some() {
                continue;
            }
            let line = format!(
                "listener `{}`: {} {} with the Host `{host}` was for route `{}`, and no route takes it now",
                now.name,
                request.method,
                request.uri.path(),
                found.route.name,
            );
            if !lines.contains(&line) {
                lines.push(line);
            }
            if lines.len() >= MAX_SHOWN {
                return lines;
            }
        }
    }
    lines
}

/// One host for each of a route's patterns.
fn hosts(matcher: &Match, own: &str) -> Vec<String> {
    let host = |pattern: &HostPattern| {
        let name = match &pattern.name {
            HostName::Any => return own.to_owned(),
            HostName::Exact(name) => name.to_string(),
            HostName::Suffix(suffix) => format!("any{suffix}"),
            HostName::Prefix(prefix) => format!("{prefix}any"),
        };
        pattern.port.map_or(name.clone(), |port| format!("{name}:{port}"))
    };
    if matcher.hosts.is_empty() { vec![own.to_owned()] } else { matcher.hosts.iter().map(host).collect() }
}

fn sample(matcher: &Match, host: &str) -> Option<RequestHead> {
    let path = match &matcher.path {
        None => "/".to_owned(),
        Some(PathPattern::Exact(path) | PathPattern::Prefix(path)) => path.to_string(),
        Some(PathPattern::Template(segments)) => segments
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => format!("/{text}"),
                Segment::Capture(_) | Segment::Rest(_) => "/any".to_owned(),
            })
            .collect(),
        // No example is known for a regular expression.
        Some(PathPattern::Regex(_)) => return None,
    };
    let method = matcher.methods.first().unwrap_or(&Method::GET);
    let uri = format!("http://{host}{path}").parse().ok()?;
    let mut request = RequestHead { method: method.clone(), uri, ..RequestHead::default() };
    request.headers.try_insert(HOST, host.as_bytes()).ok()?;
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(text: &str) -> Listener {
        attache_config::parse(text, None, &|_| None).unwrap().listeners.remove(0)
    }

    #[test]
    fn a_second_upstream_orphans_callers_that_never_named_the_first() {
        let one = listener("upstreams: { orders: 'http://orders.test' }");
        let two = listener("upstreams: { orders: 'http://orders.test', users: 'http://users.test' }");
        insta::assert_snapshot!(orphaned(&one, &two).join("\n"), @"listener `outbound`: GET / with the Host `localhost:15001` was for route `outbound/0`, and no route takes it now");
        assert!(orphaned(&two, &one).is_empty());
        assert!(orphaned(&one, &one).is_empty());
        let rest = listener("upstreams: { orders: 'http://orders.test', any: authority }");
        assert!(orphaned(&one, &rest).is_empty());
    }

    #[test]
    fn removed_hosts_paths_and_methods_are_reported() {
        let routes = |routes: &str| {
            listener(&format!(
                "listeners: {{ o: {{ bind: ':1', routes: [{routes}] }} }}\nupstreams: {{ a: 'http://a.test' }}"
            ))
        };
        let before = routes(
            "{ match: { host: ['*.shop', 'b:81'], path: '/v1/{id}', methods: [POST] }, to: a }, \
             { match: { path: '~^/x' }, to: a }, { match: { host: c }, to: a }",
        );
        let now = routes(
            "{ match: { host: '*.shop', path: '/v1/*' }, to: a }, { match: { host: c, path: /d }, to: a }",
        );
        insta::assert_snapshot!(orphaned(&before, &now).join("\n"), @r"
        listener `o`: POST /v1/any with the Host `b:81` was for route `o/0`, and no route takes it now
        listener `o`: GET / with the Host `c` was for route `o/2`, and no route takes it now
        ");
    }
}
