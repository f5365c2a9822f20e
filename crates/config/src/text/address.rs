//! Names, ports and networks: where to listen, and which destinations are meant.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use super::{NotationError, wrong};
use crate::model::{AddressMatch, Bind, Name};

/// A host name in lower case, without its final dot, or an IP address (IPv6 without brackets).
pub(super) fn host_name(text: &str) -> Result<Name, NotationError> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok(text.into());
    }
    if !text.is_ascii() {
        return wrong(
            "{} has characters beyond ASCII",
            "write the name in its ASCII form (punycode, `xn--…`), so that it can't be mistaken for another one",
        );
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let right = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if name.len() > 253 || !name.split('.').all(right) {
        return wrong("{} isn't a host name", "letters, digits, `-` and `_`, in parts joined by dots");
    }
    if name.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return wrong("{} is neither an address nor a name", "an IPv4 address has four parts from 0 to 255");
    }
    Ok(name.into())
}

/// `HOST:PORT`, `[IPV6]:PORT`, or either without its port. The host keeps no brackets.
pub(super) fn split_port(text: &str) -> Result<(&str, Option<u16>), NotationError> {
    let port = |digits: &str| -> Result<u16, NotationError> {
        match digits.parse::<u16>() {
            Ok(port) if digits.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
            _ => wrong(format!("`{digits}` isn't a port"), "a port is a number from 0 to 65535"),
        }
    };
    if let Some(rest) = text.strip_prefix('[') {
        let Some((host, after)) = rest.split_once(']') else {
            return wrong("{} has a `[` without a `]`", "such as `[::1]:8080`");
        };
        if host.parse::<Ipv6Addr>().is_err() {
            return wrong(format!("`{host}` isn't an IPv6 address"), "such as `[::1]:8080`");
        }
        return match after.strip_prefix(':') {
            Some(digits) => Ok((host, Some(port(digits)?))),
            None if after.is_empty() => Ok((host, None)),
            None => wrong("{} has something after the `]`", "such as `[::1]:8080`"),
        };
    }
    match text.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => {
            wrong("{} has too many colons", "write an IPv6 address in brackets: `[::1]:8080`")
        }
        Some((host, digits)) => Ok((host, Some(port(digits)?))),
        None => Ok((text, None)),
    }
}

pub(super) fn binds(text: &str) -> Result<Vec<Bind>, NotationError> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(vec![Bind::Unix { path: unix_path(path)?, mode: Bind::UNIX_MODE }]);
    }
    if text.contains("://") {
        return wrong(
            "{} has a scheme",
            "only `ADDRESS:PORT`; the key `protocol` says which protocol is expected",
        );
    }
    Ok(socket_addresses(text)?.into_iter().map(Bind::Tcp).collect())
}

fn socket_addresses(text: &str) -> Result<Vec<SocketAddr>, NotationError> {
    let (host, port) = split_port(text)?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some(port) = port else {
        if digits(text) {
            split_port(&format!(":{text}"))?;
            return wrong(
                "{} is a port without an address",
                format!("`127.0.0.1:{text}` is for this machine alone, `:{text}` for every address of it"),
            );
        }
        if matches!(text, "true" | "yes" | "on" | "false" | "no") {
            return wrong(
                "{} is no address",
                "`127.0.0.1:15001` is for this machine alone, `:15001` for every address of it",
            );
        }
        return wrong("{} has no port", format!("`{text}:15001`? A port alone is `:15001`"));
    };
    let addresses: Vec<IpAddr> = match host {
        "" | "*" => vec![Ipv4Addr::UNSPECIFIED.into()],
        "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        host => match host.parse() {
            Ok(address) => vec![address],
            Err(_) => {
                return wrong(
                    format!("`{host}` isn't an address of this machine"),
                    "an IP address, `localhost`, or nothing before the colon for every IPv4 address",
                );
            }
        },
    };
    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

pub(super) fn unix_path(text: &str) -> Result<PathBuf, NotationError> {
    let path = match text.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some(_) => return wrong("{} names a host", "such as `unix:/run/app.sock` or `unix:///run/app.sock`"),
        None => text,
    };
    if path.is_empty() {
        return wrong("{} has no path", "such as `unix:/run/app.sock`");
    }
    // sun_path of sockaddr_un: 108 bytes with the final NUL on Linux, 104 elsewhere.
    if path.len() > 103 {
        return wrong("{} is too long for a Unix socket", "at most 103 bytes");
    }
    if path.contains('\0') {
        return wrong("{} has a NUL character", "");
    }
    Ok(path.into())
}

pub(super) fn metrics(text: &str) -> Result<Option<SocketAddr>, NotationError> {
    if text == "off" {
        return Ok(None);
    }
    socket_addresses(text).map(|addresses| addresses.into_iter().next())
}

