//! 1xx responses on their way from an upstream to a client.

use std::{fmt, rc::Rc};

use attache_wire::{Fields, header::CONTENT_LENGTH};
use http::{HeaderName, StatusCode};

use crate::{remove_fields, strip_response};

/// Called for every 1xx response except 100 and 101 (RFC 9110 section 15.2), in the order of their arrival.
#[derive(Clone)]
pub struct OnInformational {
    to: Rc<dyn Informational>,
    request: u64,
    withheld: Option<Rc<[HeaderName]>>,
}

/// A connection that passes 1xx responses on to its client.
pub trait Informational {
    /// Passes on a 1xx response to this request.
    fn pass_on(&self, request: u64, status: StatusCode, headers: &Fields);
}

impl<F: Fn(StatusCode, &Fields)> Informational for F {
    fn pass_on(&self, _: u64, status: StatusCode, headers: &Fields) {
        self(status, headers);
    }
}

impl OnInformational {
    /// Wraps a function that passes a 1xx response on.
    pub fn new(pass_on: impl Fn(StatusCode, &Fields) + 'static) -> Self {
        Self::of(Rc::new(pass_on), 0)
    }

    /// Passes on the 1xx responses to one request of a connection. It needs no allocation of its own.
    pub fn of(connection: Rc<dyn Informational>, request: u64) -> Self {
        Self { to: connection, request, withheld: None }
    }

    /// Sets the fields that are removed from 1xx responses, because the route removes them from the final response or sets them there.
    #[must_use]
    pub fn without(self, fields: Rc<[HeaderName]>) -> Self {
        Self { withheld: Some(fields), ..self }
    }

    /// Passes one on, without the fields of the upstream's hop. A 101 is never passed on here: it is a final response.
    pub fn call(&self, status: StatusCode, mut headers: Fields) {
        if status.as_u16() <= StatusCode::SWITCHING_PROTOCOLS.as_u16() {
            return;
        }
        strip_response(&mut headers, false, false);
        // RFC 9110 section 8.6; HTTP/2 clients take it for a fault of the stream.
        headers.remove(CONTENT_LENGTH);
        if let Some(withheld) = &self.withheld {
            remove_fields(&mut headers, withheld);
        }
        self.to.pass_on(self.request, status, &headers);
    }
}

impl fmt::Debug for OnInformational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnInformational")
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_1xx_has_no_field_of_the_hop_and_none_that_the_route_removes() {
        let heard = Rc::new(RefCell::new(Vec::new()));
        let told = heard.clone();
        let pass_on = OnInformational::new(move |status, headers: &Fields| {
            let names: Vec<String> = headers.keys().map(|name| name.lower().into_owned()).collect();
            told.borrow_mut().push((status.as_u16(), names));
        });
        let pass_on = pass_on.without([HeaderName::from_static("x-internal")].into());
        let headers: Fields = [
            "link",
            "connection",
            "keep-alive",
            "content-length",
            "x-internal",
            "x_internal",
            "x-attache-reason",
        ]
        .into_iter()
        .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1")))
        .collect();
        for status in [StatusCode::CONTINUE, StatusCode::SWITCHING_PROTOCOLS, StatusCode::EARLY_HINTS] {
            pass_on.call(status, headers.clone());
        }
        let mut heard = heard.take();
        for (_, names) in &mut heard {
            names.sort();
        }
        assert_eq!(heard, [(103, vec!["link".to_owned(), "x-attache-upstream-reason".to_owned()])]);
    }
}
