//! Commands that ask a running attache: thin clients of its probes and its admin API.

mod http;
mod ready;

pub(crate) use http::Target;
pub(crate) use ready::wait as wait_ready;
