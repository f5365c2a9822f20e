//! Series with several cells, which are written together. Several metrics of the page are read from each of them.

use super::{cell, exemplars, histogram, series::families};

families! { pub(super) Families, Tables {
    /// By listener, route, upstream, protocol, class of the status, and reason.
    exchanges: 6, cell::ALL;
    /// By listener and protocol.
    in_flight: 2, 1;
    /// By listener, route, upstream, protocol, and class of the status.
    exemplars: 5, exemplars::CELLS;
    /// By upstream and step.
    connects: 2, histogram::CELLS;
    /// By listener: how many were opened, and how many are open now.
    connections: 1, 2;
    /// By upstream: how many were opened, and how many are open now.
    upstream_connections: 1, 2;
    /// By upstream and endpoint, while a client asks for it. It is never on the page of metrics, because the number of endpoints has no
    /// limit.
    endpoints: 2, cell::ENDPOINT;
} }
