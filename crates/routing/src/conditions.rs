//! A route's conditions other than host and path.

use std::borrow::Cow;

use attache_authorization::Truth;
use attache_config::model::{
    AddressMatch, HostPattern, Match, Name, QueryReading, Repeated, SanPattern, ValueMatch, ValuePattern,
};
pub(crate) use attache_http::pattern::network;
use attache_http::{
    CanonicalHost, Client, form_decoded,
    pattern::{host_matches, in_network},
};
use http::{HeaderName, Method};
use regex::Regex;

use crate::RequestFacts;

/// The conditions of one route, ready to be tested.
#[derive(Debug)]
pub(crate) struct RouteConditions {
    methods: Vec<Method>,
    headers: Vec<(HeaderName, ValueCondition)>,
    query: Vec<(Name, ValueCondition)>,
    reading: QueryReading,
    identities: Vec<SanPattern>,
}

#[derive(Debug)]
struct ValueCondition {
    pattern: Pattern,
    not: bool,
}

#[derive(Debug)]
enum Pattern {
    Present,
    Exact(Name),
    Prefix(Name),
    Suffix(Name),
    Regex(Regex),
}

impl RouteConditions {
    pub(crate) fn new(matcher: &Match, reading: QueryReading) -> Self {
        let named = |value: &ValueMatch| {
            // The parser has refused every invalid name.
            let name = HeaderName::try_from(&*value.name).ok()?;
            Some((name, ValueCondition::new(value)))
        };
        Self {
            methods: matcher.methods.clone(),
            headers: matcher.headers.iter().filter_map(named).collect(),
            query: matcher
                .query
                .iter()
                .map(|value| (value.name.clone(), ValueCondition::new(value)))
                .collect(),
            reading,
            identities: matcher.identities.clone(),
        }
    }

    /// True if every condition holds.
    pub(crate) fn hold(&self, request: &RequestFacts<'_>) -> bool {
        self.method_holds(request)
            && self.headers.iter().all(|(name, value)| header_holds(name, value, request))
            && self.query.iter().all(|(name, value)| self.query_holds(name, value, request))
            && self.identity_holds(request.client)
    }

    /// Whether every condition holds for all programs that may read the request in another way: *unsure* if two of them may differ.
    /// `other_method`: a header names another method than the request's.
    pub(crate) fn truth(&self, request: &RequestFacts<'_>, other_method: bool) -> Truth {
        let headers = self.headers.iter().map(|(name, value)| header_truth(name, value, request));
        let query = self.query.iter().map(|(name, value)| self.query_truth(name, value, request));
        let all = headers.chain(query).chain([self.identity_holds(request.client).into()]);
        all.fold(self.method_truth(request, other_method), Truth::min)
    }

    /// Methods are case-sensitive (RFC 9110 section 9.1), but not for every upstream.
    fn method_truth(&self, request: &RequestFacts<'_>, other_method: bool) -> Truth {
        let asked = request.method.as_str();
        let spelled =
            |method: &Method| method.as_str() != asked && method.as_str().eq_ignore_ascii_case(asked);
        if !self.methods.is_empty() && (other_method || self.methods.iter().any(spelled)) {
            return Truth::Unsure;
        }
        self.method_holds(request).into()
    }

    /// Whether these conditions name methods.
    pub(crate) fn asks_methods(&self) -> bool {
        !self.methods.is_empty()
    }

    pub(crate) fn asks_query(&self) -> bool {
        !self.query.is_empty()
    }

    pub(crate) fn header_names(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers.iter().map(|(name, _)| name)
    }

    /// True if the client has one of the identities that the route asks for.
    pub(crate) fn identity_holds(&self, client: &Client) -> bool {
        self.identities.is_empty() || self.identities.iter().any(|pattern| pattern.matches(client.names()))
    }

    /// Why the client has none of these identities.
    pub(crate) fn identity_failure(&self, client: &Client) -> Option<String> {
        if self.identity_holds(client) {
            return None;
        }
        let wanted: Vec<_> = self.identities.iter().map(|pattern| format!("`{pattern}`")).collect();
        Some(format!("the client's identity is not {}", wanted.join(" or ")))
    }

    fn method_holds(&self, request: &RequestFacts<'_>) -> bool {
        self.methods.is_empty() || self.methods.contains(request.method)
    }

    /// The first condition that doesn't hold, in words.
    pub(crate) fn failure(&self, request: &RequestFacts<'_>) -> Option<String> {
        if !self.method_holds(request) {
            let methods: Vec<_> = self.methods.iter().map(Method::as_str).collect();
            return Some(format!("the method is not {}", methods.join(" or ")));
        }
        for (name, value) in &self.headers {
            if !header_holds(name, value, request) {
                return Some(format!("the header {name} {}", value.unmet()));
            }
        }
        for (name, value) in &self.query {
            if !self.query_holds(name, value, request) {
                return Some(format!("the query parameter {name} {}", value.unmet()));
            }
        }
        self.identity_failure(request.client)
    }

