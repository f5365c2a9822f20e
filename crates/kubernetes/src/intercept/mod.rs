//! `attache intercept`: the kernel redirects the application's TCP connections to attache, and those to the application.
//!
//! The rules live in a network namespace's NAT: what the application opens goes to attache's outbound port, what comes in
//! from outside to its inbound port, and attache reads the destination that was meant from the socket (`SO_ORIGINAL_DST`).
//! [`rules`] decides what is redirected and what is not; the rest carries that to the kernel in one of three ways:
//!
//! - [`Backend::Netlink`]: nf_tables messages written by ourselves. Needs no program, so it works in an image `FROM scratch`.
//! - [`Backend::Nft`]: the same ruleset as text, given to `nft`.
//! - [`Backend::Iptables`]: `iptables-restore` and `ip6tables-restore`, for kernels without nf_tables.
//!
//! Each replaces what it made before in one transaction: connections never meet half of the rules, and doing it twice
//! changes nothing.

mod apply;
mod iptables;
mod kernel;
mod netlink;
mod nft;
mod options;
mod rules;

pub use apply::{Backend, BackendChoice, Error, apply, dry_run, dry_run_remove, remove};
pub use options::{Interface, Network, Options, ParseError, PortRange};
pub use rules::{Chain, Match, Rule, Verdict, rules};

/// The nf_tables table and the prefix of the iptables chains: other rules are never changed.
pub const TABLE: &str = "attache";
