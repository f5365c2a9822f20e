//! attache's own calls to services that it asks something: one message or request, one answer that is read whole.
//!
//! A [`Service`] is an upstream of the config with its layers, so its pool, TLS, limits, breaker and ejection are those
//! of its config. [`Service::unary`] is a gRPC call (gRPC over HTTP2, "Length-Prefixed-Message"), [`Service::ask`] an
//! HTTP request. An answer that is longer than the caller wants, or that comes too late, is an error: nothing that a
//! service does can take more memory or time than that.

mod frame;
mod service;
pub mod timeout;

pub use service::{Answer, Service};
