//! Converts texts to attache's notation.

/// A value pattern for exactly this value.
pub(crate) fn exact(value: &str) -> String {
    if value.starts_with(['!', '~', '=']) || value.contains('*') || value.is_empty() {
        format!("={value}")
    } else {
        value.to_owned()
    }
}

/// A path as a literal in attache's `rewrite`.
pub(crate) fn literal(path: &str) -> String {
    path.replace('{', "%7B").replace('}', "%7D")
}

/// A text with variables after `%`, in attache's notation; `%%` stays. `variable` gets the text after a `%`, and
/// returns the variable in attache's notation with the rest of the text. `None` if `variable` knows no such variable.
pub(crate) fn template(
    text: &str,
    variable: impl for<'a> Fn(&'a str) -> Option<(String, &'a str)>,
) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            out.push_str("%%");
            rest = after;
            continue;
        }
        let (name, after) = variable(after)?;
        out.push_str(&name);
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

/// A network. Bits beyond its prefix are cleared, as other proxies ignore them. `None` if it isn't a network.
pub(crate) fn network(address: &str, length: u32) -> Option<String> {
    let address: std::net::IpAddr = address.parse().ok()?;
    let kept = match address {
        std::net::IpAddr::V4(v4) if length <= 32 => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            std::net::IpAddr::from((v4.to_bits() & mask).to_be_bytes())
        }
        std::net::IpAddr::V6(v6) if length <= 128 => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            std::net::IpAddr::from((v6.to_bits() & mask).to_be_bytes())
        }
        _ => return None,
    };
    Some(format!("{kept}/{length}"))
}

#[cfg(test)]
mod tests {
    use super::network;

    #[test]
    fn a_network_loses_the_bits_beyond_its_prefix() {
        assert_eq!(network("10.1.2.3", 8).as_deref(), Some("10.0.0.0/8"));
        assert_eq!(network("10.1.2.3", 0).as_deref(), Some("0.0.0.0/0"));
        assert_eq!(network("10.1.2.3", 32).as_deref(), Some("10.1.2.3/32"));
        assert_eq!(network("2001:db8::1", 64).as_deref(), Some("2001:db8::/64"));
        assert_eq!(network("::1", 128).as_deref(), Some("::1/128"));
        assert_eq!(network("10.0.0.0", 33), None);
        assert_eq!(network("x", 8), None);
    }
}
