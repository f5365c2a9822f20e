//! An origin is allowed only if it is in the list, however it is written. An answer to a preflight contains only
//! attache's own headers.

use std::cell::OnceCell;

use attache_config::model;
use attache_http::Body;
use attache_web::{Origin, RequestKind, WebSettings};
use attache_wire::{Fields, RequestHead, Response};
use http::{HeaderValue, Method, header};

thread_local! {
    static WEB: OnceCell<WebSettings> = const { OnceCell::new() };
}

const CORS: &str = "{ origins: ['https://shop.test', 'https://*.shop.test:8443', '~http://[a-z]+\\.dev\\.test'], credentials: true, private_network: true }";

fn web() -> WebSettings {
    WebSettings::new(&config(&format!("cors: {CORS}"))).unwrap()
}

/// The browser settings of a config's only route.
pub(crate) fn config(keys: &str) -> model::Web {
    let text = format!(
        "listeners: {{ in: {{ bind: ':1', routes: [{{ to: a, {keys} }}] }} }}\nupstreams: {{ a: 'h2c://a' }}"
    );
    let config = attache_config::parse(&text, None, &|_| None).unwrap_or_else(|error| panic!("{error}"));
    config.listeners[0].routes[0].web.clone()
}

/// Compares an origin with the list, without attache's patterns.
fn is_of_the_list(origin: &str) -> bool {
    let name = |text: &str, more: &[u8]| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || more.contains(&byte))
    };
    let host = |host: &str| {
        host.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        })
    };
    let between = |begin: &str, end: &str| {
        origin.strip_prefix(begin).and_then(|rest| rest.strip_suffix(end)).map(str::to_owned)
    };
    origin == "https://shop.test"
        || between("https://", ".shop.test:8443").is_some_and(|labels| host(&labels))
        || between("http://", ".dev.test").is_some_and(|label| name(&label, b""))
}

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let mut headers = Fields::new();
    let mut origins = Vec::new();
    for line in data.split(|&byte| byte == b'\n').take(4) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(header::ORIGIN, &value);
            origins.push(line);
        }
    }
    let listed = match origins[..] {
        [origin] => std::str::from_utf8(origin).is_ok_and(is_of_the_list),
        _ => false,
    };
    let mut head = RequestHead { headers, ..RequestHead::default() };
    let permission = |headers: &Fields| headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_some();
    WEB.with(|web| {
        let web = web.get_or_init(self::web);
        let RequestKind::Request(Some(back)) = web.arrive(&head) else { panic!("no way back") };
        assert_eq!(back.origin() == Some(Origin::Allowed), listed, "{}", data.escape_ascii());
        let mut answer = Response::new(Body::empty());
        answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        let (answer, _) = back.finish(answer);
        assert_eq!(permission(answer.headers()), listed, "{}", data.escape_ascii());

        head.method = Method::OPTIONS;
        head.headers.insert(header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT"));
        match web.arrive(&head) {
            RequestKind::Preflight(answer, origin) => {
                assert_eq!((origin == Origin::Allowed, permission(answer.headers())), (listed, listed));
            }
            RequestKind::Request(_) => assert!(origins.is_empty()),
        }
    });
}
