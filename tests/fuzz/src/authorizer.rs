//! For every answer of an authorizer: only the headers of `upstream_headers` are set, headers of these names from the
//! client are removed, and Host, method, path and framing stay.

use std::cell::OnceCell;

use attache_authorization::external::{AllowedChanges, AuthorizerVerdict, Denial};
use attache_config::model::Authorizer;
use attache_rpc::CallResponse;
use attache_wire::{Fields, HeadLimits, RequestHead, response};
use bytes::BytesMut;
use http::{HeaderMap, StatusCode};

const LIMITS: HeadLimits = HeadLimits { line: 8000, size: 16000, count: 64 };
const SPOOFED: &str = "what the client wrote";
const FRAMING: [&str; 6] = ["host", "content-length", "transfer-encoding", "connection", "upgrade", "expect"];

thread_local! {
    static CONFIG: OnceCell<Authorizer> = const { OnceCell::new() };
}

fn config() -> Authorizer {
    let text = "listeners: { in: { bind: ':1', to: a, authorization: { external: opa } } }\n\
                authorizers: { opa: { service: a, upstream_headers: [x-user, x-groups], denial_headers: '*', response_headers: '*' } }\n\
                upstreams: { a: 'http://a' }";
    let config = attache_config::parse(text, None, &|_| None).unwrap_or_else(|error| panic!("{error}"));
    config.authorizers[0].clone()
}

fn request() -> RequestHead {
    http::Request::post("http://app.test/a/b?q=1&role=x")
        .header("host", "app.test")
        .header("content-length", "3")
        .header("x-user", SPOOFED)
        .header("x_user", SPOOFED)
        .header("X-Groups", SPOOFED)
        .header("x-other", "stays")
        .body(())
        .unwrap()
        .into_parts()
        .0
        .into()
}

fn answer(data: &[u8]) -> Option<CallResponse> {
    let mut buf = BytesMut::from(data);
    let (head, parts) = response::read(&mut buf, &LIMITS, response::MethodKind::Other).ok()??;
    let status = StatusCode::from_u16(head.status).ok()?;
    Some(CallResponse {
        status,
        headers: parts.headers.clone(),
        body: buf.to_vec(),
        trailers: HeaderMap::new(),
    })
}

fn granted(granted: &AllowedChanges, config: &Authorizer) {
    let before = request();
    let mut after = before.clone();
    if granted.apply(config, &mut after).is_err() {
        return;
    }
    assert_eq!((&after.method, after.uri.authority()), (&before.method, before.uri.authority()));
    assert_eq!(after.uri.path(), before.uri.path());
    // The written target reads back as the same one.
    let target = after.uri.path_and_query().unwrap().as_str();
    assert!(target.bytes().all(|byte| byte > b' ' && byte != b'#' && byte != 0x7f), "{target}");
    for name in FRAMING {
        assert!(after.headers.get_all(name).eq(before.headers.get_all(name)), "{name}");
    }
    for (name, value) in after.headers.iter() {
        let name = String::from_utf8_lossy(name.as_bytes()).to_ascii_lowercase();
        let owned = ["x-user", "x-groups"].contains(&name.replace('_', "-").as_str());
        assert!(!owned || value.as_bytes() != SPOOFED.as_bytes(), "{name}");
        assert!(owned || before.headers.contains_key(name.as_str()), "{name} was added");
        assert!(!value.as_bytes().iter().any(|byte| b"\r\n\0".contains(byte)), "{name}");
    }
    let mut response = Fields::new();
    response.insert("content-length", 3_usize);
    granted.apply_to_response(&mut response);
    assert_eq!(response.get_all("content-length").count(), 1);
    assert!(!response.contains_key("transfer-encoding") && !response.contains_key("connection"));
}

fn denied(denial: &Denial) {
    assert!((200..600).contains(&denial.status.as_u16()), "{}", denial.status);
    for (name, value) in &denial.headers {
        assert!(!FRAMING.contains(&name.as_str()), "{name}");
        assert!(!value.as_bytes().iter().any(|byte| b"\r\n\0".contains(byte)), "{name}");
    }
}

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let Some((form, data)) = data.split_first() else { return };
    CONFIG.with(|found| {
        let config = found.get_or_init(config);
        let verdict = match form {
            b'h' => answer(data).map(|answer| AuthorizerVerdict::of_http(answer, config)),
            _ => Some(AuthorizerVerdict::of_bytes(data, config)),
        };
        match verdict {
            Some(Ok(AuthorizerVerdict::Granted(it))) => granted(&it, config),
            Some(Ok(AuthorizerVerdict::Denied(it))) => denied(&it),
            Some(Err(_)) | None => {}
        }
    });
}
