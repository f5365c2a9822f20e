//! Decides which pages may read the responses of a route (CORS).
//!
//! **Rule.** A preflight (`OPTIONS` with `Origin` and `Access-Control-Request-Method`) is answered here for every client: a browser sends
//! it without credentials, and no part of it reaches an upstream. An origin that is not in the list gets an answer without permission. Any
//! other request continues, whatever its origin: CORS protects the users of browsers, not servers. A page of a foreign origin only can't
//! read the response. The upstream's own `Access-Control-*` fields are removed, so that they can't permit what the config doesn't.
//!
//! **Vary.** A response that depends on the origin has `Vary`, even if the request has no origin. Otherwise a cache could give one page the
//! permission of another.
//!
//! **Source.** Fetch (fetch.spec.whatwg.org), "CORS protocol"; Private Network Access, section 3. As in Envoy's filter, the permission
//! names the origin of the request. It is `*` only if every page may read the response, without credentials.

use std::sync::Arc;

use attache_config::model::{self, OriginPattern};
use attache_http::Body;
use attache_wire::{Fields, RequestHead, Response};
use http::{HeaderName, HeaderValue, Method, header};

/// Fields that are removed from upstreams' responses, also from trailers and 1xx responses.
pub const PERMISSIONS: [HeaderName; 7] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
    ALLOW_PRIVATE,
];

const ALLOW_PRIVATE: HeaderName = HeaderName::from_static("access-control-allow-private-network");
const REQUEST_PRIVATE: &str = "access-control-request-private-network";

/// The origin of the page that sent the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The request names none: it doesn't come from a page, or it comes from a page of the same origin.
    None,
    /// The page may read the responses.
    Allowed,
    /// The page must not read the responses.
    Foreign,
}

/// A route's rules, ready to be used.
#[derive(Debug)]
pub(crate) struct CorsPolicy(Arc<ReadyCors>);

#[derive(Debug)]
struct ReadyCors {
    origins: Vec<OriginPattern>,
    /// Every origin is allowed, so responses don't depend on the origin.
    public: bool,
    credentials: bool,
    private_network: bool,
    methods: CorsList,
    headers: CorsList,
    expose: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
}

/// The methods or headers in the answer to a preflight.
#[derive(Debug)]
enum CorsList {
    /// Everything that the preflight asked for.
    All,
    /// These; `None` means nothing.
    These(Option<HeaderValue>),
}

/// What is needed to mark one response.
#[derive(Debug)]
pub(crate) struct CorsResponse {
    pub(crate) origin: Origin,
    /// The value of `Access-Control-Allow-Origin`, if the origin is allowed.
    allowed: Option<HeaderValue>,
    ready: Arc<ReadyCors>,
}

impl CorsPolicy {
    pub(crate) fn new(config: &model::Cors) -> Self {
        let joined = |names: &mut dyn Iterator<Item = &str>| {
            let names: Vec<&str> = names.collect();
            // Names of methods and headers, joined by commas, are a valid value.
            HeaderValue::from_str(&names.join(", ")).ok().filter(|joined| !joined.is_empty())
        };
        let list = |all: bool, names: &mut dyn Iterator<Item = &str>| {
            if all { CorsList::All } else { CorsList::These(joined(names)) }
        };
        let model::Cors { origins, methods, headers, expose, credentials, max_age, private_network } = config;
        Self(Arc::new(ReadyCors {
            public: origins.contains(&OriginPattern::Any) && !credentials,
            origins: origins.clone(),
            credentials: *credentials,
            private_network: *private_network,
            methods: list(methods.is_none(), &mut methods.iter().flatten().map(Method::as_str)),
            headers: list(headers.is_none(), &mut headers.iter().flatten().map(HeaderName::as_str)),
            expose: joined(&mut expose.iter().map(HeaderName::as_str)),
            max_age: max_age.map(|age| HeaderValue::from(age.as_secs())),
        }))
    }

