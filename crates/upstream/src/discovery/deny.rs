//! Destinations that a forward proxy must not reach.
//!
//! Rule: the address of the connection is matched, after DNS, at every refresh. So a name that later gets another
//! address (DNS rebinding) gains nothing. An address is also matched as the address that it leads to: IPv4 mapped into
//! IPv6 (`::ffff:0:0/96`) and behind NAT64 (`64:ff9b::/96`, RFC 6052) as that IPv4 address, the unspecified address as
//! loopback (Linux connects there).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use attache_config::model::{AddressMatch, EndpointTarget};
use attache_telemetry::Reason;

use super::lookup::{Lookup, LookupAnswer, LookupError};

/// Is `address` one of `deny`?
pub fn denied(deny: &[AddressMatch], address: SocketAddr) -> bool {
    let ip = address.ip();
    let meanings = [Some(ip), leads_to(ip)];
    deny.iter().any(|rule| {
        let port = rule.port.is_none_or(|port| port == address.port());
        port && meanings.iter().flatten().any(|&ip| contains(rule, ip))
    })
}

/// Where a connection to `ip` ends, as IPv4 or loopback; `None` if that is `ip` itself and IPv6.
pub(super) fn leads_to(ip: IpAddr) -> Option<IpAddr> {
    let v4 = match ip.to_canonical() {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(v6) if v6.is_unspecified() => return Some(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V6(v6) => match v6.octets() {
            [0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => Ipv4Addr::new(a, b, c, d),
            _ => return None,
        },
    };
    Some(if v4.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { v4.into() })
}

fn contains(rule: &AddressMatch, ip: IpAddr) -> bool {
    let same = |a: u128, b: u128, bits: u32| {
        let shift = bits.saturating_sub(u32::from(rule.prefix));
        a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
    };
    match (rule.network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => same(network.to_bits().into(), ip.to_bits().into(), 32),
        (IpAddr::V6(network), IpAddr::V6(ip)) => same(network.to_bits(), ip.to_bits(), 128),
        _ => false,
    }
}

/// A look-up that removes denied addresses from its answers. An answer with no other address fails with
/// `denied-destination`.
#[derive(Debug)]
pub(super) struct FilteredLookup<L> {
    pub(super) lookup: std::sync::Arc<L>,
    pub(super) deny: Vec<AddressMatch>,
}

impl<L: Lookup> Lookup for FilteredLookup<L> {
    async fn lookup(&self, target: &EndpointTarget) -> Result<LookupAnswer, LookupError> {
        let mut answer = self.lookup.lookup(target).await?;
        answer.found.retain(|found| !denied(&self.deny, found.address));
        if answer.found.is_empty() {
            return Err(LookupError::new(Reason::DeniedDestination, "every address of the name is denied"));
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(network: &str, prefix: u8, port: Option<u16>) -> AddressMatch {
        AddressMatch { network: network.parse().unwrap(), prefix, port }
    }

    #[test]
    fn a_denied_address_is_denied_in_every_spelling() {
        let deny = [rule("169.254.0.0", 16, None), rule("127.0.0.0", 8, Some(15000)), rule("::1", 128, None)];
        for address in [
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[64:ff9b::a9fe:a9fe]:80",
            "127.0.0.9:15000",
            "0.0.0.0:15000",
            "[::ffff:0.0.0.0]:15000",
            "[::1]:1",
            "[::]:1",
        ] {
            assert!(denied(&deny, address.parse().unwrap()), "{address}");
        }
        for address in ["169.255.0.1:80", "127.0.0.1:80", "10.0.0.1:15000", "[2001:db8::1]:80"] {
            assert!(!denied(&deny, address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_prefix_of_zero_is_the_whole_family() {
        assert!(denied(&[rule("0.0.0.0", 0, None)], "8.8.8.8:53".parse().unwrap()));
        assert!(denied(&[rule("::", 0, None)], "[2001:db8::1]:53".parse().unwrap()));
        assert!(!denied(&[rule("::", 0, None)], "8.8.8.8:53".parse().unwrap()));
    }
}
