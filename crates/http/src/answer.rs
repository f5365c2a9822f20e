//! A response that attache makes itself, in a format that the client understands.
//!
//! Rule: the answer says what happened, where, after how many attempts, and what to look at. A browser or curl gets text. A client that
//! accepts JSON gets a problem object (RFC 9457). A gRPC client gets a trailers-only response with HTTP 200 (gRPC over HTTP2, "Responses"),
//! because it would report any other status as a bare `UNKNOWN`.

use std::{cell::Ref, fmt::Write, time::Duration};

use attache_telemetry::{Class, Exchange, Reason};
use attache_wire::{
    KnownName, RequestHead, Response, ValueRef,
    header::{self, ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::Body;

const ATTACHE_REASON: KnownName = header::X_ATTACHE_REASON;

/// What attache must know of a request to answer it. It is taken before the request is sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerContext {
    language: Language,
    head: bool,
    http1: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Text,
    Json,
    /// gRPC, with the content type of its responses.
    Grpc(&'static str),
}

impl AnswerContext {
    /// Reads from a request which format its sender understands.
    pub fn of(request: &RequestHead) -> Self {
        let content_type = request.headers.get(CONTENT_TYPE).map_or(&b""[..], ValueRef::as_bytes);
        let accept = request.headers.get(ACCEPT).map_or(&b""[..], ValueRef::as_bytes);
        let language = if content_type.starts_with(b"application/grpc-web-text") {
            Language::Grpc("application/grpc-web-text")
        } else if content_type.starts_with(b"application/grpc-web") {
            Language::Grpc("application/grpc-web")
        } else if content_type.starts_with(b"application/grpc") {
            Language::Grpc("application/grpc")
        } else if prefers_json(accept) {
            Language::Json
        } else {
            Language::Text
        };
        Self { language, head: request.method == Method::HEAD, http1: request.version < Version::HTTP_2 }
    }

    /// For a client whose request could not be read: the answer is text, and the connection is closed.
    pub const fn unknown() -> Self {
        Self { language: Language::Text, head: false, http1: true }
    }

    /// Whether the request is a gRPC call.
    pub const fn is_grpc(self) -> bool {
        matches!(self.language, Language::Grpc(_))
    }
}

/// Whether JSON comes before any format for people. Weights are ignored: clients don't use them for JSON.
fn prefers_json(accept: &[u8]) -> bool {
    // The values that most clients send.
    match accept {
        b"" | b"*/*" => return false,
        b"application/json" => return true,
        _ => {}
    }
    accept
        .split(|byte| *byte == b',')
        .map(|range| range.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii())
        .find(|range| !range.is_empty() && *range != b"*/*")
        .is_some_and(|range| range == b"application/json" || range.ends_with(b"+json"))
}

/// The form of a listener's own answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerStyle {
    /// Whether the answer has `x-attache-reason` and the details in its body (`HttpServer::reason_header`). Without them the client learns
    /// only the status.
    pub details: bool,
    /// The time for `Retry-After`, rounded up to seconds, if it is known. Some reasons have a default.
    pub retry_after: Option<Duration>,
}

/// The answer for a failure. It takes upstream, endpoint, attempts and cause from `exchange`, and notes the status there.
pub fn answer(
    reason: Reason,
    asker: AnswerContext,
    style: AnswerStyle,
    exchange: &Exchange,
) -> Response<Body> {
    let status = if asker.is_grpc() { StatusCode::OK } else { reason.status() };
    exchange.status.set(status.as_u16());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if style.details {
        headers.insert(ATTACHE_REASON, HeaderValue::from_static(reason.as_str()));
    }
    if let Some(seconds) = style.retry_after.map(seconds).or(reason.is(Class::RetryLater).then_some(1)) {
        headers.insert(RETRY_AFTER, seconds);
    }
    if asker.http1 && reason.is(Class::ClosesClient) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let (content_type, body) = match asker.language {
        Language::Grpc(content_type) => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            headers.insert("grpc-status", u16::from(reason.grpc_status()));
            let message = percent_encode(&grpc_message(reason, style, exchange));
            if let Ok(message) = HeaderValue::from_str(&message) {
                headers.insert("grpc-message", message);
            }
            return response;
        }
        Language::Text => ("text/plain; charset=utf-8", text(reason, style, exchange)),
        Language::Json => ("application/problem+json", json(reason, style, exchange)),
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Clients may cache 404, 414 and 501 without a `Cache-Control` (RFC 9110 section 15.1); such answers would outlive their cause.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if asker.head {
        headers.insert(CONTENT_LENGTH, body.len());
    } else {
        *response.body_mut() = Body::full(body);
    }
    response
}

/// Gives a response the status, fields and body of another service, in a format that the client understands. A gRPC client gets the gRPC
/// status for that HTTP status (grpc/doc/http-grpc-status-mapping.md), and the body as its message.
pub fn answer_as_told(
    response: &mut Response<Body>,
    asker: AnswerContext,
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
) {
    let fields = response.headers_mut();
    if asker.is_grpc() {
        fields.insert("grpc-status", u16::from(grpc_status(status)));
        fields.remove("grpc-message");
        let message = percent_encode(&String::from_utf8_lossy(&body));
        if let Some(message) = HeaderValue::from_str(&message).ok().filter(|message| !message.is_empty()) {
            fields.insert("grpc-message", message);
        }
    } else {
        fields.remove(CONTENT_LENGTH);
        if body.is_empty() {
            fields.remove(CONTENT_TYPE);
        } else {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        *response.status_mut() = status;
        *response.body_mut() = Body::empty();
        let fields = response.headers_mut();
        if asker.head {
            fields.insert(CONTENT_LENGTH, body.len());
        } else if may_have_body(status) {
            *response.body_mut() = Body::full(body);
        }
    }
    let grpc_has_own =
        |name: &HeaderName| *name == http::header::CONTENT_TYPE || name.as_str().starts_with("grpc-");
    let given: Vec<_> =
        headers.into_iter().filter(|(name, _)| !asker.is_grpc() || !grpc_has_own(name)).collect();
    let fields = response.headers_mut();
    for (name, _) in &given {
        fields.remove(name);
    }
    for (name, value) in given {
        fields.append(name, value);
    }
}

/// Whether a response with this status may have a body (RFC 9110 sections 15.3.5, 15.3.6, 15.4.5).
fn may_have_body(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
}

const fn grpc_status(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// Where it happened: `upstream orders, endpoint 10.0.0.7:80, after 3 attempts: connection refused`.
fn place(exchange: &Exchange) -> String {
    let mut place = String::new();
    let mut part = |text: std::fmt::Arguments<'_>| {
        if !place.is_empty() {
            place.push_str(", ");
        }
        // Writing to a String never fails.
        let _ = place.write_fmt(text);
    };
    if let Some(route) = &*exchange.route.borrow() {
        part(format_args!("route {route}"));
    }
    if let Some(upstream) = &*exchange.upstream.borrow() {
        part(format_args!("upstream {upstream}"));
    }
    if let Some(endpoint) = &*exchange.endpoint.borrow() {
        part(format_args!("endpoint {endpoint}"));
    }
    match exchange.attempts.get() {
        0 => {}
        1 => part(format_args!("after 1 attempt")),
        attempts => part(format_args!("after {attempts} attempts")),
    }
    place
}

/// The cause, as far as the client may learn it.
fn told(reason: Reason, exchange: &Exchange) -> Ref<'_, Option<String>> {
    static NOTHING: Option<String> = None;
    Ref::map(exchange.detail.borrow(), |detail| if reason.is(Class::HidesCause) { &NOTHING } else { detail })
}

fn text(reason: Reason, style: AnswerStyle, exchange: &Exchange) -> String {
    let status = reason.status();
    if !style.details {
        return format!("{status}\n");
    }
    let mut text = format!("{reason}: {}\n", reason.meaning());
    let place = place(exchange);
    for line in [Some(&place), told(reason, exchange).as_ref()].into_iter().flatten() {
        if !line.is_empty() {
            text.push_str(line);
            text.push('\n');
        }
    }
    text.push_str(reason.what_to_do());
    text.push('\n');
    text
}

fn json(reason: Reason, style: AnswerStyle, exchange: &Exchange) -> String {
    let status = reason.status();
    let mut problem = serde_json::json!({
        "title": status.canonical_reason().unwrap_or(reason.as_str()),
        "status": status.as_u16(),
    });
    if style.details {
        problem["reason"] = reason.as_str().into();
        problem["detail"] = reason.meaning().into();
        let place = place(exchange);
        if !place.is_empty() {
            problem["place"] = place.into();
        }
        if let Some(cause) = &*told(reason, exchange) {
            problem["cause"] = cause.as_str().into();
        }
        problem["what_to_do"] = reason.what_to_do().into();
    }
    format!("{problem}\n")
}

fn grpc_message(reason: Reason, style: AnswerStyle, exchange: &Exchange) -> String {
    if !style.details {
        return reason.status().canonical_reason().unwrap_or(reason.as_str()).to_owned();
    }
    let mut message = format!("{reason}: {}", reason.meaning());
    let place = place(exchange);
    for part in [Some(&place), told(reason, exchange).as_ref()].into_iter().flatten() {
        if !part.is_empty() {
            message.push_str(" (");
            message.push_str(part);
            message.push(')');
        }
    }
    message
}

/// The Percent-Encoded form of grpc-message: everything except printable ASCII, and also `%`, is written as `%XX`.
pub fn percent_encode(text: &str) -> String {
    const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');
    utf8_percent_encode(text, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {

    use http_body::Body as _;

    use super::*;

    const DETAILS: AnswerStyle = AnswerStyle { details: true, retry_after: None };

    fn asker(method: &str, headers: &[(&'static str, &'static str)]) -> AnswerContext {
        let mut parts: RequestHead =
            http::Request::builder().method(method).body(()).unwrap().into_parts().0.into();
        for (name, value) in headers {
            parts.headers.append(*name, HeaderValue::from_static(value));
        }
        AnswerContext::of(&parts)
    }

    fn failed() -> Exchange {
        let exchange = Exchange::new("outbound".into(), "http1", None);
        *exchange.upstream.borrow_mut() = Some("orders".into());
        *exchange.endpoint.borrow_mut() = Some("10.0.0.7:80".into());
        exchange.attempts.set(3);
        exchange.fail(Reason::ConnectRefused, "connection refused (os error 111)");
        exchange
    }

    fn body(response: Response<Body>) -> String {
        let mut body = std::pin::pin!(response.into_body());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let mut all = Vec::new();
        while let std::task::Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut cx) {
            all.extend_from_slice(&frame.into_data().unwrap());
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn a_person_reads_what_happened_where_and_what_to_do() {
        let exchange = failed();
        let response = answer(Reason::ConnectRefused, asker("GET", &[("accept", "*/*")]), DETAILS, &exchange);
        assert_eq!(response.status(), 503);
        assert_eq!(exchange.status.get(), 503);
        assert_eq!(response.headers().get("x-attache-reason").unwrap(), "connect-refused");
        assert_eq!(response.headers().get("cache-control").unwrap(), "no-store");
        assert!(!response.headers().contains_key("connection"));
        insta::assert_snapshot!(body(response), @r#"
connect-refused: An endpoint refused the connection.
upstream orders, endpoint 10.0.0.7:80, after 3 attempts
connection refused (os error 111)
Is the upstream listening on that port? Try `curl -v` to the endpoint from the same pod.
"#);
    }

    #[test]
    fn a_program_that_accepts_json_gets_a_problem_object() {
        let asker = asker("GET", &[("accept", "application/json;q=1, text/plain")]);
        let response = answer(Reason::ConnectRefused, asker, DETAILS, &failed());
        assert_eq!(response.headers().get("content-type").unwrap(), "application/problem+json");
        insta::assert_snapshot!(body(response), @r#"
{"title":"Service Unavailable","status":503,"reason":"connect-refused","detail":"An endpoint refused the connection.","place":"upstream orders, endpoint 10.0.0.7:80, after 3 attempts","cause":"connection refused (os error 111)","what_to_do":"Is the upstream listening on that port? Try `curl -v` to the endpoint from the same pod."}
"#);
    }

    #[test]
    fn a_browser_gets_text_though_it_accepts_json_too() {
        let asker = asker("GET", &[("accept", "text/html, application/json")]);
        let response = answer(Reason::NoRoute, asker, DETAILS, &failed());
        assert_eq!(response.headers().get("content-type").unwrap(), "text/plain; charset=utf-8");
    }

    #[test]
    fn a_grpc_client_gets_its_status_in_a_response_without_a_body() {
        let exchange = failed();
        exchange.fail(Reason::ConnectRefused, "50 % \u{fc}ber\n");
        let asker = asker("POST", &[("content-type", "application/grpc+proto")]);
        let response = answer(Reason::ConnectRefused, asker, DETAILS, &exchange);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers().get("content-type").unwrap(), "application/grpc");
        assert_eq!(response.headers().get("grpc-status").unwrap(), "14");
        assert!(response.body().is_end_stream());
        insta::assert_snapshot!(response.headers().get("grpc-message").unwrap().to_str().unwrap(), @"connect-refused: An endpoint refused the connection. (upstream orders, endpoint 10.0.0.7:80, after 3 attempts) (50 %25 %C3%BCber%0A)");
    }

    #[test]
    fn head_gets_the_length_and_no_body() {
        let get = body(answer(Reason::NoRoute, asker("GET", &[]), DETAILS, &failed()));
        let head = answer(Reason::NoRoute, asker("HEAD", &[]), DETAILS, &failed());
        assert_eq!(head.headers().get("content-length").unwrap(), get.len().to_string().as_str());
        assert!(head.body().is_end_stream());
    }

    #[test]
    fn without_details_an_answer_has_only_its_status() {
        let style = AnswerStyle { details: false, retry_after: None };
        let response = answer(Reason::ConnectRefused, asker("GET", &[]), style, &failed());
        assert!(!response.headers().contains_key("x-attache-reason"));
        assert_eq!(body(response), "503 Service Unavailable\n");
        let grpc = asker("POST", &[("content-type", "application/grpc")]);
        let response = answer(Reason::ConnectRefused, grpc, style, &failed());
        assert_eq!(response.headers().get("grpc-message").unwrap(), "Service Unavailable");
    }

    #[test]
    fn retry_after_is_rounded_up() {
        let style = AnswerStyle { details: true, retry_after: Some(Duration::from_millis(1001)) };
        let after = |reason, style| {
            let response = answer(reason, asker("GET", &[]), style, &failed());
            response.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned())
        };
        assert_eq!(after(Reason::RateLimited, style).as_deref(), Some("2"));
        assert_eq!(after(Reason::RateLimited, DETAILS).as_deref(), Some("1"));
        assert_eq!(after(Reason::NoRoute, DETAILS), None);
    }

    #[test]
    fn an_http_1_connection_ends_after_a_request_that_can_be_read_in_two_ways() {
        let closes = |asker| {
            answer(Reason::BadRequest, asker, DETAILS, &failed()).headers().contains_key("connection")
        };
        assert!(closes(asker("GET", &[])));
        assert!(closes(AnswerContext::unknown()));
        let h2 = RequestHead { version: Version::HTTP_2, ..RequestHead::default() };
        assert!(!closes(AnswerContext::of(&h2)));
    }
}
