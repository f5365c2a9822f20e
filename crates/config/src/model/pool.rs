//! Connections to an upstream.

use super::prelude::*;

section! {
    "`pool`"
    /// Connections kept for reuse, in each worker.
    pub struct Pool: Eq {
        /// An unused connection is closed after this.
        idle_timeout: Duration as Positive = Duration::from_mins(1),
        /// Unused HTTP/1 connections kept for each endpoint in each worker.
        // As many as `max_connections` allows: a connection that is closed after a burst has to be opened again in the
        // next one.
        max_idle: usize = 1024,
        /// A connection takes no new request after this age; running ones finish. `0s` means no limit. By default `1h`
        /// where `tls` shows an own certificate, so that peers see a renewed one, and no limit elsewhere.
        #[schema(default = (), examples = ["30m"])]
        max_age: Duration as Timeout = Duration::ZERO,
        /// Requests on one connection before it is closed; 0 means no limit.
        max_requests: u64 = 0,
        /// Connections opened ahead for each endpoint.
        #[schema(maximum = 1024)]
        preconnect: usize = 0,
        /// HTTP/2 streams on one connection at once; the peer's own limit counts too.
        #[schema(minimum = 1)]
        h2_streams: u32 = 1024,
        /// HTTP/2 receive window with which streams begin.
        h2_stream_window: u32 as WindowSize = 256 << 10,
        /// The largest that a stream's receive window grows to while its reader keeps up.
        h2_stream_window_max: u32 as WindowSize = 16 << 20,
        /// The rate of HTTP/2 frames that cause work without a call, per second and connection, counted in PINGs: see [http2.md](http2.md).
        /// More than that, once the burst is used up, ends the connection with `upstream-protocol-error`.
        #[schema(minimum = 1)]
        h2_flood_rate: u32 = 20_000,
        /// How many of these frames one connection may send at once.
        #[schema(minimum = 100)]
        h2_flood_burst: u32 = 100_000,
        /// An HTTP/2 connection with open streams gets a PING after this long without a byte from the peer.
        // Without an answer to the PING the streams are reset 20 s later. gRPC servers end connections with more PINGs
        // than this default makes (gRFC A8).
        h2_keepalive: Duration as Timeout = Duration::from_mins(5),
        /// TCP keepalive starts after this long without a byte.
        tcp_keepalive: Duration as Timeout = Duration::from_mins(1),
        /// Bytes of an HTTP/1 response head; more is `upstream-protocol-error`.
        headers_size: usize as HeadSize = 60 << 10,
        /// Header lines of a response.
        #[schema(minimum = 1, maximum = 10000)]
        headers_count: usize = 100,
    }
}

impl Pool {
    /// Default of [`Self::max_age`] where an own certificate is shown.
    pub const MAX_IDENTITY_AGE: Duration = Duration::from_hours(1);
}
