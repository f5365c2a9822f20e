//! Finds the route of a request or connection, and applies what the route says.
//!
//! [`RouteTable::new`] compiles the routes of a listener; [`RouteTable::find_http`] and [`RouteTable::find_tcp`] return
//! the most specific one that matches; [`CompiledRoute`] chooses the destination ([`CompiledRoute::choose`]) and
//! rewrites the request ([`CompiledRoute::prepare_request`]). [`explain`] shows how a request would be routed, and why.
//! docs/routing.md says which of two routes is the more specific.

mod access;
#[cfg(test)]
mod condition_tests;
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

pub use access::AccessExplanation;
pub use edits::{ReadyEdits, TemplateContext};
pub use explain::{
    ConsideredRoute, DestinationShare, Explanation, RouteOutcome, RouteVerdict, explain, explain_tcp,
};
pub use facts::{NamedHost, RequestFacts};
pub use orphans::orphaned;
pub use rewrite::Captures;
pub use route::{CompiledRoute, RouteAction, RouteId, mirrors};
pub use summary::summary;
pub use table::{MatchedRoute, RouteTable};
pub use upstream_host::UpstreamHost;
pub use words::show_edits;