    /// The answer to a preflight; `None` for any other request.
    pub(crate) fn preflight(&self, head: &RequestHead) -> Option<(Response<Body>, Origin)> {
        let wanted = head.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        if head.method != Method::OPTIONS || !head.headers.contains_key(header::ORIGIN) {
            return None;
        }
        let ready = &*self.0;
        let shared = self.shared(head);
        let mut answer = Response::new(Body::empty());
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_LENGTH, 0_u64);
        vary(headers, ready, true);
        if let Some(origin) = &shared.allowed {
            shared.permit(headers, origin);
            put(
                headers,
                header::ACCESS_CONTROL_ALLOW_METHODS,
                &ready.methods,
                Some(wanted.to_header_value()),
            );
            // If there are two lines, the second is ignored; then the browser lacks a permission.
            let asked = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
            let asked = asked.map(attache_wire::ValueRef::to_header_value);
            put(headers, header::ACCESS_CONTROL_ALLOW_HEADERS, &ready.headers, asked);
            if let Some(age) = &ready.max_age {
                headers.insert(header::ACCESS_CONTROL_MAX_AGE, age);
            }
            if ready.private_network && head.headers.get(REQUEST_PRIVATE).is_some_and(|it| it == "true") {
                headers.insert(ALLOW_PRIVATE, HeaderValue::from_static("true"));
            }
        }
        Some((answer, shared.origin))
    }

    /// What is needed to mark the response to a request.
    pub(crate) fn shared(&self, head: &RequestHead) -> CorsResponse {
        let ready = &self.0;
        let mut origins = head.headers.get_all(header::ORIGIN);
        let (origin, allowed) = match (origins.next(), origins.next()) {
            (None, _) => (Origin::None, None),
            // No browser sends two origins.
            (Some(_), Some(_)) => (Origin::Foreign, None),
            (Some(origin), None) => match origin.to_str().ok().filter(|text| ready.allows(text)) {
                Some(_) if ready.public => (Origin::Allowed, Some(HeaderValue::from_static("*"))),
                Some(_) => (Origin::Allowed, Some(origin.to_header_value())),
                None => (Origin::Foreign, None),
            },
        };
        CorsResponse { origin, allowed, ready: Arc::clone(ready) }
    }
}

impl ReadyCors {
    fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|pattern| pattern.matches(origin))
    }
}

impl CorsResponse {
    /// Adds the permissions to a response. Other permissions in it are removed.
    pub(crate) fn mark(&self, headers: &mut Fields) {
        for name in PERMISSIONS {
            headers.remove(name);
        }
        vary(headers, &self.ready, false);
        if let Some(origin) = &self.allowed {
            self.permit(headers, origin);
            if let Some(expose) = &self.ready.expose {
                headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose);
            }
        }
    }

    fn permit(&self, headers: &mut Fields, origin: &HeaderValue) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.ready.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

fn put(headers: &mut Fields, name: HeaderName, list: &CorsList, asked: Option<HeaderValue>) {
    let value = match list {
        CorsList::All => asked,
        CorsList::These(names) => names.clone(),
    };
    if let Some(value) = value {
        headers.insert(name, value);
    }
}

