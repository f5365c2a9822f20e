//! Small parts that several sections show: names, patterns, networks, and where certificates are.

use serde_json::{Value, json};

use super::{HIDDEN, strings};
use crate::model::{
    AddressMatch, Config, HostName, HostPattern, HostRewrite, Identity, PathPattern, SanPattern, Segment,
    Trust, UpstreamId, ValuePattern,
};

/// `None` where nothing was said.
pub(super) fn host_rewrite(host: &HostRewrite) -> Option<&str> {
    match host {
        HostRewrite::Auto => None,
        HostRewrite::Preserve => Some("preserve"),
        HostRewrite::Upstream => Some("upstream"),
        HostRewrite::To(host) => Some(host),
    }
}

pub(super) fn name(upstream: UpstreamId, config: &Config) -> Option<&str> {
    config.upstreams.get(upstream.0).map(|upstream| &*upstream.name)
}

pub(super) fn host(pattern: &HostPattern) -> String {
    let name = match &pattern.name {
        HostName::Any => "*".to_owned(),
        HostName::Exact(name) => name.to_string(),
        HostName::Suffix(suffix) => format!("*{suffix}"),
        HostName::Prefix(prefix) => format!("{prefix}*"),
    };
    match pattern.port {
        Some(port) => format!("{name}:{port}"),
        None => name,
    }
}

pub(super) fn path(pattern: &PathPattern) -> String {
    match pattern {
        PathPattern::Exact(path) => path.to_string(),
        PathPattern::Prefix(prefix) => format!("{}/*", prefix.trim_end_matches('/')),
        PathPattern::Regex(regex) => format!("~{regex}"),
        PathPattern::Template(segments) => {
            let segment = |segment: &Segment| match segment {
                Segment::Literal(text) => format!("/{text}"),
                Segment::Capture(name) => format!("/{{{name}}}"),
                Segment::Rest(name) => format!("/{{{name}...}}"),
            };
            segments.iter().map(segment).collect()
        }
    }
}

pub(super) fn value_pattern(pattern: &ValuePattern) -> String {
    match pattern {
        ValuePattern::Present => "*".to_owned(),
        ValuePattern::Exact(text) => text.to_string(),
        ValuePattern::Prefix(text) => format!("{text}*"),
        ValuePattern::Suffix(text) => format!("*{text}"),
        ValuePattern::Regex(regex) => format!("~{regex}"),
    }
}

pub(super) fn range(range: &AddressMatch) -> String {
    match range.port {
        Some(port) => format!("{}/{} port {port}", range.network, range.prefix),
        None => format!("{}/{}", range.network, range.prefix),
    }
}

/// Where the key is, never what is in it.
pub(super) fn identity(identity: &Identity) -> Value {
    json!({
        "certificate": identity.certificate.display().to_string(),
        "key": identity.key.display().to_string(),
        "ocsp": identity.ocsp.as_ref().map(|path| path.display().to_string()),
    })
}

pub(super) fn trust(trust: &Trust) -> Value {
    match trust {
        Trust::System => "system".into(),
        Trust::Spiffe => "spiffe".into(),
        Trust::Files(files) => strings(files.iter().map(|path| path.display())).into(),
        Trust::Inline(_) => format!("{HIDDEN} PEM in the config").into(),
    }
}

pub(super) fn san(pattern: &SanPattern) -> String {
    match pattern {
        SanPattern::Dns(name) => format!("dns:{name}"),
        SanPattern::Uri(uri) => uri.to_string(),
        SanPattern::Subject(_) => pattern.to_string(),
    }
}
