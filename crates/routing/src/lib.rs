//! A request or connection to its route, and what the route does to it.
//!
//! [`RouteTable::new`] compiles the routes of a listener; [`RouteTable::find_http`] and [`RouteTable::find_tcp`] give the most
//! specific that matches; [`CompiledRoute`] says where to ([`CompiledRoute::choose`]) and rewrites what is sent
//! ([`CompiledRoute::prepare_request`]). [`explain`] tells how a request would be routed, and why. Which of two
//! routes is the more specific is written in `docs/routing.md`.

mod access;
mod conditions;
mod doubt;
mod edits;
mod explain;
#[cfg(test)]
mod explain_tests;
mod explanation_text;
mod facts;
mod host;
mod named;
mod orphans;
mod path;
mod precedence;
mod required_by_rules;
mod respond;
mod rewrite;
mod route;
mod summary;
mod table;
#[cfg(test)]
mod testing;
mod text_map;
mod upstream_host;
mod words;

pub use access::Access;
pub use edits::{Ctx, ReadyEdits};
pub use explain::{Candidate, Explanation, Outcome, Share, Verdict, explain, explain_tcp};
pub use facts::{Named, RequestFacts};
pub use orphans::orphaned;
pub use rewrite::Captures;
pub use route::{CompiledRoute, RouteId, Step, mirrors};
pub use summary::summary;
pub use table::{Matched, RouteTable};
pub use upstream_host::UpstreamHost;
pub use words::show_edits;
