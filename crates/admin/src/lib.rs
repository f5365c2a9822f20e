//! What attache offers to operators: metrics, probes, the admin API and its dashboard.
//!
//! All of it runs on the control thread and answers from snapshots and counters. No request of an operator ever reaches a worker, so even
//! many or slow ones don't disturb traffic.

mod answer;
mod api;
mod app;
mod dashboard;
mod guard;
mod pages;
mod probes;
mod query;
mod readiness;
mod server;
mod tap;

pub use api::{AdminApi, AdminTarget, Reloading, serve_api};
pub use app::AppMetricsHandle;
pub use pages::{AdminPage, serve_pages};
pub use probes::{AdminState, serve};
pub use readiness::Readiness;