    /// For another program, another value may count, `;` may separate parameters as `&` does, and names may be
    /// case-insensitive or have an index (`name[]`).
    fn query_truth(&self, name: &Name, value: &ValueCondition, request: &RequestFacts<'_>) -> Truth {
        let strictly = self.query_holds(name, value, request) != value.not;
        let mut met = None;
        let mut see = |pair: &str| {
            let (key, text) = pair.split_once('=').unwrap_or((pair, ""));
            let key = form_decoded(key.as_bytes());
            let bare = key.split(|&b| b == b'[').next().unwrap_or_default();
            if bare.trim_ascii().eq_ignore_ascii_case(name.as_bytes())
                || key.eq_ignore_ascii_case(name.as_bytes())
            {
                agree(&mut met, value.is_met(&form_decoded(text.as_bytes())));
            }
        };
        for pair in request.query.unwrap_or_default().split('&') {
            see(pair);
            if pair.contains(';') {
                pair.split(';').for_each(&mut see);
            }
        }
        if let Some(met) = &mut met
            && *met != Truth::from(strictly)
        {
            *met = Truth::Unsure;
        }
        unless(value.not, met.unwrap_or(Truth::No))
    }

    /// A parameter with several values matches if one of them does.
    fn query_holds(&self, name: &Name, value: &ValueCondition, request: &RequestFacts<'_>) -> bool {
        let QueryReading { decode, ignore_case, repeated, .. } = self.reading;
        let mut values = self.reading.pairs(request.query.unwrap_or_default()).filter_map(|(key, text)| {
            let key = as_read(key, decode);
            let named = *key == *name.as_bytes() || ignore_case && key.eq_ignore_ascii_case(name.as_bytes());
            named.then(|| value.is_met(&as_read(text, decode)))
        });
        let met = match repeated {
            Repeated::Any => values.any(|met| met),
            Repeated::First => values.next().unwrap_or(false),
        };
        met != value.not
    }
}

/// A name or a value of a query, decoded or unchanged.
fn as_read(text: &str, decode: bool) -> Cow<'_, [u8]> {
    if decode { form_decoded(text.as_bytes()) } else { Cow::Borrowed(text.as_bytes()) }
}

impl ValueCondition {
    fn new(value: &ValueMatch) -> Self {
        let pattern = match &value.value {
            ValuePattern::Present => Pattern::Present,
            ValuePattern::Exact(text) => Pattern::Exact(text.clone()),
            ValuePattern::Prefix(text) => Pattern::Prefix(text.clone()),
            ValuePattern::Suffix(text) => Pattern::Suffix(text.clone()),
            ValuePattern::Regex(regex) => Pattern::Regex((**regex).clone()),
        };
        Self { pattern, not: value.not }
    }

    fn is_met(&self, value: &[u8]) -> bool {
        match &self.pattern {
            Pattern::Present => true,
            Pattern::Exact(text) => value == text.as_bytes(),
            Pattern::Prefix(text) => value.starts_with(text.as_bytes()),
            Pattern::Suffix(text) => value.ends_with(text.as_bytes()),
            // A byte that is not UTF-8 becomes one character, so that it can't hide the characters beside it. Only then
            // the value is copied.
            Pattern::Regex(regex) => regex.is_match(&String::from_utf8_lossy(value)),
        }
    }

    /// Why the value doesn't match.
    fn unmet(&self) -> String {
        let what = match &self.pattern {
            Pattern::Present => return if self.not { "is there" } else { "is not there" }.into(),
            Pattern::Exact(text) => format!("`{text}`"),
            Pattern::Prefix(text) => format!("`{text}*`"),
            Pattern::Suffix(text) => format!("`*{text}`"),
            Pattern::Regex(regex) => format!("`~{regex}`"),
        };
        format!("{} {what}", if self.not { "is" } else { "is not" })
    }
}

/// A header with several lines matches if one of them does.
fn header_holds(name: &HeaderName, value: &ValueCondition, request: &RequestFacts<'_>) -> bool {
    request.headers.get_all(name).any(|line| value.is_met(line.as_bytes())) != value.not
}

/// For another program, another line may count, or an item of a list.
fn header_truth(name: &HeaderName, value: &ValueCondition, request: &RequestFacts<'_>) -> Truth {
    let mut met = None;
    for line in request.headers.get_all(name).map(attache_wire::ValueRef::as_bytes) {
        agree(&mut met, value.is_met(line));
        if line.contains(&b',') {
            line.split(|&b| b == b',').for_each(|item| agree(&mut met, value.is_met(item.trim_ascii())));
        }
    }
    unless(value.not, met.unwrap_or(Truth::No))
}

/// If two readings differ, the result is in doubt.
fn agree(found: &mut Option<Truth>, met: bool) {
    let met = Truth::from(met);
    *found = Some(if found.is_none_or(|found| found == met) { met } else { Truth::Unsure });
}

fn unless(not: bool, met: Truth) -> Truth {
    match met {
        Truth::Yes if not => Truth::No,
        Truth::No if not => Truth::Yes,
        met => met,
    }
}

/// True if there is a TLS server name and it matches.
pub(crate) fn sni_holds(pattern: &HostPattern, client: &Client) -> bool {
    client
        .sni
        .as_deref()
        .and_then(CanonicalHost::new)
        .is_some_and(|sni| host_matches(pattern, Some(&sni), target_port(client)))
}

/// The destination port of the connection.
pub(crate) fn target_port(client: &Client) -> u16 {
    client.destination().map_or(0, |address| address.port())
}

/// True if the connection was intercepted, and its original destination is in this range and has this port.
pub(crate) fn destination_holds(range: &AddressMatch, client: &Client) -> bool {
    client.original_destination().is_some_and(|destination| {
        range.port.is_none_or(|port| port == destination.port()) && in_network(range, destination.ip())
    })
}
