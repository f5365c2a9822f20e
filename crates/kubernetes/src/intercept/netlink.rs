//! The rules as nf_tables messages in one batch, as `nft` would send them for [`super::nft`]'s script.
//!
//! Sources: the kernel's `include/uapi/linux/netfilter/nf_tables.h` and `nfnetlink.h`, from which all numbers here are; RFC 3549
//! for netlink's headers. Lengths and types of netlink are in the host's byte order, nf_tables' own numbers in the network's.

use std::net::IpAddr;

use super::{
    TABLE,
    options::{Network, PortRange},
    rules::{NatChain, RedirectMatch, RedirectRule, RedirectVerdict},
};

/// Messages that the kernel executes as a whole or not at all.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Ready to be sent at once.
    pub(crate) bytes: Vec<u8>,
    /// The meaning of each message, by its sequence number.
    pub(crate) about: Vec<String>,
}

mod kind {
    pub(super) const NEW_TABLE: u8 = 0;
    pub(super) const DELETE_TABLE: u8 = 2;
    pub(super) const NEW_CHAIN: u8 = 3;
    pub(super) const NEW_RULE: u8 = 6;
}

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NFNL_SUBSYS_NFTABLES`
const NF_TABLES: u16 = 10;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// `NFPROTO_INET`: IPv4 and IPv6 in one table (NAT since Linux 5.2).
const INET: u8 = 1;
const NESTED: u16 = 0x8000;
/// `NFT_REG_1`: 16 bytes, enough for an IPv6 address.
const REGISTER: u32 = 1;
const TCP: u8 = 6;

/// Replaces the content of the table.
pub(crate) fn batch(rules: &[RedirectRule]) -> Batch {
    let mut batch = Batch::begin();
    batch.clear_table();
    batch.message(kind::NEW_TABLE, CREATE, format!("add table inet {TABLE}"), |m| {
        m.text(1, TABLE);
        m.number(2, 0);
    });
    for (chain, name, hook) in [(NatChain::Output, "output", 3), (NatChain::Prerouting, "prerouting", 0)] {
        let mut own = rules.iter().filter(|rule| rule.chain == chain).peekable();
        if own.peek().is_none() {
            continue;
        }
        batch.message(kind::NEW_CHAIN, CREATE, format!("add chain inet {TABLE} {name} (nat)"), |m| {
            m.text(1, TABLE);
            m.text(3, name);
            m.nested(4, |m| {
                m.number(1, hook);
                // NF_IP_PRI_NAT_DST
                m.number(2, (-100_i32).cast_unsigned());
            });
            // NF_ACCEPT
            m.number(5, 1);
            m.text(7, "nat");
        });
        for rule in own {
            batch.message(kind::NEW_RULE, CREATE | APPEND, super::nft::statement(rule), |m| {
                m.text(1, TABLE);
                m.text(2, name);
                m.nested(4, |m| expressions(m, rule));
                // What `nft` shows as `comment`: type 0, length, text with its zero.
                let why = rule.why.as_bytes();
                let length = u8::try_from(why.len() + 1).unwrap_or(u8::MAX);
                m.attribute(7, &[&[0, length], why, &[0]].concat());
            });
        }
    }
    batch.end()
}

/// Deletes the table, also if there is none.
pub(crate) fn remove() -> Batch {
    let mut batch = Batch::begin();
    batch.clear_table();
    batch.end()
}

impl Batch {
    fn begin() -> Self {
        let mut batch = Self { bytes: Vec::new(), about: Vec::new() };
        batch.header(BATCH_BEGIN, REQUEST, 0, NF_TABLES, "begin a change".into(), |_| {});
        batch
    }

    fn end(mut self) -> Self {
        self.header(BATCH_END, REQUEST, 0, NF_TABLES, "end the change".into(), |_| {});
        self
    }

    /// Adding an existing table changes nothing, so the table is added first: then deleting it can't fail.
    fn clear_table(&mut self) {
        let name = |m: &mut NetlinkMessage<'_>| m.text(1, TABLE);
        self.message(kind::NEW_TABLE, CREATE, format!("add table inet {TABLE}"), name);
        self.message(kind::DELETE_TABLE, 0, format!("delete table inet {TABLE}"), name);
    }

    fn message(&mut self, kind: u8, flags: u16, about: String, fill: impl FnOnce(&mut NetlinkMessage<'_>)) {
        self.header((NF_TABLES << 8) | u16::from(kind), REQUEST | ACK | flags, INET, 0, about, fill);
    }

    fn header(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        about: String,
        fill: impl FnOnce(&mut NetlinkMessage<'_>),
    ) {
        let start = self.bytes.len();
        let sequence = self.about.len() as u32;
        self.about.push(about);
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        // Port 0: the kernel is the receiver, and fills in the sender.
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        fill(&mut NetlinkMessage(&mut self.bytes));
        let length = (self.bytes.len() - start) as u32;
        if let Some(place) = self.bytes.get_mut(start..start + 4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
    }
}

/// The attributes of a message, as they are written.
struct NetlinkMessage<'a>(&'a mut Vec<u8>);

impl NetlinkMessage<'_> {
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.0.extend((value.len() as u16 + 4).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.pad();
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat());
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut NetlinkMessage<'_>)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((kind | NESTED).to_ne_bytes());
        fill(&mut NetlinkMessage(self.0));
        let length = (self.0.len() - start) as u16;
        if let Some(place) = self.0.get_mut(start..start + 2) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut NetlinkMessage<'_>)) {
        self.nested(1, |m| {
            m.text(1, name);
            m.nested(2, fill);
        });
    }

    fn data(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |m| m.attribute(1, value));
    }

    /// Loads a property of the packet into the register.
    fn meta(&mut self, key: u32) {
        self.expression("meta", |m| {
            m.number(1, REGISTER);
            m.number(2, key);
        });
    }

    /// Loads bytes of a header: 1 is the network's, 2 the transport's.
    fn payload(&mut self, header: u32, offset: u32, length: u32) {
        self.expression("payload", |m| {
            m.number(1, REGISTER);
            m.number(2, header);
            m.number(3, offset);
            m.number(4, length);
        });
    }

    fn equal(&mut self, value: &[u8]) {
        self.compare(0, value);
    }

    fn compare(&mut self, operation: u32, value: &[u8]) {
        self.expression("cmp", |m| {
            m.number(1, REGISTER);
            m.number(2, operation);
            m.data(3, value);
        });
    }
}

/// `enum nft_meta_keys`
mod meta {
    pub(super) const IIFNAME: u32 = 6;
    pub(super) const OIFNAME: u32 = 7;
    pub(super) const SKUID: u32 = 10;
    pub(super) const SKGID: u32 = 11;
    pub(super) const NFPROTO: u32 = 15;
    pub(super) const L4PROTO: u32 = 16;
}

fn expressions(m: &mut NetlinkMessage<'_>, rule: &RedirectRule) {
    let tcp = |m: &mut NetlinkMessage<'_>| {
        m.meta(meta::L4PROTO);
        m.equal(&[TCP]);
    };
    match &rule.matches {
        None => {}
        Some(RedirectMatch::NotTcp) => {
            m.meta(meta::L4PROTO);
            m.compare(1, &[TCP]);
        }
        Some(RedirectMatch::User(uid)) => {
            m.meta(meta::SKUID);
            m.equal(&uid.to_ne_bytes());
        }
        Some(RedirectMatch::Group(gid)) => {
            m.meta(meta::SKGID);
            m.equal(&gid.to_ne_bytes());
        }
        Some(RedirectMatch::Interface(interface)) => {
            m.meta(if rule.chain == NatChain::Output { meta::OIFNAME } else { meta::IIFNAME });
            let (name, any_rest) = interface.parts();
            let mut name = name.as_bytes().to_vec();
            if !any_rest {
                // IFNAMSIZ, filled up with zeros
                name.resize(16, 0);
            }
            m.equal(&name);
        }
        Some(RedirectMatch::Ports(PortRange(ports))) => {
            tcp(m);
            m.payload(2, 2, 2);
            let (first, last) = (ports.start().to_be_bytes(), ports.end().to_be_bytes());
            if first == last {
                m.equal(&first);
            } else {
                m.expression("range", |m| {
                    m.number(1, REGISTER);
                    m.number(2, 0);
                    m.data(3, &first);
                    m.data(4, &last);
                });
            }
        }
        Some(RedirectMatch::Network(network)) => destination(m, *network),
    }
    match rule.verdict {
        RedirectVerdict::Straight => m.expression("immediate", |m| {
            // The verdict's register.
            m.number(1, 0);
            m.nested(2, |m| m.nested(2, |m| m.number(1, 1)));
        }),
        RedirectVerdict::Redirect(port) => {
            if !matches!(rule.matches, Some(RedirectMatch::Ports(_))) {
                tcp(m);
            }
            m.expression("counter", |_| {});
            m.expression("immediate", |m| {
                m.number(1, REGISTER);
                m.data(2, &port.to_be_bytes());
            });
            m.expression("redir", |m| m.number(1, REGISTER));
        }
    }
}

fn destination(m: &mut NetlinkMessage<'_>, network: Network) {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let address = octets(network.address());
    // The position of the destination in each header (RFC 791 section 3.1, RFC 8200 section 3), and NFPROTO_IPV4,
    // NFPROTO_IPV6.
    let (family, offset) = if network.address().is_ipv4() { (2, 16) } else { (10, 24) };
    m.meta(meta::NFPROTO);
    m.equal(&[family]);
    if network.is_whole_family() {
        return;
    }
    m.payload(1, offset, address.len() as u32);
    if usize::from(network.prefix()) < address.len() * 8 {
        m.expression("bitwise", |m| {
            m.number(1, REGISTER);
            m.number(2, REGISTER);
            m.number(3, address.len() as u32);
            m.data(4, &octets(network.mask()));
            m.data(5, &vec![0; address.len()]);
        });
    }
    m.equal(&address);
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test may end on what it did not expect"
    )]

    use super::*;
    use crate::intercept::{Options, rules};

    /// Every message, and every attribute, begins where the one before ends, as the kernel reads them.
    fn walk(bytes: &[u8], depth: usize) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = usize::from(u16::from_ne_bytes(rest[..2].try_into().unwrap()));
            let kind = u16::from_ne_bytes(rest[2..4].try_into().unwrap());
            assert!(length >= 4 && length <= rest.len(), "{length} of {}", rest.len());
            if kind & NESTED != 0 {
                assert!(depth < 8);
                walk(&rest[4..length], depth + 1);
            }
            rest = &rest[length.next_multiple_of(4)..];
        }
    }

    #[test]
    fn every_length_is_right() {
        let options = Options {
            exclude_outbound_networks: vec!["10.0.0.0/9".parse().unwrap(), "::/0".parse().unwrap()],
            exclude_outbound_ports: vec!["1-2".parse().unwrap()],
            exclude_interfaces: vec!["cali*".parse().unwrap()],
            ..Options::default()
        };
        let batch = batch(&rules(&options));
        let (mut rest, mut messages) = (batch.bytes.as_slice(), 0);
        while !rest.is_empty() {
            let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
            assert_eq!(u32::from_ne_bytes(rest[8..12].try_into().unwrap()), messages);
            assert!(length.is_multiple_of(4));
            walk(&rest[20..length], 0);
            rest = &rest[length..];
            messages += 1;
        }
        assert_eq!(messages as usize, batch.about.len());
    }
}
