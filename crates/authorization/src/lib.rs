//! Access rules: who may do what.
//!
//! An [`AccessPolicy`] is the compiled rules of a listener or of a route. It decides about [`Facts`]: one HTTP request,
//! one CONNECT, or one opaque connection. It never waits or sends.
//!
//! **Rule.** Denials come first: a request that matches a `deny` rule is refused. If there is `allow`, the request must
//! match one of its rules. Whether a rule matches has three answers ([`Truth`]): a condition on something that can't be
//! seen (the path of opaque bytes), or that two readers could read in two ways (`/a/..%2Fb`, two lines of one header),
//! is *unsure*. An unsure rule denies if it is a `deny` rule, and doesn't allow if it is an `allow` rule. So an unclear
//! request is refused by every rule that could concern it.
//!
//! **Source.** The meaning of the keys follows Istio's AuthorizationPolicy and Linkerd's AuthorizationPolicy with
//! NetworkAuthentication. The three answers are Kleene's strong logic.

mod conditions;
mod explain;
pub mod external;
mod facts;
mod forwarded;
mod header;
mod host;
pub mod jwt;
mod methods;
mod networks;
mod path;
mod policy;
mod reading;
#[cfg(test)]
mod round_tests;
#[cfg(test)]
mod testing;
mod truth;
mod value;

pub use explain::RuleResult;
pub use facts::Facts;
pub use policy::{AccessPolicy, Decision, PolicyRule};
pub use truth::Truth;
