//! What the process does when it is about to run out of memory or file descriptors.

use super::prelude::*;

section! {
    "`overload`"
    /// What attache does when the container's memory or the file descriptors run out. Each share is of the limit; an action ends when 5
    /// points less are in use.
    pub struct Overload {
        /// Memory that may be used. By default the container's own limit (cgroup v2 or v1); without one, memory is not
        /// measured.
        #[schema(examples = ["256MiB"])]
        memory_limit: Option<usize> as Optional<Size> = None,
        /// The folder of the control group whose memory counts. By default that of the process, or the next above it that has a limit.
        #[schema(examples = ["/sys/fs/cgroup"])]
        cgroup: Option<PathBuf> as Optional<File> = None,
        /// Connections are closed after their answer, and idle ones at once. This includes connections to upstreams.
        disable_keepalive: f64 as Ratio = 0.85,
        /// New requests are answered 503 `overloaded`: the least urgent first, and all of them at `stop_accepting`.
        shed_requests: f64 as Ratio = 0.9,
        /// attache accepts no connection; new ones wait in the kernel's queue.
        stop_accepting: f64 as Ratio = 0.95,
        /// The header in which a request says how urgent it is: `u=0` (first) to `u=7` (last) as in RFC 9218, or the
        /// number alone. Without it, 3.
        priority_header: HeaderName as HeaderText = HeaderName::from_static("priority"),
    }
}

impl Overload {
    /// A step ends when the use is this much lower, as a share of the limit.
    pub const HYSTERESIS: f64 = 0.05;
}
