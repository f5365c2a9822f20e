//! Which certificate a client is shown.
//!
//! Rule: first the certificates for exactly the requested name, then those whose wildcard covers it (one label, RFC
//! 9525 section 6.3), then all in the order of the config; among them the first whose key type the client can verify.
//! If there is none, the first of all: the client's error is then clearer than a refusal without a certificate.

use std::{cell::Cell, collections::HashMap, sync::Arc};

use rustls::{
    SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::loaded::LoadedCertificate;

thread_local! {
    /// The certificate that the handshake which is being polled got.
    pub(crate) static SHOWN: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The certificates of one listener, by name.
#[derive(Debug)]
pub(crate) struct ByName {
    identities: Vec<LoadedCertificate>,
    exact: HashMap<String, Vec<usize>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Vec<usize>>,
}

impl ByName {
    pub(crate) fn new(identities: Vec<LoadedCertificate>) -> Self {
        let mut this = Self { identities, exact: HashMap::new(), wildcard: HashMap::new() };
        for (at, identity) in this.identities.iter().enumerate() {
            for name in &identity.leaf.dns {
                let name = name.to_ascii_lowercase();
                match name.strip_prefix("*.") {
                    Some(rest) => this.wildcard.entry(rest.to_owned()).or_default().push(at),
                    None => this.exact.entry(name).or_default().push(at),
                }
            }
        }
        this
    }

    pub(crate) fn get(&self, at: usize) -> Option<&LoadedCertificate> {
        self.identities.get(at)
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> usize {
        let name = name.map(str::to_ascii_lowercase);
        let exact = name.as_ref().and_then(|name| self.exact.get(name));
        let wildcard =
            name.as_ref().and_then(|name| name.split_once('.')).and_then(|(_, rest)| self.wildcard.get(rest));
        let named = exact.into_iter().chain(wildcard).flatten().copied();
        named
            .chain(0..self.identities.len())
            .find(|at| self.get(*at).is_some_and(|own| own.key.key.choose_scheme(schemes).is_some()))
            .unwrap_or(0)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let at = self.choose(hello.server_name(), hello.signature_schemes());
        SHOWN.set(Some(at));
        self.get(at).map(|own| own.key.clone())
    }
}
