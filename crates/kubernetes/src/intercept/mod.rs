//! `attache intercept`: the kernel redirects the application's TCP connections, and connections to the application, to
//! attache.
//!
//! The rules are in the NAT of a network namespace. Connections that the application opens go to attache's outbound
//! port, connections from outside go to its inbound port, and attache reads the original destination from the socket
//! (`SO_ORIGINAL_DST`). [`rules`] decides what is redirected and what is not; the other modules send the rules to the
//! kernel in one of three ways:
//!
//! - [`Backend::Netlink`]: nf_tables messages that attache itself writes. This needs no program, so it works in an
//!   image `FROM scratch`.
//! - [`Backend::Nft`]: the same ruleset as text, given to `nft`.
//! - [`Backend::Iptables`]: `iptables-restore` and `ip6tables-restore`, for kernels without nf_tables.
//!
//! Each replaces its earlier rules in one transaction: no connection ever meets only half of the rules, and a second
//! run changes nothing.

mod apply;
mod iptables;
mod kernel;
mod netlink;
mod nft;
mod options;
mod rules;

pub use apply::{Backend, BackendChoice, Error, apply, dry_run, dry_run_remove, remove};
pub use options::{Interface, Network, Options, ParseError, PortRange};
pub use rules::{NatChain, RedirectMatch, RedirectRule, RedirectVerdict, rules};

/// The nf_tables table and the prefix of the iptables chains: other rules are never changed.
pub const TABLE: &str = "attache";
