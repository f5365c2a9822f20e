//! The methods of a rule.
//!
//! Methods are case-sensitive (RFC 9110 section 9.1), but not for every upstream, and some upstreams take another
//! method from a header. So a rule surely matches only a request that names one method, spelt as in the rule.

use http::Method;

use crate::{
    facts::{BodyUse, HttpFacts},
    truth::Truth,
};

/// A set of methods. The methods of RFC 9110 and RFC 5789 are also bits of a number, so that most requests need one
/// comparison.
#[derive(Debug)]
pub(crate) struct MethodSet {
    set: u16,
    all: Vec<Method>,
}

impl MethodSet {
    pub(crate) fn new(methods: &[Method]) -> Self {
        Self { set: methods.iter().fold(0, |set, method| set | bit(method)), all: methods.to_vec() }
    }

    /// Whether the request's method is one of them.
    #[inline]
    pub(crate) fn hold(&self, http: &HttpFacts<'_>) -> Truth {
        if self.set & bit(http.method()) != 0 && http.is_what_it_says() {
            return Truth::Yes;
        }
        self.hold_otherwise(http)
    }

    #[inline(never)]
    fn hold_otherwise(&self, http: &HttpFacts<'_>) -> Truth {
        let listed = |name: &[u8]| {
            if self.all.iter().any(|method| method.as_str().as_bytes() == name) {
                Truth::Yes
            } else if self.all.iter().any(|method| method.as_str().as_bytes().eq_ignore_ascii_case(name)) {
                Truth::Unsure
            } else {
                Truth::No
            }
        };
        let asked = http.method();
        let found = match http.kind() {
            BodyUse::Request => listed(asked.as_str().as_bytes()),
            BodyUse::Tunnel => listed(b"CONNECT").no_is_unsure(),
            BodyUse::Extended if self.all.contains(&Method::GET) => Truth::Yes,
            BodyUse::Extended if self.all.contains(&Method::CONNECT) => Truth::Unsure,
            BodyUse::Extended => Truth::No,
        };
        // Programs differ about a list, or a method with text after it.
        let is_one = |value: &[u8]| value.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
        let other = |value: &[u8]| if is_one(value) { listed(value) } else { Truth::Unsure };
        http.overrides().fold(found, |found, value| found.agree(other(value)))
    }
}

/// The bit of a method; zero for a method that the `http` crate has no name for.
#[inline]
const fn bit(method: &Method) -> u16 {
    match *method {
        Method::GET => 1,
        Method::HEAD => 1 << 1,
        Method::POST => 1 << 2,
        Method::PUT => 1 << 3,
        Method::DELETE => 1 << 4,
        Method::PATCH => 1 << 5,
        Method::OPTIONS => 1 << 6,
        Method::TRACE => 1 << 7,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use attache_http::Client;
    use attache_wire::RequestHead;

    use super::*;
    use crate::facts::Facts;

    const NAMED: [Method; 8] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::OPTIONS,
        Method::TRACE,
    ];

    #[test]
    fn every_method_matches_only_itself() {
        let own = Method::from_bytes(b"PURGE").unwrap();
        let all: Vec<Method> = NAMED.into_iter().chain([own]).collect();
        let client = Client::default();
        for method in &all {
            let request = RequestHead { method: method.clone(), ..RequestHead::default() };
            let facts = Facts::of_request(&request, &client);
            let http = facts.http.as_ref().unwrap();
            for other in &all {
                assert_eq!(
                    MethodSet::new(std::slice::from_ref(other)).hold(http),
                    Truth::from(method == other),
                    "{method} {other}"
                );
            }
            assert_eq!(MethodSet::new(&all).hold(http), Truth::Yes, "{method}");
        }
    }
}
