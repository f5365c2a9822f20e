//! 1xx responses on their way from an upstream to a client.

use std::{fmt, rc::Rc};

use http::{HeaderMap, StatusCode};

/// Called for every 1xx response but 100 and 101 (RFC 9110 section 15.2), in the order they came.
#[derive(Clone)]
pub struct OnInformational(Rc<PassOn>);

type PassOn = dyn Fn(StatusCode, &HeaderMap);

impl OnInformational {
    /// Wraps what passes a 1xx response on.
    pub fn new(pass_on: impl Fn(StatusCode, &HeaderMap) + 'static) -> Self {
        Self(Rc::new(pass_on))
    }

    /// Passes one on.
    pub fn call(&self, status: StatusCode, headers: &HeaderMap) {
        (self.0)(status, headers);
    }
}

impl fmt::Debug for OnInformational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnInformational")
    }
}
