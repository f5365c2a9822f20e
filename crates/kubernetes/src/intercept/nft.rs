//! The rules as a script for `nft -f -`: one transaction, in a separate table.

use std::{fmt::Write, net::IpAddr};

use super::{
    TABLE,
    rules::{NatChain, RedirectMatch, RedirectRule, RedirectVerdict},
};

/// Replaces the content of the table.
pub(crate) fn script(rules: &[RedirectRule]) -> String {
    let mut text = remove();
    let _ = writeln!(text, "table inet {TABLE} {{");
    for (chain, name) in [(NatChain::Output, "output"), (NatChain::Prerouting, "prerouting")] {
        let mut own = rules.iter().filter(|rule| rule.chain == chain).peekable();
        if own.peek().is_none() {
            continue;
        }
        let _ = writeln!(text, "  chain {name} {{");
        let _ = writeln!(text, "    type nat hook {name} priority -100; policy accept;");
        for rule in own {
            let _ = writeln!(text, "    {}", statement(rule));
        }
        let _ = writeln!(text, "  }}");
    }
    let _ = writeln!(text, "}}");
    text
}

/// Deletes the table. It is added first, which changes nothing if it exists, so that the script also works without a
/// table.
pub(crate) fn remove() -> String {
    format!("add table inet {TABLE}\ndelete table inet {TABLE}\n")
}

/// One rule, as `nft` writes it.
pub(crate) fn statement(rule: &RedirectRule) -> String {
    let mut text = match &rule.matches {
        None => String::new(),
        Some(RedirectMatch::NotTcp) => "meta l4proto != tcp ".to_owned(),
        Some(RedirectMatch::User(uid)) => format!("meta skuid {uid} "),
        Some(RedirectMatch::Group(gid)) => format!("meta skgid {gid} "),
        Some(RedirectMatch::Interface(interface)) => match rule.chain {
            NatChain::Output => format!("oifname \"{interface}\" "),
            NatChain::Prerouting => format!("iifname \"{interface}\" "),
        },
        Some(RedirectMatch::Ports(ports)) => format!("tcp dport {ports} "),
        Some(RedirectMatch::Network(network)) => match (network.is_whole_family(), network.address()) {
            (true, IpAddr::V4(_)) => "meta nfproto ipv4 ".to_owned(),
            (true, IpAddr::V6(_)) => "meta nfproto ipv6 ".to_owned(),
            (false, IpAddr::V4(_)) => format!("ip daddr {network} "),
            (false, IpAddr::V6(_)) => format!("ip6 daddr {network} "),
        },
    };
    match rule.verdict {
        RedirectVerdict::Straight => text.push_str("accept"),
        RedirectVerdict::Redirect(port) => {
            // A redirection to a port needs a match on a protocol with ports.
            if !matches!(rule.matches, Some(RedirectMatch::Ports(_))) {
                text.push_str("meta l4proto tcp ");
            }
            // The counter says how many connections are intercepted.
            let _ = write!(text, "counter redirect to :{port}");
        }
    }
    let _ = write!(text, " comment \"{}\"", rule.why);
    text
}
