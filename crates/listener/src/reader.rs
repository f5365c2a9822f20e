//! What the server of a connection knows about its client.

use std::rc::Rc;

use attache_http::Client;
use attache_telemetry::Exchange;

use crate::{registry::OpenConnection, request::ListenerSettings};

/// What a connection's server needs to know about it.
pub(crate) struct ServingContext {
    pub(crate) settings: Rc<ListenerSettings>,
    pub(crate) client: Rc<Client>,
    pub(crate) live: Rc<OpenConnection>,
    /// Why the client is not allowed, in a text that names its identity.
    pub(crate) denied: Option<Box<str>>,
}

impl ServingContext {
    /// A record of this connection, or of a request on it.
    #[inline]
    pub(crate) fn exchange(&self, protocol: &'static str) -> Rc<Exchange> {
        // The record is put into its final place at once, because it is large to copy.
        let exchange = Exchange::new(self.settings.listener.name.clone(), protocol, self.client.address);
        let exchange = Rc::new(exchange);
        // The reference count of this copy stays on this worker.
        *exchange.identity.borrow_mut() = self.client.identity();
        exchange
    }
}
