//! What a route asks of a request beside host and path.

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
pub(crate) struct Conditions {
    methods: Vec<Method>,
    headers: Vec<(HeaderName, Value)>,
    query: Vec<(Name, Value)>,
    reading: QueryReading,
    identities: Vec<SanPattern>,
}

#[derive(Debug)]
struct Value {
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

impl Conditions {
    pub(crate) fn new(matcher: &Match, reading: QueryReading) -> Self {
        let named = |value: &ValueMatch| {
            // The parser lets no other name in.
            let name = HeaderName::try_from(&*value.name).ok()?;
            Some((name, Value::new(value)))
        };
        Self {
            methods: matcher.methods.clone(),
            headers: matcher.headers.iter().filter_map(named).collect(),
            query: matcher.query.iter().map(|value| (value.name.clone(), Value::new(value))).collect(),
            reading,
            identities: matcher.identities.clone(),
        }
    }

    /// Every condition holds.
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

    /// Methods have case (RFC 9110 section 9.1), but not to every upstream.
    fn method_truth(&self, request: &RequestFacts<'_>, other_method: bool) -> Truth {
        let asked = request.method.as_str();
        let spelled =
            |method: &Method| method.as_str() != asked && method.as_str().eq_ignore_ascii_case(asked);
        if !self.methods.is_empty() && (other_method || self.methods.iter().any(spelled)) {
            return Truth::Unsure;
        }
        self.method_holds(request).into()
    }

    /// Which parts of a request these conditions ask for.
    pub(crate) fn asks_methods(&self) -> bool {
        !self.methods.is_empty()
    }

    pub(crate) fn asks_query(&self) -> bool {
        !self.query.is_empty()
    }

    pub(crate) fn header_names(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers.iter().map(|(name, _)| name)
    }

    /// The client has proven to be one of those who are asked for.
    pub(crate) fn identity_holds(&self, client: &Client) -> bool {
        self.identities.is_empty() || self.identities.iter().any(|pattern| pattern.matches(client.names()))
    }

    /// Why a client is not asked for.
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

    /// Another value may be the one that counts, `;` may separate parameters as `&` does, and names may have no case, or an index (`name[]`).
    fn query_truth(&self, name: &Name, value: &Value, request: &RequestFacts<'_>) -> Truth {
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

    /// A parameter that is there several times matches if one of its values does.
    fn query_holds(&self, name: &Name, value: &Value, request: &RequestFacts<'_>) -> bool {
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

/// A name or a value of a query, decoded or as it came.
fn as_read(text: &str, decode: bool) -> Cow<'_, [u8]> {
    if decode { form_decoded(text.as_bytes()) } else { Cow::Borrowed(text.as_bytes()) }
}

impl Value {
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
            // A byte that is no text is one character, so that it hides nothing that stands beside it. It is copied in that case alone.
            Pattern::Regex(regex) => regex.is_match(&String::from_utf8_lossy(value)),
        }
    }

    /// Why it failed.
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

/// A header that is there several times matches if one of its lines does.
fn header_holds(name: &HeaderName, value: &Value, request: &RequestFacts<'_>) -> bool {
    request.headers.get_all(name).any(|line| value.is_met(line.as_bytes())) != value.not
}

/// Another line may be the one that counts, or an item of a list.
fn header_truth(name: &HeaderName, value: &Value, request: &RequestFacts<'_>) -> Truth {
    let mut met = None;
    for line in request.headers.get_all(name).map(attache_wire::Value::as_bytes) {
        agree(&mut met, value.is_met(line));
        if line.contains(&b',') {
            line.split(|&b| b == b',').for_each(|item| agree(&mut met, value.is_met(item.trim_ascii())));
        }
    }
    unless(value.not, met.unwrap_or(Truth::No))
}

/// Two readings that differ leave it in doubt.
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

/// The TLS server name is there and matches.
pub(crate) fn sni_holds(pattern: &HostPattern, client: &Client) -> bool {
    client
        .sni
        .as_deref()
        .and_then(CanonicalHost::new)
        .is_some_and(|sni| host_matches(pattern, Some(&sni), target_port(client)))
}

/// The port that the connection was for.
pub(crate) fn target_port(client: &Client) -> u16 {
    client.destination().map_or(0, |address| address.port())
}

/// The connection was intercepted on its way to this range and port.
pub(crate) fn destination_holds(range: &AddressMatch, client: &Client) -> bool {
    client.original_destination().is_some_and(|destination| {
        range.port.is_none_or(|port| port == destination.port()) && in_network(range, destination.ip())
    })
}
