//! Which addresses this machine has a route to, if a name has addresses of both families.
//!
//! As getaddrinfo (RFC 6724 section 6, rule 1, "avoid unusable destinations"): a UDP socket is connected, which sends nothing and fails
//! where there is no route or no source address. A container without IPv6 drops a name's AAAA records that way, instead of
//! failing half of its first connections.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// True if the kernel has a route to `ip`.
pub(super) fn exists(ip: IpAddr) -> bool {
    let any: IpAddr = if ip.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    // Any port is possible.
    UdpSocket::bind(SocketAddr::new(any, 0))
        .and_then(|socket| socket.connect(SocketAddr::new(ip, 53)))
        .is_ok()
}

/// Drops addresses for which `exists` is false, if there are both families and at least one address remains.
pub(super) fn keep_reachable(ips: &mut Vec<IpAddr>, exists: impl Fn(IpAddr) -> bool) {
    let both = ips.iter().any(IpAddr::is_ipv6) && ips.iter().any(IpAddr::is_ipv4);
    if !both {
        return;
    }
    let reachable: Vec<IpAddr> = ips.iter().copied().filter(|&ip| exists(ip)).collect();
    if !reachable.is_empty() {
        *ips = reachable;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(ips: &[&str], exists: impl Fn(IpAddr) -> bool) -> Vec<String> {
        let mut ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        keep_reachable(&mut ips, exists);
        ips.iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn a_family_without_a_route_is_dropped_unless_nothing_is_left() {
        let both = ["10.0.0.1", "2001:db8::1"];
        assert_eq!(kept(&both, |ip| ip.is_ipv4()), ["10.0.0.1"]);
        assert_eq!(kept(&both, |ip| ip.is_ipv6()), ["2001:db8::1"]);
        assert_eq!(kept(&both, |_| true), both);
        assert_eq!(kept(&both, |_| false), both);
        assert_eq!(kept(&["2001:db8::1"], |_| false), ["2001:db8::1"]);
    }

    #[test]
    fn the_kernel_is_asked() {
        assert!(exists(Ipv4Addr::LOCALHOST.into()));
        assert!(!exists("255.255.255.255".parse().unwrap()), "broadcast is not for everyone");
    }
}