fn vary(headers: &mut Fields, ready: &ReadyCors, preflight: bool) {
    let mut add = |name: &'static str| {
        let there = headers.get_all(header::VARY).any(|line| {
            let names = line.to_str().unwrap_or_default().split(',').map(str::trim);
            names.into_iter().any(|it| it == "*" || it.eq_ignore_ascii_case(name))
        });
        if !there {
            headers.append(header::VARY, HeaderValue::from_static(name));
        }
    };
    if !ready.public {
        add("Origin");
    }
    if preflight && matches!(ready.methods, CorsList::All) {
        add("Access-Control-Request-Method");
    }
    if preflight && matches!(ready.headers, CorsList::All) {
        add("Access-Control-Request-Headers");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn config(origins: &[OriginPattern]) -> model::Cors {
        model::Cors {
            origins: origins.to_vec(),
            methods: Some(vec![Method::GET, Method::PUT]),
            headers: Some(vec![header::CONTENT_TYPE]),
            expose: vec![HeaderName::from_static("x-id")],
            credentials: true,
            max_age: Some(Duration::from_secs(600)),
            private_network: true,
        }
    }

    fn exact() -> model::Cors {
        config(&[OriginPattern::Exact("https://shop.test".into())])
    }

    fn head(method: &str, headers: &[(&str, &str)]) -> RequestHead {
        let mut builder = http::Request::builder().method(method).uri("/");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        RequestHead::from(builder.body(()).unwrap().into_parts().0)
    }

    fn shown(headers: &Fields) -> Vec<String> {
        let line = |(name, value): (attache_wire::NameRef<'_>, attache_wire::ValueRef<'_>)| {
            format!("{}: {}", name.lower(), value.to_str().unwrap())
        };
        let mut lines: Vec<_> = headers.iter().map(line).collect();
        lines.sort();
        lines
    }

    const ASKS: [(&str, &str); 3] = [
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "content-type, x-a"),
        ("access-control-request-private-network", "true"),
    ];

    fn preflight(config: &model::Cors, origin: &str) -> (Vec<String>, Origin) {
        let asked = [&[("origin", origin)][..], &ASKS].concat();
        let (answer, origin) = CorsPolicy::new(config).preflight(&head("OPTIONS", &asked)).unwrap();
        (shown(answer.headers()), origin)
    }

    #[test]
    fn a_preflight_of_an_allowed_origin_gets_its_permissions() {
        let (answer, origin) = preflight(&exact(), "https://shop.test");
        assert_eq!(origin, Origin::Allowed);
        assert_eq!(
            answer,
            [
                "access-control-allow-credentials: true",
                "access-control-allow-headers: content-type",
                "access-control-allow-methods: GET, PUT",
                "access-control-allow-origin: https://shop.test",
                "access-control-allow-private-network: true",
                "access-control-max-age: 600",
                "content-length: 0",
                "vary: Origin",
            ]
        );
        let anything = model::Cors { methods: None, headers: None, ..exact() };
        let (answer, _) = preflight(&anything, "https://shop.test");
        assert!(answer.contains(&"access-control-allow-methods: PUT".to_owned()));
        assert!(answer.contains(&"access-control-allow-headers: content-type, x-a".to_owned()));
        assert!(answer.contains(&"vary: Access-Control-Request-Headers".to_owned()), "{answer:?}");
    }

    #[test]
    fn a_foreign_origin_gets_no_permission() {
        for origin in [
            "https://shop.test.evil",
            "http://shop.test",
            "https://shop.test:8443",
            "https://Xshop.test",
            "null",
            "",
            "*",
            "https://shop.test, https://evil",
        ] {
            let (answer, found) = preflight(&exact(), origin);
            assert_eq!(
                (answer, found),
                (vec!["content-length: 0".to_owned(), "vary: Origin".to_owned()], Origin::Foreign),
                "{origin}"
            );
            let mut headers = Fields::new();
            CorsPolicy::new(&exact()).shared(&head("GET", &[("origin", origin)])).mark(&mut headers);
            assert_eq!(shown(&headers), ["vary: Origin"], "{origin}");
        }
        let twice = [("origin", "https://shop.test"), ("origin", "https://evil.test")];
        let shared = CorsPolicy::new(&exact()).shared(&head("GET", &twice));
        assert_eq!((shared.origin, shared.allowed), (Origin::Foreign, None));
    }

    #[test]
    fn patterns_match_whole_origins() {
        let subdomains = OriginPattern::Subdomains { begin: "https://".into(), end: ".shop.test".into() };
        for (origin, allowed) in [
            ("https://a.shop.test", true),
            ("https://a.b.shop.test", true),
            ("https://shop.test", false),
            ("https://.shop.test", false),
            ("https://evil.test/.shop.test", false),
            ("https://evil.test#.shop.test", false),
            ("https://a@b.shop.test", false),
            ("https://evil.test:1.shop.test", false),
            ("http://a.shop.test", false),
            ("https://a.shop.test:1", false),
        ] {
            assert_eq!(subdomains.matches(origin), allowed, "{origin}");
        }
        let regex = OriginPattern::Regex(regex::Regex::new("^(?:https://[a-z]+\\.test)$").unwrap().into());
        assert!(regex.matches("https://a.test") && !regex.matches("https://a.test.evil"));
        assert!(OriginPattern::Any.matches("null"));
    }

    #[test]
    fn only_a_response_that_every_page_may_read_has_no_vary() {
        let public = model::Cors { credentials: false, ..config(&[OriginPattern::Any]) };
        let mut headers = Fields::new();
        CorsPolicy::new(&public).shared(&head("GET", &[("origin", "https://a.test")])).mark(&mut headers);
        assert_eq!(
            shown(&headers),
            ["access-control-allow-origin: *", "access-control-expose-headers: x-id"]
        );
    }

    #[test]
    fn a_permission_of_the_upstream_is_removed_and_its_vary_stays() {
        let mut headers = Fields::new();
        for (name, value) in [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-private-network", "true"),
            ("vary", "Accept-Encoding"),
            ("vary", "origin"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        CorsPolicy::new(&exact()).shared(&head("GET", &[])).mark(&mut headers);
        assert_eq!(shown(&headers), ["vary: Accept-Encoding", "vary: origin"]);
    }

    #[test]
    fn a_request_that_only_looks_like_a_preflight_continues() {
        for (method, headers) in [
            ("OPTIONS", &[("origin", "https://shop.test")][..]),
            ("OPTIONS", &ASKS),
            ("GET", &[("origin", "https://shop.test"), ASKS[0]]),
        ] {
            assert!(
                CorsPolicy::new(&exact()).preflight(&head(method, headers)).is_none(),
                "{method} {headers:?}"
            );
        }
    }
}
