//! The rules for `iptables-restore --noflush` and `ip6tables-restore --noflush`: one transaction for each family.
//!
//! They are in two chains of attache, to which the kernel's chains jump. Declaring a chain empties it. An existing jump
//! is deleted first, so that there is exactly one in the end.

use std::{fmt::Write, net::IpAddr};

use super::{
    options::PortRange,
    rules::{NatChain, RedirectMatch, RedirectRule, RedirectVerdict},
};

/// An address family, and with it a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressFamily {
    V4,
    V6,
}

impl AddressFamily {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// `iptables` or `ip6tables`.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }
}

const CHAINS: [(NatChain, &str, &str); 2] = [
    (NatChain::Output, "OUTPUT", "ATTACHE_OUTPUT"),
    (NatChain::Prerouting, "PREROUTING", "ATTACHE_PREROUTING"),
];

/// Replaces the existing rules; `saved` is the output of `iptables-save -t nat`.
pub(crate) fn script(rules: &[RedirectRule], family: AddressFamily, saved: &str) -> String {
    let mut text = String::from("*nat\n");
    let wanted = |chain: NatChain| rules.iter().any(|rule| rule.chain == chain);
    for (chain, _, own) in CHAINS {
        if wanted(chain) || exists(saved, own) {
            let _ = writeln!(text, ":{own} - [0:0]");
        }
    }
    delete_jumps(&mut text, saved);
    for (chain, kernel, own) in CHAINS {
        if !wanted(chain) {
            if exists(saved, own) {
                let _ = writeln!(text, "-X {own}");
            }
            continue;
        }
        for rule in rules.iter().filter(|rule| rule.chain == chain) {
            if let Some(rule) = statement(rule, family) {
                let _ = writeln!(text, "-A {own} {rule}");
            }
        }
        let _ = writeln!(text, "-A {kernel} -p tcp -j {own}");
    }
    text.push_str("COMMIT\n");
    text
}

/// Deletes the existing rules; `None` if there are none.
pub(crate) fn remove(saved: &str) -> Option<String> {
    if !CHAINS.iter().any(|(_, _, own)| exists(saved, own)) {
        return None;
    }
    Some(script(&[], AddressFamily::V4, saved))
}

fn exists(saved: &str, chain: &str) -> bool {
    saved.lines().any(|line| line.strip_prefix(':').is_some_and(|rest| rest.split(' ').next() == Some(chain)))
}

fn delete_jumps(text: &mut String, saved: &str) {
    for (_, kernel, own) in CHAINS {
        let jumps = saved.lines().filter(|line| {
            line.starts_with(&format!("-A {kernel} ")) && line.split(' ').next_back() == Some(own)
        });
        for jump in jumps {
            let _ = writeln!(text, "{}", jump.replacen("-A", "-D", 1));
        }
    }
}

/// `None` if the rule is not for this family, or if it only excludes other protocols than TCP, which don't reach these
/// chains.
fn statement(rule: &RedirectRule, family: AddressFamily) -> Option<String> {
    let mut text = match &rule.matches {
        Some(RedirectMatch::NotTcp) => return None,
        None => String::new(),
        Some(RedirectMatch::User(uid)) => format!("-m owner --uid-owner {uid} "),
        Some(RedirectMatch::Group(gid)) => format!("-m owner --gid-owner {gid} "),
        Some(RedirectMatch::Interface(interface)) => {
            let (name, any_rest) = interface.parts();
            let flag = if rule.chain == NatChain::Output { "-o" } else { "-i" };
            format!("{flag} {name}{} ", if any_rest { "+" } else { "" })
        }
        Some(RedirectMatch::Ports(PortRange(ports))) if ports.start() == ports.end() => {
            format!("-p tcp -m tcp --dport {} ", ports.start())
        }
        Some(RedirectMatch::Ports(PortRange(ports))) => {
            format!("-p tcp -m tcp --dport {}:{} ", ports.start(), ports.end())
        }
        Some(RedirectMatch::Network(network)) => match (family, network.address()) {
            (AddressFamily::V4, IpAddr::V4(_)) | (AddressFamily::V6, IpAddr::V6(_)) => {
                format!("-d {}/{} ", network.address(), network.prefix())
            }
            _ => return None,
        },
    };
    match rule.verdict {
        RedirectVerdict::Straight => text.push_str("-j RETURN"),
        RedirectVerdict::Redirect(port) => {
            if !text.contains("-p tcp") {
                text.push_str("-p tcp ");
            }
            let _ = write!(text, "-j REDIRECT --to-ports {port}");
        }
    }
    Some(text)
}
