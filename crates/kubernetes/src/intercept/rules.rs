//! Which connections are redirected: the rules, as data.
//!
//! Only the first packet of a connection meets them; the kernel remembers the verdict. The first rule that matches decides.
//!
//! Outbound, as Istio and Linkerd have it:
//! 1. Only TCP. DNS over UDP is untouched.
//! 2. What attache itself opens goes straight, wherever to, so nothing can loop: not its call to an upstream, and not its
//!    hand-over of an inbound connection to the application, whose address is the pod's own.
//! 3. What stays within the pod goes straight: `localhost`, and the pod's own addresses (both leave through `lo`).
//!    The application's talk with itself is not the network's.
//! 4. What is excluded goes straight; then what is included, or all the rest, is redirected.
//!
//! Inbound: what comes in through `lo` is the pod's own; the rest as above, by the port that was called. A kubelet's probes come
//! from outside: either their port is excluded, or attache is what they meet.

use super::options::{Interface, Network, Options, PortRange};

/// Where a rule stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Connections that processes of this namespace open.
    Output,
    /// Connections that come in.
    Prerouting,
}

/// What a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
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

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes where it was meant to.
    Straight,
    /// It goes to this port of the namespace.
    Redirect(u16),
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where it stands.
    pub chain: Chain,
    /// What it is about; `None` is every connection that came as far as this.
    pub matches: Option<Match>,
    /// What it says.
    pub verdict: Verdict,
    /// Why, as a comment in lists of the rules.
    pub why: &'static str,
}

/// The rules for these options, in order.
pub fn rules(options: &Options) -> Vec<Rule> {
    let mut all = Vec::new();
    if let Some(port) = options.outbound_to {
        outbound(options, port, &mut all);
    }
    if let Some(port) = options.inbound_to {
        inbound(options, port, &mut all);
    }
    all
}

fn outbound(options: &Options, port: u16, all: &mut Vec<Rule>) {
    let redirect = Verdict::Redirect(port);
    let mut say = |matches: Option<Match>, verdict, why| {
        all.push(Rule { chain: Chain::Output, matches, verdict, why });
    };
    let straight = Verdict::Straight;
    say(Some(Match::NotTcp), straight, "only TCP is redirected");
    for &uid in &options.proxy_uids {
        say(Some(Match::User(uid)), straight, "attache itself");
    }
    for &gid in &options.proxy_gids {
        say(Some(Match::Group(gid)), straight, "attache itself");
    }
    say(Some(Match::Interface(Interface::loopback())), straight, "within the pod");
    for &uid in &options.exclude_uids {
        say(Some(Match::User(uid)), straight, "excluded user");
    }
    for &gid in &options.exclude_gids {
        say(Some(Match::Group(gid)), straight, "excluded group");
    }
    for interface in &options.exclude_interfaces {
        say(Some(Match::Interface(interface.clone())), straight, "excluded interface");
    }
    for ports in &options.exclude_outbound_ports {
        say(Some(Match::Ports(ports.clone())), straight, "excluded port");
    }
    for network in &options.exclude_outbound_networks {
        say(Some(Match::Network(*network)), straight, "excluded network");
    }
    if options.include_outbound_ports.is_empty() && options.include_outbound_networks.is_empty() {
        say(None, redirect, "the rest");
    }
    for ports in &options.include_outbound_ports {
        say(Some(Match::Ports(ports.clone())), redirect, "included port");
    }
    for network in &options.include_outbound_networks {
        say(Some(Match::Network(*network)), redirect, "included network");
    }
}

fn inbound(options: &Options, port: u16, all: &mut Vec<Rule>) {
    let redirect = Verdict::Redirect(port);
    let straight = Verdict::Straight;
    let mut say = |matches: Option<Match>, verdict, why| {
        all.push(Rule { chain: Chain::Prerouting, matches, verdict, why });
    };
    say(Some(Match::NotTcp), straight, "only TCP is redirected");
    say(Some(Match::Interface(Interface::loopback())), straight, "within the pod");
    for interface in &options.exclude_interfaces {
        say(Some(Match::Interface(interface.clone())), straight, "excluded interface");
    }
    say(Some(Match::Ports(port.into())), straight, "called as it is");
    for own in Options::OWN_PORTS {
        say(Some(Match::Ports(own.into())), straight, "attache's own port");
    }
    for ports in &options.exclude_inbound_ports {
        say(Some(Match::Ports(ports.clone())), straight, "excluded port");
    }
    if options.include_inbound_ports.is_empty() {
        say(None, redirect, "the rest");
    }
    for ports in &options.include_inbound_ports {
        say(Some(Match::Ports(ports.clone())), redirect, "included port");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end on what it did not expect")]

    use super::*;
    use crate::intercept::{
        iptables::{self, Family},
        nft,
    };

    #[test]
    fn by_default_everything_but_its_own_is_redirected() {
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
    fn what_is_included_replaces_the_rest() {
        let options = Options {
            inbound_to: None,
            include_outbound_ports: vec!["80".parse().unwrap()],
            include_outbound_networks: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            exclude_outbound_networks: vec!["10.9.0.0/16".parse().unwrap()],
            exclude_interfaces: vec!["cali*".parse().unwrap()],
            ..Options::default()
        };
        insta::assert_snapshot!(iptables::script(&rules(&options), Family::V4, ""), @r#"
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
    fn iptables_chains_are_emptied_and_jumped_to_once_and_strangers_are_left_alone() {
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
        insta::assert_snapshot!(iptables::script(&rules(&options), Family::V6, saved), @r#"
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
