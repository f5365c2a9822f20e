//! What operators ask attache: metrics, probes, and the admin API.
//!
//! All of it runs on the control thread and answers from snapshots and counters. No request of an operator, however many or
//! slow, ever touches a worker.

mod answer;
mod api;
mod app;
mod guard;
mod probes;
mod readiness;
mod server;

pub use api::{Api, serve_api};
pub use app::App;
pub use probes::{AdminState, serve};
pub use readiness::Readiness;
