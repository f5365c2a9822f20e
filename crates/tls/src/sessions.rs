//! The sessions that an upstream's connections resume, with a way to forget them all at once.
//!
//! The library resumes a session without a check of its certificate's validity. If one certificate has expired, so have
//! those of the other sessions that were made with it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{
    NamedGroup,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
    },
    pki_types::ServerName,
};

/// The most TLS 1.3 tickets that are kept, over all names; at most 8 per name.
const TICKETS: usize = 2048;

#[derive(Debug)]
pub(crate) struct Sessions(ArcSwap<ClientSessionMemoryCache>);

impl Sessions {
    pub(crate) fn new() -> Self {
        Self(ArcSwap::from_pointee(ClientSessionMemoryCache::new(TICKETS)))
    }

    pub(crate) fn forget(&self) {
        self.0.store(Arc::new(ClientSessionMemoryCache::new(TICKETS)));
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.0.load().set_kx_hint(name, group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.load().kx_hint(name)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.load().set_tls12_session(name, value);
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.load().tls12_session(name)
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.0.load().remove_tls12_session(name);
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.load().insert_tls13_ticket(name, value);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.load().take_tls13_ticket(name)
    }
}
