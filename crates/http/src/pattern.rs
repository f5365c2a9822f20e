//! Matches patterns of the config against parts of a request: paths, hosts, networks.
//!
//! They are matched in this one place, so that a route and an access rule never read the same pattern differently. The route table matches
//! many patterns at once by indexes of its own; its tests compare it with these functions.

use std::net::IpAddr;

use attache_config::model::{AddressMatch, HostName, HostPattern, Name, PathPattern, Segment};

use crate::CanonicalHost;

/// Whether a path (without its query) matches. A CONNECT has no path, and `*` is not a path: only an exact pattern can match them.
#[inline]
pub fn path_matches(pattern: &PathPattern, path: &str) -> bool {
    match pattern {
        PathPattern::Exact(exact) => **exact == *path,
        PathPattern::Prefix(prefix) => behind_prefix(prefix, path).is_some(),
        PathPattern::Regex(_) | PathPattern::Template(_) => walked(pattern, path),
    }
}

/// A separate function, so that the two usual kinds of patterns are compared without a call.
#[inline(never)]
fn walked(pattern: &PathPattern, path: &str) -> bool {
    match pattern {
        PathPattern::Regex(regex) => path.starts_with('/') && regex.is_match(path),
        PathPattern::Template(segments) => capture_segments(segments, path, |_, _| {}),
        PathPattern::Exact(_) | PathPattern::Prefix(_) => false,
    }
}

/// The rest of a path after a prefix: empty, or beginning with `/`. `None` if the path doesn't have this prefix.
#[inline]
pub fn behind_prefix<'p>(prefix: &str, path: &'p str) -> Option<&'p str> {
    let prefix = if prefix == "/" { "" } else { prefix };
    path.strip_prefix(prefix).filter(|rest| (rest.is_empty() && !prefix.is_empty()) || rest.starts_with('/'))
}

/// Matches a template against a path and passes each captured segment on; false if it doesn't match.
pub fn capture_segments<'p>(
    segments: &[Segment],
    path: &'p str,
    mut each: impl FnMut(&Name, &'p str),
) -> bool {
    let Some(path) = path.strip_prefix('/') else { return false };
    let mut rest = Some(path);
    for segment in segments {
        let Some(left) = rest else { return false };
        let (text, behind) = first_segment(left);
        match segment {
            Segment::Literal(literal) if **literal == *text => {}
            Segment::Capture(name) if !text.is_empty() => each(name, text),
            Segment::Rest(name) => {
                each(name, left);
                return true;
            }
            Segment::Literal(_) | Segment::Capture(_) => return false,
        }
        rest = behind;
    }
    rest.is_none()
}

/// The first segment of a path without its leading slash, and the rest after the next slash.
pub fn first_segment(path: &str) -> (&str, Option<&str>) {
    // The search goes byte by byte: a search by whole words costs more to set up than most segments are long.
    let slash = path.bytes().position(|byte| byte == b'/');
    match slash.and_then(|at| path.split_at_checked(at)) {
        Some((segment, behind)) => (segment, behind.get(1..)),
        None => (path, None),
    }
}

/// Whether a host and port match. The host is `None` if the request names no host (HTTP/1.0).
pub fn host_matches(pattern: &HostPattern, host: Option<&CanonicalHost<'_>>, port: u16) -> bool {
    if pattern.port.is_some_and(|wanted| wanted != port) {
        return false;
    }
    let name = || host.filter(|host| !host.is_v6()).map(CanonicalHost::as_str);
    match &pattern.name {
        HostName::Any => true,
        HostName::Exact(wanted) => host.is_some_and(|host| {
            // No host is that long, so this pattern matches nothing.
            CanonicalHost::new(wanted).is_some_and(|wanted| wanted.as_str() == host.as_str())
        }),
        HostName::Suffix(suffix) => {
            name().and_then(|host| host.strip_suffix(&**suffix)).is_some_and(|labels| !labels.is_empty())
        }
        HostName::Prefix(prefix) => {
            name().and_then(|host| host.strip_prefix(&**prefix)).is_some_and(|labels| !labels.is_empty())
        }
    }
}

/// An address with its host bits set to zero.
pub fn network(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let host_bits = 32 - u32::from(prefix.min(32));
            IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(host_bits).unwrap_or(0)).into())
        }
        IpAddr::V6(v6) => {
            let host_bits = 128 - u32::from(prefix.min(128));
            IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0)).into())
        }
    }
}

/// Whether an address is in a range. The port of the range is ignored. An IPv4 address that is mapped into IPv6 counts as IPv4.
pub fn in_network(range: &AddressMatch, address: IpAddr) -> bool {
    let address = address.to_canonical();
    // A range of one family never contains an address of the other.
    address.is_ipv4() == range.network.is_ipv4()
        && network(address, range.prefix) == network(range.network, range.prefix)
}
