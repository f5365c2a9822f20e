//! What all code for HTTP shares: one body type, and the rules for headers between two hops.
//!
//! A request passes these in order: [`check_head`] (so that every parser reads it the same way, with one form of the path), routing, then
//! [`strip_request`], [`add_forwarded`], [`Via`], [`request_id`] and [`check_trace_context`]. A response passes [`strip_response`] and
//! [`Via`]. A response that attache makes itself comes from [`answer`].

mod abort;
mod answer;
mod authority;
mod body;
mod bounded;
mod certificate;
mod check;
mod check_head;
mod client;
mod form;
mod forwarded;
mod hop;
mod informational;
mod local_reply;
mod max_forwards;
mod method;
mod path;
pub mod pattern;
mod refusal;
mod sanitize;
pub mod time;
mod trace;
mod trailers;

pub use abort::Abort;
pub use answer::{AnswerContext, AnswerStyle, answer, answer_as_told, percent_encode};
pub use attache_telemetry::check_trace_context;
pub use authority::{CanonicalHost, HostPort, default_port, parse_authority};
pub use body::{Body, BodyError};
pub use certificate::{CLIENT_CERTIFICATE, set_client_certificate};
pub use check::{TargetForm, check_request};
pub use check_head::{CheckedHead, check_head, target_rule};
pub use client::{AcceptedTraffic, Client, VerifiedIdentity};
pub use form::form_decoded;
pub use forwarded::{Via, add_forwarded};
pub use hop::{
    CONNECTION_SPECIFIC, Upgrade, UpgradeDecision, announced_trailers, host_from_uri, strip_request,
    strip_response,
};
pub use informational::{Informational, OnInformational};
pub use local_reply::edit_local_reply;
pub use max_forwards::take_hop;
pub use path::{normalize_path, normalize_uri, set_path, without_parameters};
pub use refusal::Refusal;
pub use sanitize::{
    is_framing, is_spelling_of, remove_fields, remove_underscored, strip_response_trailers, strip_trailers,
};
pub use trace::{REQUEST_ID, new_request_id, request_id};
pub use trailers::may_have_trailers;
