//! Which connections are redirected: the rules, as data.
//!
//! The kernel applies them only to the first packet of a connection, and remembers the verdict. The first rule that
//! matches decides.
//!
//! Outbound, as Istio and Linkerd have it:
//! 1. Only TCP. DNS over UDP is untouched.
//! 2. Connections that attache itself opens are not redirected, whatever their destination, so that nothing can loop:
//!    neither its calls to an upstream, nor its connections to the application, whose address is the pod's own.
//! 3. Connections within the pod are not redirected: those to `localhost`, and to the pod's own addresses (both leave
//!    through `lo`).
//! 4. Excluded connections are not redirected; then the included ones, or all others, are redirected.
//!
//! Inbound: connections through `lo` come from the pod itself, and are not redirected; for the others the rules are as
//! above, by the called port. A kubelet's probes come from outside: unless their port is excluded, they reach attache.

use super::options::{Interface, Network, Options, PortRange};

/// The chain of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatChain {
    /// Connections that processes of this namespace open.
    Output,
    /// Connections that come in.
    Prerouting,
}

/// What a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectMatch {
    /// Anything but TCP.
    NotTcp,
    /// The user of the process that opens the connection.
    User(u32),
    /// Its group.
    Group(u32),
    /// The interface that the packet leaves by, or came in by.
    Interface(Interface),
    /// The destination's port.
    Ports(PortRange),
    /// The destination's address.
    Network(Network),
}

/// What happens to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectVerdict {
    /// It goes to its own destination.
    Straight,
    /// It goes to this port of the namespace.
    Redirect(u16),
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectRule {
    /// Where it stands.
    pub chain: NatChain,
    /// What it matches; `None` is every connection that no earlier rule matched.
    pub matches: Option<RedirectMatch>,
    /// Its verdict.
    pub verdict: RedirectVerdict,
    /// Why, as a comment in lists of the rules.
    pub why: &'static str,
}

/// The rules for these options, in order.
pub fn rules(options: &Options) -> Vec<RedirectRule> {
    let mut all = Vec::new();
    if let Some(port) = options.outbound_to {
        outbound(options, port, &mut all);
    }
    if let Some(port) = options.inbound_to {
        inbound(options, port, &mut all);
    }
    all
}

fn outbound(options: &Options, port: u16, all: &mut Vec<RedirectRule>) {
    let redirect = RedirectVerdict::Redirect(port);
    let mut say = |matches: Option<RedirectMatch>, verdict, why| {
        all.push(RedirectRule { chain: NatChain::Output, matches, verdict, why });
    };
    let straight = RedirectVerdict::Straight;
    say(Some(RedirectMatch::NotTcp), straight, "only TCP is redirected");
    for &uid in &options.proxy_uids {
        say(Some(RedirectMatch::User(uid)), straight, "attache itself");
    }
    for &gid in &options.proxy_gids {
        say(Some(RedirectMatch::Group(gid)), straight, "attache itself");
    }
    say(Some(RedirectMatch::Interface(Interface::loopback())), straight, "within the pod");
    for &uid in &options.exclude_uids {
        say(Some(RedirectMatch::User(uid)), straight, "excluded user");
    }
    for &gid in &options.exclude_gids {
        say(Some(RedirectMatch::Group(gid)), straight, "excluded group");
    }
    for interface in &options.exclude_interfaces {
        say(Some(RedirectMatch::Interface(interface.clone())), straight, "excluded interface");
    }
    for ports in &options.exclude_outbound_ports {
        say(Some(RedirectMatch::Ports(ports.clone())), straight, "excluded port");
    }
    for network in &options.exclude_outbound_networks {
        say(Some(RedirectMatch::Network(*network)), straight, "excluded network");
    }
    if options.include_outbound_ports.is_empty() && options.include_outbound_networks.is_empty() {
        say(None, redirect, "the rest");
    }
    for ports in &options.include_outbound_ports {
        say(Some(RedirectMatch::Ports(ports.clone())), redirect, "included port");
    }
    for network in &options.include_outbound_networks {
        say(Some(RedirectMatch::Network(*network)), redirect, "included network");
    }
}

