//! Which of two routes is the more specific.
//!
//! The one total order of routes; docs/routing.md explains it with examples. Compared from left to right, the smaller
//! wins: host, path, method, number of headers, number of query parameters, client's identity, TLS server name,
//! original destination, place in the file. A route with alternatives (several hosts, names or destinations) is ranked
//! once for each of them.

use std::cmp::Reverse;

use attache_config::model::{AddressMatch, HostName, HostPattern, PathPattern, Route, Segment};

use crate::path;

/// One alternative of one route.
#[derive(Clone, Debug)]
pub(crate) struct Alternative<'r> {
    pub(crate) rank: RouteRank,
    /// Index of the route.
    pub(crate) route: usize,
    /// `None` matches any host, and requests without a host.
    pub(crate) host: Option<&'r HostPattern>,
    pub(crate) sni: Option<&'r HostPattern>,
    pub(crate) destination: Option<&'r AddressMatch>,
}

/// How specific an alternative is; the smallest is the most.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RouteRank {
    pub(crate) host: HostRank,
    pub(crate) path: PathRank,
    pub(crate) any_method: bool,
    pub(crate) headers: Reverse<usize>,
    pub(crate) query: Reverse<usize>,
    pub(crate) any_identity: bool,
    pub(crate) sni: HostRank,
    pub(crate) destination: DestinationRank,
    pub(crate) file: usize,
}

/// Kind of pattern, then its length, then whether it has a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostRank(HostKind, Reverse<usize>, bool);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum HostKind {
    Exact,
    Suffix,
    Prefix,
    Any,
    Absent,
}

impl HostRank {
    fn of(pattern: Option<&HostPattern>) -> Self {
        let Some(pattern) = pattern else { return Self(HostKind::Absent, Reverse(0), true) };
        let (kind, length) = match &pattern.name {
            // Two exact names never match the same host, so the length doesn't count.
            HostName::Exact(_) => (HostKind::Exact, 0),
            HostName::Suffix(name) => (HostKind::Suffix, name.len()),
            HostName::Prefix(name) => (HostKind::Prefix, name.len()),
            HostName::Any => (HostKind::Any, 0),
        };
        Self(kind, Reverse(length), pattern.port.is_none())
    }

    /// For hosts: `*` without a port ranks like no pattern.
    fn of_host(pattern: Option<&HostPattern>) -> Self {
        Self::of(pattern.filter(|pattern| pattern.name != HostName::Any || pattern.port.is_some()))
    }

    pub(crate) const fn describe(self) -> &'static str {
        match self.0 {
            HostKind::Exact => "an exact host",
            HostKind::Suffix => "a `*.suffix` host",
            HostKind::Prefix => "a `prefix.*` host",
            HostKind::Any => "any host with a port",
            HostKind::Absent => "any host",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PathRank {
    Exact,
    /// Segment by segment.
    Template(Vec<SegmentRank>),
    /// Number of segments.
    Prefix(Reverse<usize>),
    /// Place in the file.
    Regex(usize),
    Absent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SegmentRank {
    Literal,
    Capture,
    Rest,
}

impl PathRank {
    fn of(pattern: Option<&PathPattern>, file: usize) -> Self {
        match pattern {
            None => Self::Absent,
            Some(PathPattern::Exact(_)) => Self::Exact,
            Some(PathPattern::Prefix(prefix)) => Self::Prefix(Reverse(path::prefix_depth(prefix))),
            Some(PathPattern::Regex(_)) => Self::Regex(file),
            Some(PathPattern::Template(segments)) => Self::Template(
                segments
                    .iter()
                    .map(|segment| match segment {
                        Segment::Literal(_) => SegmentRank::Literal,
                        Segment::Capture(_) => SegmentRank::Capture,
                        Segment::Rest(_) => SegmentRank::Rest,
                    })
                    .collect(),
            ),
        }
    }

    pub(crate) const fn describe(&self) -> &'static str {
        match self {
            Self::Exact => "an exact path",
            Self::Template(_) => "a path template",
            Self::Prefix(_) => "a path prefix",
            Self::Regex(_) => "a regular expression",
            Self::Absent => "any path",
        }
    }
}

/// Prefix length, then whether it has a port; a route without a destination is last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DestinationRank(bool, Reverse<u8>, bool);

impl DestinationRank {
    fn of(range: Option<&AddressMatch>) -> Self {
        match range {
            Some(range) => Self(false, Reverse(range.prefix), range.port.is_none()),
            None => Self(true, Reverse(0), true),
        }
    }
}

impl RouteRank {
    /// Why this one is more specific than the other, in words.
    pub(crate) fn beats(&self, other: &Self) -> String {
        if self.host != other.host {
            return match (self.host.describe(), other.host.describe()) {
                (winner, loser) if winner == loser => {
                    format!("the longer of two, or one with a port: {winner}")
                }
                (winner, loser) => format!("{winner} comes before {loser}"),
            };
        }
        if self.path != other.path {
            return match (&self.path, &other.path) {
                (PathRank::Template(_), PathRank::Template(_)) => {
                    "its template has the earlier literal".into()
                }
                (PathRank::Prefix(_), PathRank::Prefix(_)) => "its path prefix is longer".into(),
                (PathRank::Regex(_), PathRank::Regex(_)) => {
                    "its regular expression comes first in the file".into()
                }
                (winner, loser) => format!("{} comes before {}", winner.describe(), loser.describe()),
            };
        }
        if self.any_method != other.any_method {
            "it names the method"
        } else if self.headers != other.headers {
            "it asks for more headers"
        } else if self.query != other.query {
            "it asks for more query parameters"
        } else if self.any_identity != other.any_identity {
            "it names the client's identity"
        } else if self.sni != other.sni {
            "its TLS server name is more specific"
        } else if self.destination != other.destination {
            "its destination is more specific"
        } else {
            "it comes first in the file"
        }
        .into()
    }
}

/// Every alternative of every route, the most specific first.
pub(crate) fn alternatives(routes: &[Route]) -> Vec<Alternative<'_>> {
    fn each<T>(list: &[T]) -> Vec<Option<&T>> {
        if list.is_empty() { vec![None] } else { list.iter().map(Some).collect() }
    }
    let mut all = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let matcher = &route.matcher;
        for &host in &each(&matcher.hosts) {
            for &sni in &each(&matcher.sni) {
                for &destination in &each(&matcher.destination) {
                    let rank = RouteRank {
                        host: HostRank::of_host(host),
                        path: PathRank::of(matcher.path.as_ref(), index),
                        any_method: matcher.methods.is_empty(),
                        headers: Reverse(matcher.headers.len()),
                        query: Reverse(matcher.query.len()),
                        any_identity: matcher.identities.is_empty(),
                        sni: HostRank::of(sni),
                        destination: DestinationRank::of(destination),
                        file: index,
                    };
                    all.push(Alternative { rank, route: index, host, sni, destination });
                }
            }
        }
    }
    all.sort_by(|a, b| a.rank.cmp(&b.rank));
    all
}
