//! attache's own small calls: one HTTP client, one HTTP server, and gRPC messages, each limited in time and memory.
//!
//! - [`client`] makes one request on a connection of its own, or keeps a connection: Kubernetes' API, health checks,
//!   exports to collectors, the application's probes and metrics, the SPIFFE Workload API.
//! - [`server`] answers operators, the kubelet and Kubernetes' API server.
//! - [`grpc`] has the frames, the status and the health messages of gRPC, for clients of any kind.
//! - [`UpstreamService`] calls an upstream of the config through all layers of that upstream: authorizers, rate limits.
//!
//! A peer can't make attache use more memory or time than the caller's limits allow. Requests of applications never pass here: they go
//! through the pipe and `attache-wire`.

pub mod client;
pub mod grpc;
mod io;
pub mod server;
mod service;
pub mod timeout;

pub use io::Io;
pub use service::{CallRequest, CallResponse, UpstreamService};