fn inbound(options: &Options, port: u16, all: &mut Vec<RedirectRule>) {
    let redirect = RedirectVerdict::Redirect(port);
    let straight = RedirectVerdict::Straight;
    let mut say = |matches: Option<RedirectMatch>, verdict, why| {
        all.push(RedirectRule { chain: NatChain::Prerouting, matches, verdict, why });
    };
    say(Some(RedirectMatch::NotTcp), straight, "only TCP is redirected");
    say(Some(RedirectMatch::Interface(Interface::loopback())), straight, "within the pod");
    for interface in &options.exclude_interfaces {
        say(Some(RedirectMatch::Interface(interface.clone())), straight, "excluded interface");
    }
    say(Some(RedirectMatch::Ports(port.into())), straight, "called as it is");
    for own in Options::OWN_PORTS {
        say(Some(RedirectMatch::Ports(own.into())), straight, "attache's own port");
    }
    for ports in &options.exclude_inbound_ports {
        say(Some(RedirectMatch::Ports(ports.clone())), straight, "excluded port");
    }
    if options.include_inbound_ports.is_empty() {
        say(None, redirect, "the rest");
    }
    for ports in &options.include_inbound_ports {
        say(Some(RedirectMatch::Ports(ports.clone())), redirect, "included port");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end on what it did not expect")]

    use super::*;
    use crate::intercept::{
        iptables::{self, AddressFamily},
        nft,
    };

    #[test]
    fn by_default_everything_except_attaches_own_connections_is_redirected() {
        insta::assert_snapshot!(nft::script(&rules(&Options::default())), @r#"
        add table inet attache
        delete table inet attache
        table inet attache {
          chain output {
            type nat hook output priority -100; policy accept;
            meta l4proto != tcp accept comment "only TCP is redirected"
            meta skuid 1337 accept comment "attache itself"
            meta skgid 1337 accept comment "attache itself"
            oifname "lo" accept comment "within the pod"
            meta l4proto tcp counter redirect to :15001 comment "the rest"
          }
          chain prerouting {
            type nat hook prerouting priority -100; policy accept;
            meta l4proto != tcp accept comment "only TCP is redirected"
            iifname "lo" accept comment "within the pod"
            tcp dport 15006 accept comment "called as it is"
            tcp dport 15000 accept comment "attache's own port"
            tcp dport 15090 accept comment "attache's own port"
            meta l4proto tcp counter redirect to :15006 comment "the rest"
          }
        }
        "#);
    }

    #[test]
    fn with_an_include_list_nothing_else_is_redirected() {
        let options = Options {
            inbound_to: None,
            include_outbound_ports: vec!["80".parse().unwrap()],
            include_outbound_networks: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            exclude_outbound_networks: vec!["10.9.0.0/16".parse().unwrap()],
            exclude_interfaces: vec!["cali*".parse().unwrap()],
            ..Options::default()
        };
        insta::assert_snapshot!(iptables::script(&rules(&options), AddressFamily::V4, ""), @r#"
        *nat
        :ATTACHE_OUTPUT - [0:0]
        -A ATTACHE_OUTPUT -m owner --uid-owner 1337 -j RETURN
        -A ATTACHE_OUTPUT -m owner --gid-owner 1337 -j RETURN
        -A ATTACHE_OUTPUT -o lo -j RETURN
        -A ATTACHE_OUTPUT -o cali+ -j RETURN
        -A ATTACHE_OUTPUT -d 10.9.0.0/16 -j RETURN
        -A ATTACHE_OUTPUT -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 15001
        -A ATTACHE_OUTPUT -d 10.0.0.0/8 -p tcp -j REDIRECT --to-ports 15001
        -A OUTPUT -p tcp -j ATTACHE_OUTPUT
        COMMIT
        "#);
    }

    #[test]
    fn iptables_chains_are_emptied_and_jumped_to_once_and_other_rules_stay() {
        let saved = "*nat
:OUTPUT ACCEPT [0:0]
:ATTACHE_OUTPUT - [0:0]
:ATTACHE_PREROUTING - [0:0]
:KUBE_OUTPUT - [0:0]
-A PREROUTING -p tcp -j ATTACHE_PREROUTING
-A OUTPUT -j KUBE_OUTPUT
-A OUTPUT -p tcp -j ATTACHE_OUTPUT
-A ATTACHE_OUTPUT -o lo -j RETURN
COMMIT
";
        let options = Options { inbound_to: None, proxy_gids: Vec::new(), ..Options::default() };
        insta::assert_snapshot!(iptables::script(&rules(&options), AddressFamily::V6, saved), @r#"
        *nat
        :ATTACHE_OUTPUT - [0:0]
        :ATTACHE_PREROUTING - [0:0]
        -D OUTPUT -p tcp -j ATTACHE_OUTPUT
        -D PREROUTING -p tcp -j ATTACHE_PREROUTING
        -A ATTACHE_OUTPUT -m owner --uid-owner 1337 -j RETURN
        -A ATTACHE_OUTPUT -o lo -j RETURN
        -A ATTACHE_OUTPUT -p tcp -j REDIRECT --to-ports 15001
        -A OUTPUT -p tcp -j ATTACHE_OUTPUT
        -X ATTACHE_PREROUTING
        COMMIT
        "#);
        insta::assert_snapshot!(iptables::remove(saved).unwrap(), @r#"
        *nat
        :ATTACHE_OUTPUT - [0:0]
        :ATTACHE_PREROUTING - [0:0]
        -D OUTPUT -p tcp -j ATTACHE_OUTPUT
        -D PREROUTING -p tcp -j ATTACHE_PREROUTING
        -X ATTACHE_OUTPUT
        -X ATTACHE_PREROUTING
        COMMIT
        "#);
        assert_eq!(iptables::remove("*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"), None);
    }
}
