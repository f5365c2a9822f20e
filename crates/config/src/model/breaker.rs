//! When an upstream, or one of its endpoints, gets no more calls.

use super::prelude::*;

section! {
    "`circuit_breaker`"
    /// Concurrency limits over all workers. Calls above a limit are answered 503 at once.
    // Envoy's circuit breakers, with its defaults.
    pub struct CircuitBreaker {
        /// Connections at once. If a call needs another connection, an idle one of any worker is closed.
        #[schema(minimum = 1)]
        max_connections: u32 = 1024,
        /// Requests that wait for a connection.
        max_pending: u32 = 1024,
        /// Requests at once. While more than three quarters are in use, requests whose client reads nothing for a second are
        /// reset.
        #[schema(minimum = 1)]
        max_requests: u32 = 1024,
        /// The most requests of one client at once. A client is an IPv4 address or a /64 of IPv6. Further requests are answered 429
        /// `overflow-client`. Without this key one client may use all of `max_requests`, because one address often stands for many clients:
        /// a load balancer, or the application itself.
        #[schema(minimum = 1, examples = [100])]
        max_requests_per_client: Option<u32> as Optional<Plain> = None,
        /// Retries at once. A budget replaces this limit.
        max_retries: u32 = 3,
        /// A breaker that opens when the whole upstream fails. Without this key there is none: ejection handles single endpoints, and a
        /// breaker over all of them turns a partial outage into a whole one. `{}` has every default.
        #[schema(examples = [json!({ "success_rate": "20%" })])]
        failures: Option<FailureBreaker> as Optional<Plain> = None,
        /// Stops calls to a failing endpoint, then lets probes through, and resumes calls when all of them succeed. Ejection
        /// resumes by time. Off without it; `{}` has every default.
        #[schema(examples = [json!({ "consecutive": 5 })])]
        endpoint_failures: Option<FailureBreaker> as Optional<Plain> = None,
    }
}

impl HasOff for CircuitBreaker {
    fn off() -> Self {
        let most = u32::MAX;
        Self {
            max_connections: most,
            max_pending: most,
            max_requests: most,
            max_retries: most,
            ..Self::default()
        }
    }
}

section! {
    "`failures`"
    /// A failure breaker, of a whole upstream (`failures`) or of each endpoint (`endpoint_failures`).
    // While that of an upstream is open, calls are answered at once with `circuit-open`; an endpoint is left out.
    pub struct FailureBreaker {
        /// Failures in a row that open it; 0 is off.
        consecutive: u32 = 20,
        /// It opens when fewer than this share of the window's calls succeed; 0 is off.
        success_rate: f64 as Ratio = 0.5,
        /// The sliding window of `success_rate`; at least 10 ms.
        window: Duration as Window = Duration::from_secs(10),
        /// Calls in the window before their rate counts.
        min_samples: u32 = 50,
        /// First open time, doubled each time its probes fail, and up to 20 % longer at random.
        open: Duration as Positive = Duration::from_secs(1),
        /// Longest open time, before the random part.
        open_max: Duration as Positive = Duration::from_mins(1),
        /// Calls let through after the open time, all of which must succeed.
        #[schema(minimum = 1)]
        probes: u16 = 3,
    }
    then Self::lengthen
}

impl FailureBreaker {
    /// If the file gives only a longer first open time, the longest one becomes as long.
    fn lengthen(&mut self) {
        self.open_max = self.open_max.max(self.open);
    }
}
