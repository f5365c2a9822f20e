//! Sessions by a cookie (`session_cookie`): reads the cookie of a request, and makes the cookie of a response.
//!
//! The value of the cookie is an endpoint, encrypted ([`SessionSeal`]). That endpoint is searched among those of the route's upstream; any
//! other value counts as none. The cookie is set again whenever another endpoint has answered.

use std::{fmt::Write as _, rc::Rc, sync::Arc};

use attache_config::model::{Forward, SessionCookie, Subset};
use attache_telemetry::Exchange;
use attache_upstream::{Affinity, SessionSeal, cookie, session_of};
use attache_wire::{Fields, header::SET_COOKIE};
use http::HeaderValue;

/// What a route wants for the choice of endpoints.
#[derive(Debug, Default)]
pub(super) struct RouteAffinity {
    subset: Option<Arc<Subset>>,
    /// The affinity of a call without a session, made once.
    plain: Option<Rc<Affinity>>,
    cookie: Option<Rc<SessionCipher>>,
}

/// A cookie, and the key for its values.
#[derive(Debug)]
struct SessionCipher {
    config: Arc<SessionCookie>,
    seal: SessionSeal,
}

/// What is known about a request's session, for its response.
#[derive(Debug)]
pub(super) struct RequestSession {
    cookie: Rc<SessionCipher>,
    came: Option<u64>,
    tls: bool,
}

impl RouteAffinity {
    pub(super) fn of(forward: &Forward) -> Self {
        let subset = forward.subset.clone();
        let plain =
            subset.clone().map(|subset| Rc::new(Affinity { subset: Some(subset), ..Affinity::default() }));
        let cookie = forward.session_cookie.clone().map(|config| {
            let seal = SessionSeal::new(&config);
            Rc::new(SessionCipher { config, seal })
        });
        Self { subset, plain, cookie }
    }

    /// For opaque bytes, which have no cookie.
    pub(super) fn of_connection(&self) -> Option<Rc<Affinity>> {
        self.plain.clone()
    }

    /// For a request with this path.
    #[inline]
    pub(super) fn of_request(
        &self,
        headers: &Fields,
        path: &str,
        tls: bool,
    ) -> (Option<Rc<Affinity>>, Option<Box<RequestSession>>) {
        match &self.cookie {
            Some(cookie) if is_below(path, &cookie.config.path) => self.with_session(cookie, headers, tls),
            _ => (self.plain.clone(), None),
        }
    }

    fn with_session(
        &self,
        named: &Rc<SessionCipher>,
        headers: &Fields,
        tls: bool,
    ) -> (Option<Rc<Affinity>>, Option<Box<RequestSession>>) {
        let config = &named.config;
        let came = cookie(headers, &config.name).and_then(|value| named.seal.open(value));
        let affinity = Affinity { subset: self.subset.clone(), session: came, strict: config.strict };
        (Some(Rc::new(affinity)), Some(Box::new(RequestSession { cookie: named.clone(), came, tls })))
    }
}

impl RequestSession {
    /// Sets the cookie if the session is with another endpoint than the request's cookie says.
    pub(super) fn tell(&self, exchange: &Exchange, headers: &mut Fields) {
        let Some(endpoint) = exchange.endpoint.borrow().clone() else { return };
        if self.came == Some(session_of(&endpoint)) {
            return;
        }
        let Some(sealed) = self.cookie.seal.seal(&endpoint) else { return };
        let SessionCookie { name, path, ttl, .. } = &*self.cookie.config;
        let mut value = format!("{name}={sealed}; Path={path}");
        if let Some(ttl) = ttl {
            // Writing to a String never fails.
            let _ = write!(value, "; Max-Age={}", ttl.as_secs().max(1));
        }
        value.push_str("; HttpOnly; SameSite=Lax");
        if self.tls {
            value.push_str("; Secure");
        }
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.append(SET_COOKIE, value);
        }
    }
}

/// Whether the path matches a cookie's path (RFC 6265 section 5.1.4).
fn is_below(path: &str, prefix: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_s_path_ends_at_a_segment() {
        for (path, prefix, below) in [
            ("/", "/", true),
            ("/a", "/", true),
            ("/shop", "/shop", true),
            ("/shop/x", "/shop", true),
            ("/shopping", "/shop", false),
            ("/", "/shop", false),
        ] {
            assert_eq!(is_below(path, prefix), below, "{path} {prefix}");
        }
    }
}
