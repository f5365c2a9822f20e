//! The conditions of a route.

use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
    marker::PhantomData,
    ops::Deref,
};

use super::prelude::*;

section! {
    "`match`"
    /// Conditions of a route. Every given key must match; of a list, one item must match.
    pub struct Match: Eq, Hash {
        /// `Host` or `:authority`: `orders.internal`, `*.internal`, `orders.*`, `*`. The port is ignored unless it is given.
        host in hosts: Vec<HostPattern> as List<HostText> = Vec::new(),
        /// Path without the query: `/v1/*` is a prefix on a segment boundary, `/users/{id}` and `/files/{rest...}` capture
        /// segments, `~regex` matches the whole path, anything else is exact. A `{`, `}` or `*` itself is percent-encoded.
        path(OneOrMany<Text<PathText>>): Option<PathPattern> as Optional<PathText> = None,
        /// Methods.
        methods: Vec<Method> as List<MethodText> = Vec::new(),
        /// The same as `methods`.
        method(OneOrMany<Text<MethodText>>),
        /// Headers, all of which must match: `v1` is exact, `*` is any value, `v1*` a prefix, `*v1` a suffix, `~regex`
        /// the whole value. A leading `!` inverts; then a leading `=` takes the rest literally (`=*` is one asterisk).
        #[schema(examples = [json!({"x-version": "v2", "x-debug": "!*"})])]
        headers: Vec<ValueMatch> as Values<HeaderText> = Vec::new(),
        /// Query parameters, all of which must match; the same patterns.
        #[schema(examples = [json!({"page": "~[0-9]+"})])]
        query: Vec<ValueMatch> as Values<Word> = Vec::new(),
        /// TLS server name, of TLS that is passed through or terminated.
        sni: Vec<HostPattern> as List<HostText> = Vec::new(),
        /// Verified identities of which the client must have one, on a listener whose `tls` has a `client_ca`; as in its
        /// `allow`.
        identity in identities: Vec<SanPattern> as List<SanText> = Vec::new(),
        /// Original destination of an intercepted connection: networks, addresses, ports.
        destination: Vec<AddressMatch> as Ranges = Vec::new(),
    }
    shows only_given
    rules {
        excludes [method] [methods]
            "both `{}` and `methods`" "they have the same meaning: keep one of them";
    }
}

impl Match {
    /// True if it has a condition about HTTP: a host, path, method, header or query.
    pub fn asks_http(&self) -> bool {
        !self.hosts.is_empty()
            || self.path.is_some()
            || !self.methods.is_empty()
            || !self.headers.is_empty()
            || !self.query.is_empty()
    }

    /// True if it names the method CONNECT: the route is for tunnels.
    pub fn names_connect(&self) -> bool {
        self.methods.contains(&Method::CONNECT)
    }

    /// True if it names no other method than CONNECT.
    pub fn only_connects(&self) -> bool {
        self.names_connect() && self.methods.len() == 1
    }
}

/// A host name to match. Names are kept in lower case, without the final dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPattern {
    /// The name.
    pub name: HostName,
    /// `None` ignores the request's port, `Some` must equal it (the scheme's default where the request has none).
    pub port: Option<u16>,
}

/// As the file writes it.
impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            HostName::Any => f.write_str("*")?,
            HostName::Exact(name) => f.write_str(name)?,
            HostName::Suffix(suffix) => write!(f, "*{suffix}")?,
            HostName::Prefix(prefix) => write!(f, "{prefix}*")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// The name part of a [`HostPattern`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostName {
    /// Every host.
    Any,
    /// Exactly this name.
    Exact(Name),
    /// `*.example.com`: one or more labels before this suffix, which is kept with its leading dot.
    Suffix(Name),
    /// `orders.*`: this prefix, kept with its final dot, and one or more labels.
    Prefix(Name),
}

/// A path to match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// Exactly this path.
    Exact(Name),
    /// `/v1/*`: `/v1`, and everything below it on a segment boundary. Kept without the final `/*`.
    Prefix(Name),
    /// `/users/{id}/orders`, `/files/{rest...}`: segments with captures that rewrites can use.
    Template(Vec<Segment>),
    /// `~^/v[0-9]+/`: a regular expression over the whole path (anchored by the parser), linear in time.
    Regex(WholeRegex),
}

