//! Answers of attache's own ports: short, plain, and never kept by a cache.

use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::Value;

pub(crate) type AdminAnswer = Response<String>;

const TEXT: &str = "text/plain; charset=utf-8";

pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> AdminAnswer {
    with_type(status, TEXT, text.into())
}

pub(crate) fn json(value: &Value) -> AdminAnswer {
    // Indented, because the reader is usually a person with curl.
    with_type(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

pub(crate) fn with_type(status: StatusCode, content_type: &'static str, body: String) -> AdminAnswer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Refuses a method. `allow` names the methods that are allowed (RFC 9110 section 15.5.6).
pub(crate) fn method_not_allowed(method: &Method, allow: &'static str) -> AdminAnswer {
    let mut answer =
        text(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not answered here, only {allow}\n"));
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    answer
}

/// The methods that only read.
pub(crate) const READ: &str = "GET, HEAD";

pub(crate) fn reads(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}
