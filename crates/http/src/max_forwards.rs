//! `Max-Forwards`: how far a TRACE or OPTIONS may go (RFC 9110 section 7.6.2).

use attache_wire::{
    RequestHead, Response,
    header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, COOKIE, MAX_FORWARDS, PROXY_AUTHORIZATION},
};
use http::{HeaderValue, Method, StatusCode};

use crate::Body;

/// Subtracts one from the hops that a TRACE or OPTIONS has left. Returns the answer if it must not be passed on. A value that is no number
/// stays, and so does the field of any other method. A number above the largest that attache can hold becomes that largest number.
pub fn take_hop(request: &mut RequestHead) -> Option<Response<Body>> {
    if request.method != Method::OPTIONS && request.method != Method::TRACE {
        return None;
    }
    let left = request.headers.get(MAX_FORWARDS)?.to_str().ok()?.trim();
    if left.is_empty() || !left.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let left = left.parse().unwrap_or(u64::MAX);
    if let Some(left) = left.checked_sub(1) {
        request.headers.insert(MAX_FORWARDS, left);
        return None;
    }
    let mut answer = Response::new(Body::empty());
    if request.method == Method::OPTIONS {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("OPTIONS, TRACE"));
        *answer.status_mut() = StatusCode::OK;
        return Some(answer);
    }
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("message/http"));
    *answer.body_mut() = Body::full(reflected(request));
    Some(answer)
}

/// The request as it was received, without the fields that must not be revealed to a page that makes a browser send it (section 9.3.8).
fn reflected(request: &RequestHead) -> Vec<u8> {
    let mut text = format!("{} {} HTTP/1.1\r\n", request.method, request.uri).into_bytes();
    let secret = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];
    for (name, value) in request.headers.iter().filter(|(name, _)| !name.is_in(&secret)) {
        text.extend_from_slice(name.lower().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text
}

#[cfg(test)]
mod tests {

    use http_body::Body as _;

    use super::*;

    fn parts(method: &str, left: &str) -> RequestHead {
        let request = http::Request::builder().method(method).uri("http://a/").header("max-forwards", left);
        request.header("cookie", "secret").body(()).unwrap().into_parts().0.into()
    }

    #[test]
    fn options_and_trace_lose_one_hop_and_are_answered_here_at_zero() {
        for method in ["OPTIONS", "TRACE"] {
            let mut passed = parts(method, "3");
            assert!(take_hop(&mut passed).is_none());
            assert_eq!(passed.headers.get("max-forwards").unwrap(), "2");
            assert_eq!(take_hop(&mut parts(method, "0")).unwrap().status(), 200);
        }
        let mut get = parts("GET", "0");
        assert!(take_hop(&mut get).is_none());
        assert_eq!(get.headers.get("max-forwards").unwrap(), "0");
        for odd in ["x", "", "+0", "-0", "0, 0", "0x0"] {
            assert!(take_hop(&mut parts("OPTIONS", odd)).is_none(), "{odd}");
        }
    }

    #[test]
    fn a_number_above_the_largest_becomes_the_largest() {
        let mut passed = parts("OPTIONS", "18446744073709551616");
        assert!(take_hop(&mut passed).is_none());
        assert_eq!(passed.headers.get("max-forwards").unwrap(), "18446744073709551614");
    }

    #[test]
    fn a_trace_is_reflected_without_its_secrets() {
        let shown = String::from_utf8(reflected(&parts("TRACE", "0"))).unwrap();
        assert_eq!(shown, "TRACE http://a/ HTTP/1.1\r\nmax-forwards: 0\r\n\r\n");
        assert!(!take_hop(&mut parts("TRACE", "0")).unwrap().body().is_end_stream());
    }
}