pub(super) fn admin(text: &str) -> Result<Option<Bind>, NotationError> {
    if text == "off" {
        return Ok(None);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Some(Bind::Unix { path: unix_path(path)?, mode: Bind::ADMIN_MODE }));
    }
    let text = text.strip_prefix(':').map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    let address = socket_addresses(&text)?.into_iter().next();
    match address.filter(|address| address.ip().is_loopback()) {
        Some(address) => Ok(Some(Bind::Tcp(address))),
        None => wrong(
            "{} can be reached from other machines",
            "the admin API changes things, so it listens on a loopback address (`127.0.0.1:15000`) or a Unix socket (`unix:PATH`)",
        ),
    }
}

pub(super) fn dns_server(text: &str) -> Result<SocketAddr, NotationError> {
    if let Ok(address) = text.parse() {
        return Ok(SocketAddr::new(address, 53));
    }
    let (host, port) = split_port(text)?;
    match host.parse() {
        Ok(address) => Ok(SocketAddr::new(address, port.unwrap_or(53))),
        Err(_) => wrong("{} isn't an IP address", "a DNS server is given by its IP address, not by a name"),
    }
}

pub(super) fn ip(text: &str) -> Result<IpAddr, NotationError> {
    match text.parse() {
        Ok(address) => Ok(address),
        Err(_) => wrong("{} isn't an IP address", "such as `10.0.0.7` or `fd00::7`"),
    }
}

pub(super) fn ranges(text: &str) -> Result<Vec<AddressMatch>, NotationError> {
    let (range, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((network, rest)) => match rest.split_once(':') {
            Some((more, port)) => (format!("{network}{more}"), Some(port)),
            None => (format!("{network}{rest}"), None),
        },
        None if text.matches(':').count() > 1 => (text.to_owned(), None),
        None => match text.split_once(':') {
            Some((network, port)) => (network.to_owned(), Some(port)),
            None => (text.to_owned(), None),
        },
    };
    let port = match port.map(str::parse::<u16>) {
        None => None,
        Some(Ok(port)) if port > 0 => Some(port),
        Some(_) => {
            return wrong(
                "{} has no valid port after the colon",
                "from 1 to 65535, such as `10.0.0.0/8:5432`",
            );
        }
    };
    if matches!(range.as_str(), "" | "*") {
        if port.is_none() {
            return wrong("{} isn't an address", "such as `10.0.0.0/8`, `10.1.2.3:5432` or `:5432`");
        }
        let any = |network: IpAddr| AddressMatch { network, prefix: 0, port };
        return Ok(vec![any(Ipv4Addr::UNSPECIFIED.into()), any(Ipv6Addr::UNSPECIFIED.into())]);
    }
    let (address, prefix) = match range.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (range.as_str(), None),
    };
    let Ok(network) = address.parse::<IpAddr>() else {
        return wrong(format!("`{address}` isn't an IP address"), "such as `10.0.0.0/8` or `10.1.2.3:5432`");
    };
    let bits = if network.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix.map(str::parse::<u8>) {
        None => bits,
        Some(Ok(prefix)) if prefix <= bits => prefix,
        Some(_) => return wrong("{} has a wrong prefix length", format!("from 0 to {bits}")),
    };
    let masked = mask(network, prefix);
    if masked != network {
        return wrong("{} has bits beyond its prefix", format!("`{masked}/{prefix}`, or `{network}` alone?"));
    }
    Ok(vec![AddressMatch { network, prefix, port }])
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_both_loopbacks() {
        let both = binds("localhost:1").unwrap();
        let tcp = |text: &str| Bind::Tcp(text.parse().unwrap());
        assert_eq!(both, [tcp("127.0.0.1:1"), tcp("[::1]:1")]);
        assert_eq!(binds(":1").unwrap(), [tcp("0.0.0.0:1")]);
        assert!(binds("15001").is_err());
        assert!(binds("example.com:1").is_err());
    }

    #[test]
    fn a_range_is_a_network_an_address_or_a_port() {
        let range = |text: &str| ranges(text).unwrap();
        let one =
            |network: &str, prefix, port| AddressMatch { network: network.parse().unwrap(), prefix, port };
        assert_eq!(range("10.0.0.0/8"), [one("10.0.0.0", 8, None)]);
        assert_eq!(range("10.0.0.0/8:443"), [one("10.0.0.0", 8, Some(443))]);
        assert_eq!(range("fd00::/8"), [one("fd00::", 8, None)]);
        assert_eq!(range("[fd00::/8]:443"), [one("fd00::", 8, Some(443))]);
        assert_eq!(range("[fd00::]/8:443"), [one("fd00::", 8, Some(443))]);
        assert_eq!(range("::1"), [one("::1", 128, None)]);
        assert_eq!(range(":5432"), [one("0.0.0.0", 0, Some(5432)), one("::", 0, Some(5432))]);
        assert!(ranges("10.0.0.1/8").unwrap_err().help.contains("10.0.0.0/8"));
        assert_eq!(range("0.0.0.0/0"), [one("0.0.0.0", 0, None)]);
    }
}
