//! The options of interception, each with its default.

use std::{fmt, net::IpAddr, ops::RangeInclusive, str::FromStr};

/// What is redirected and where to.
///
/// Excluded connections are never redirected. If an include list isn't empty, only connections in it are redirected;
/// destination ports and networks count as one list: it is enough to be in either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the application's connections go. Default 15001; `None` redirects none.
    pub outbound_to: Option<u16>,
    /// Where connections from outside go. Default 15006; `None` redirects none.
    pub inbound_to: Option<u16>,
    /// attache's own users, whose connections are not redirected. Default 1337.
    pub proxy_uids: Vec<u32>,
    /// attache's own groups, whose connections are not redirected. Default 1337.
    pub proxy_gids: Vec<u32>,
    /// Other users whose connections are not redirected.
    pub exclude_uids: Vec<u32>,
    /// Other groups whose connections are not redirected.
    pub exclude_gids: Vec<u32>,
    /// Destination ports of the application's connections that are not redirected.
    pub exclude_outbound_ports: Vec<PortRange>,
    /// Destination networks of the application's connections that are not redirected.
    pub exclude_outbound_networks: Vec<Network>,
    /// Destination ports that are redirected; empty is all.
    pub include_outbound_ports: Vec<PortRange>,
    /// Destination networks that are redirected; empty is all.
    pub include_outbound_networks: Vec<Network>,
    /// Ports of the application that are reached without attache. [`Options::OWN_PORTS`] are never redirected either.
    pub exclude_inbound_ports: Vec<PortRange>,
    /// Ports of the application that are reached through attache; empty is all.
    pub include_inbound_ports: Vec<PortRange>,
    /// Network interfaces without redirection, in both directions; a final `*` stands for any rest.
    pub exclude_interfaces: Vec<Interface>,
}

impl Options {
    /// Default of [`Self::outbound_to`].
    pub const OUTBOUND: u16 = 15001;
    /// Default of [`Self::inbound_to`].
    pub const INBOUND: u16 = 15006;
    /// Default of [`Self::proxy_uids`] and [`Self::proxy_gids`]: the user of attache's image.
    pub const USER: u32 = 1337;
    /// attache's own ports, to which connections from outside are not redirected: admin (which refuses them), metrics
    /// and probes.
    pub const OWN_PORTS: [u16; 2] = [15000, 15090];
}

impl Default for Options {
    fn default() -> Self {
        Self {
            outbound_to: Some(Self::OUTBOUND),
            inbound_to: Some(Self::INBOUND),
            proxy_uids: vec![Self::USER],
            proxy_gids: vec![Self::USER],
            exclude_uids: Vec::new(),
            exclude_gids: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            exclude_outbound_networks: Vec::new(),
            include_outbound_ports: Vec::new(),
            include_outbound_networks: Vec::new(),
            exclude_inbound_ports: Vec::new(),
            include_inbound_ports: Vec::new(),
            exclude_interfaces: Vec::new(),
        }
    }
}

/// A text that is not valid, with what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError(String);

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseError {}

/// One port (`8080`) or several in a row (`9000-9100`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange(pub RangeInclusive<u16>);

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        Self(port..=port)
    }
}

impl FromStr for PortRange {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError(format!("`{text}` is not a port: write `8080` or `9000-9100`"));
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|&port| port > 0).ok_or_else(wrong);
        let (first, last) = match text.split_once(['-', ':']) {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        if first > last {
            return Err(ParseError(format!("`{text}` ends before it begins: write `{last}-{first}`")));
        }
        Ok(Self(first..=last))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.0.start(), self.0.end());
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

/// A network (`10.0.0.0/8`, `fd00::/8`) or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its first address: the bits after the prefix are zero.
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits of the address count.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The mask of the prefix, as an address.
    pub(crate) fn mask(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(_) => IpAddr::V4(mask_v4(self.prefix).into()),
            IpAddr::V6(_) => IpAddr::V6(mask_v6(self.prefix).into()),
        }
    }

    /// True if it contains every address of its family.
    pub(crate) fn is_whole_family(&self) -> bool {
        self.prefix == 0
    }
}

fn mask_v4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn mask_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Network {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || {
            ParseError(format!(
                "`{text}` is not a network: write `10.0.0.0/8`, `fd00::/8` or a single address"
            ))
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix
                .parse::<u8>()
                .ok()
                .filter(|&prefix| {
                    prefix <= longest && prefix.to_string() == text.rsplit('/').next().unwrap_or("")
                })
                .ok_or_else(wrong)?,
            None => longest,
        };
        let address = match address {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & mask_v4(prefix)).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & mask_v6(prefix)).into()),
        };
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let single = if self.address.is_ipv4() { 32 } else { 128 };
        if self.prefix == single {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.prefix)
        }
    }
}

/// The name of a network interface; a final `*` stands for any rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface(String);

impl Interface {
    /// The loopback interface.
    pub(crate) fn loopback() -> Self {
        Self("lo".to_owned())
    }

    /// The name without its `*`, and whether it had one.
    pub(crate) fn parts(&self) -> (&str, bool) {
        self.0.strip_suffix('*').map_or((&self.0, false), |name| (name, true))
    }
}

impl FromStr for Interface {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let name = text.strip_suffix('*').unwrap_or(text);
        // IFNAMSIZ is 16 with its final zero. The characters are those that need no quoting in any of the rule languages.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        if name.is_empty() || name.len() > 15 || !name.chars().all(plain) {
            return Err(ParseError(format!(
                "`{text}` is not an interface: write `eth1`, or `cali*` for all that begin so"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end on what it did not expect")]

    use super::*;

    #[test]
    fn ports_are_single_or_ranges_and_nothing_else() {
        for (text, shown) in
            [("8080", "8080"), ("9000-9100", "9000-9100"), ("9000:9100", "9000-9100"), ("1-1", "1")]
        {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), shown);
        }
        for text in ["", "0", "65536", "http", "9100-9000", "1-2-3", "-5", "*"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn networks_lose_the_bits_behind_their_prefix() {
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd77::1/16", "fd77::/16"),
            ("::1", "::1"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), shown);
        }
        for text in ["", "10.0.0.0/33", "fd00::/129", "10.0.0.0/", "10.0.0.0/+8", "orders.internal", "10.0.0"]
        {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_interface_name_cant_smuggle_a_rule() {
        for text in ["eth0", "cali*", "eth0.100", "veth-1_2"] {
            assert!(text.parse::<Interface>().is_ok(), "{text}");
        }
        for text in ["", "*", "eth 0", "eth0\" accept", "a;b", "sixteen_letters_", "e*h"] {
            assert!(text.parse::<Interface>().is_err(), "{text}");
        }
    }
}