/// As the file writes it.
impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(prefix) => write!(f, "{}/*", prefix.trim_end_matches('/')),
            Self::Regex(regex) => write!(f, "~{regex}"),
            Self::Template(segments) => segments.iter().try_for_each(|segment| match segment {
                Segment::Literal(text) => write!(f, "/{text}"),
                Segment::Capture(name) => write!(f, "/{{{name}}}"),
                Segment::Rest(name) => write!(f, "/{{{name}...}}"),
            }),
        }
    }
}

/// A regular expression over a whole text, anchored by the parser. Two are equal if they are written alike.
#[derive(Clone, Debug)]
pub struct WholeRegex(Box<regex::Regex>);

impl From<regex::Regex> for WholeRegex {
    fn from(regex: regex::Regex) -> Self {
        Self(Box::new(regex))
    }
}

impl Deref for WholeRegex {
    type Target = regex::Regex;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl fmt::Display for WholeRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for WholeRegex {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for WholeRegex {}

impl Hash for WholeRegex {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

/// One segment of a path template.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// These characters.
    Literal(Name),
    /// `{name}`: one segment that isn't empty.
    Capture(Name),
    /// `{name...}`: the rest of the path, only as the last segment.
    Rest(Name),
}

/// A header or query parameter to match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ValueMatch {
    /// Header name in lower case, or parameter name.
    pub name: Name,
    /// What its value must be.
    pub value: ValuePattern,
    /// The match is inverted.
    pub not: bool,
}

/// Headers or parameters that must match, by their names. The value of a header that is a credential by its name is not
/// shown.
pub(crate) struct Values<K>(PhantomData<K>);

impl<K: Unit> Show<Vec<ValueMatch>> for Values<K> {
    fn show(value: &Vec<ValueMatch>) -> Value {
        let one = |wanted: &ValueMatch| {
            let pattern = match &wanted.value {
                _ if names_a_credential(&wanted.name) => HIDDEN.to_owned(),
                pattern => pattern.to_string(),
            };
            (wanted.name.to_string(), format!("{}{pattern}", if wanted.not { "!" } else { "" }).into())
        };
        Value::Object(value.iter().map(one).collect())
    }
}

impl<K: Unit<Value: Borrow<str>>> Notation<Vec<ValueMatch>> for Values<K> {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        <Pairs<K, ValueText> as Notation<_>>::schema(generator)
    }

    fn read(value: Value) -> serde_json::Result<Vec<ValueMatch>> {
        let pairs = <Pairs<K, ValueText> as Notation<Vec<_>>>::read(value)?.into_iter();
        Ok(pairs.map(|(name, (value, not))| ValueMatch { name: name.borrow().into(), value, not }).collect())
    }
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ValuePattern {
    /// Any value.
    Present,
    /// Exactly this.
    Exact(Name),
    /// Begins with this.
    Prefix(Name),
    /// Ends with this.
    Suffix(Name),
    /// A regular expression over the whole value.
    Regex(WholeRegex),
}

/// As the file writes it.
impl fmt::Display for ValuePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => f.write_str("*"),
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
            Self::Suffix(text) => write!(f, "*{text}"),
            Self::Regex(regex) => write!(f, "~{regex}"),
        }
    }
}

/// An address range and port to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressMatch {
    /// Network address.
    pub network: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// `None` is every port.
    pub port: Option<u16>,
}

/// Networks, addresses and ports; one text may mean several.
pub(crate) struct Ranges;

impl Show<Vec<AddressMatch>> for Ranges {
    fn show(value: &Vec<AddressMatch>) -> Value {
        <List<Written> as Show<_>>::show(value)
    }
}

impl Notation<Vec<AddressMatch>> for Ranges {
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<OneOrMany<Text<AddressRange>>>()
    }

    fn read(value: Value) -> serde_json::Result<Vec<AddressMatch>> {
        let ranges: OneOrMany<Text<AddressRange>> = serde_json::from_value(value)?;
        Ok(ranges.into_vec().into_iter().flat_map(|range| range.0).collect())
    }
}

impl fmt::Display for AddressMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)?;
        self.port.map_or(Ok(()), |port| write!(f, " port {port}"))
    }
}
