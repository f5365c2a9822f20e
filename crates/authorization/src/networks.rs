//! Compiled ranges of addresses: a mask, and the value that an address must have under it.

use std::net::{IpAddr, Ipv4Addr};

use attache_config::model::AddressMatch;
use attache_http::pattern::network;

/// Some ranges. A range of IPv4 never contains an IPv6 address, nor the reverse; an IPv4 address that is mapped into
/// IPv6 counts as IPv4.
#[derive(Debug)]
pub(crate) struct Networks {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    pub(crate) fn new(ranges: &[AddressMatch]) -> Self {
        let mut all = Self { v4: Vec::new(), v6: Vec::new() };
        for range in ranges {
            // The mask is the network of an address with all bits set.
            let mask = |ones: IpAddr| network(ones, range.prefix);
            match (network(range.network, range.prefix), mask([255; 4].into()), mask([255; 16].into())) {
                (IpAddr::V4(wanted), IpAddr::V4(mask), _) => all.v4.push((mask.to_bits(), wanted.to_bits())),
                (IpAddr::V6(wanted), _, IpAddr::V6(mask)) => all.v6.push((mask.to_bits(), wanted.to_bits())),
                // Not reachable: `network` keeps the family.
                _ => {}
            }
        }
        all
    }

    /// Whether an address of IPv4 is in one of them.
    #[inline]
    pub(crate) fn contains_v4(&self, address: Ipv4Addr) -> bool {
        self.v4.iter().any(|(mask, wanted)| address.to_bits() & mask == *wanted)
    }

    /// Whether an address is in one of them.
    #[inline]
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.contains_v4(v4),
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => self.contains_v4(v4),
                None => self.v6.iter().any(|(mask, wanted)| v6.to_bits() & mask == *wanted),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use attache_http::pattern::in_network;
    use proptest::prelude::*;

    use super::*;

    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(IpAddr::from),
            any::<[u8; 4]>().prop_map(|v4| std::net::Ipv4Addr::from(v4).to_ipv6_mapped().into()),
        ]
    }

    proptest! {
        #[test]
        fn they_contain_the_same_addresses_as_the_ranges(ranges in prop::collection::vec((address(), 0_u8..=128), 0..4), other in address(), keep in 0_usize..4, bits in 0_u8..=128) {
            let ranges: Vec<AddressMatch> = ranges
                .into_iter()
                .map(|(network, prefix)| {
                    let prefix = if network.is_ipv4() { prefix.min(32) } else { prefix };
                    AddressMatch { network, prefix, port: None }
                })
                .collect();
            let networks = Networks::new(&ranges);
            // Also tests addresses near to a range.
            let near = ranges.get(keep).map(|range| network(range.network, bits));
            for address in [Some(other), near].into_iter().flatten() {
                let expected = ranges.iter().any(|range| in_network(range, address));
                prop_assert_eq!(networks.contains(address), expected, "{} in {:?}", address, ranges);
            }
        }
    }
}
