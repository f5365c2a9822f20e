//! What the process does when it is about to run out of memory or file descriptors.

use std::path::PathBuf;

use http::HeaderName;

/// Overload protection (Envoy's overload manager, with fixed actions).
#[derive(Clone, Debug, PartialEq)]
pub struct Overload {
    /// Bytes that may be used; `None` is the container's own limit.
    pub memory_limit: Option<usize>,
    /// The folder of the control group whose memory counts; `None` is the process's own.
    pub cgroup: Option<PathBuf>,
    /// From this share on, connections are closed after their answer, and idle ones at once, to clients and upstreams. Default 0.85.
    pub disable_keepalive: f64,
    /// From here on, new requests are refused, the least urgent first; at `stop_accepting` all of them. Default 0.9.
    pub shed_requests: f64,
    /// From here on, no connection is accepted; those that come wait in the kernel's queue. Default 0.95.
    pub stop_accepting: f64,
    /// Where a request says its urgency, as in [`super::Queue::priority_header`]. Default `priority`.
    pub priority_header: HeaderName,
}

impl Overload {
    /// What was begun ends when this much less is in use, as a share of the limit.
    pub const HYSTERESIS: f64 = 0.05;
}

impl Default for Overload {
    fn default() -> Self {
        Self {
            memory_limit: None,
            cgroup: None,
            disable_keepalive: 0.85,
            shed_requests: 0.9,
            stop_accepting: 0.95,
            priority_header: HeaderName::from_static("priority"),
        }
    }
}
