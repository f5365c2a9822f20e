//! The data that the span and the log record of an exchange have in common. It is taken when the exchange ends, because the export happens
//! later and on another thread.

use std::{net::SocketAddr, time::Duration};

use attache_config::model::Name;

use crate::{Exchange, Reason};

/// A finished exchange.
#[derive(Debug)]
pub(crate) struct ExchangeSnapshot {
    pub(crate) total: Duration,
    pub(crate) listener: Name,
    pub(crate) protocol: &'static str,
    pub(crate) client: Option<SocketAddr>,
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) request_id: String,
    pub(crate) route: Option<Name>,
    pub(crate) upstream: Option<Name>,
    pub(crate) attempts: u32,
    pub(crate) status: u16,
    pub(crate) reason: Option<Reason>,
    pub(crate) detail: Option<String>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

impl ExchangeSnapshot {
    pub(crate) fn of(exchange: &Exchange, total: Duration) -> Self {
        Self {
            total,
            listener: Name::clone(&exchange.listener),
            protocol: exchange.protocol,
            client: exchange.client,
            method: exchange.method.borrow().to_string(),
            host: exchange.host.borrow().to_string(),
            path: exchange.path.borrow().to_string(),
            request_id: exchange.request_id.borrow().to_string(),
            route: exchange.route.borrow().clone(),
            upstream: exchange.upstream.borrow().clone(),
            attempts: exchange.attempts.get(),
            status: exchange.status.get(),
            reason: exchange.reason.get(),
            detail: exchange.detail.borrow().clone(),
            received: exchange.received.get(),
            sent: exchange.sent.get(),
        }
    }
}
