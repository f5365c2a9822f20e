//! The dashboard: one page with its style and script, all of it inside the program. The page needs nothing from the network except this
//! port.
//!
//! It may load from and call only its own origin, and runs no script that isn't in its own file. So a text from a client, such as a path or
//! a host, can't do anything even if a mistake puts it into the page as markup.

use http::{HeaderValue, StatusCode, header};

use crate::answer::{AdminAnswer, with_type};

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
);

pub(crate) fn page() -> AdminAnswer {
    guarded("text/html; charset=utf-8", include_str!("index.html"))
}

/// The files of the page.
pub(crate) fn file(path: &str) -> Option<AdminAnswer> {
    Some(match path {
        "/dashboard.css" => guarded("text/css; charset=utf-8", include_str!("dashboard.css")),
        "/dashboard.js" => guarded("text/javascript; charset=utf-8", include_str!("dashboard.js")),
        "/history.js" => guarded("text/javascript; charset=utf-8", include_str!("history.js")),
        "/parts.js" => guarded("text/javascript; charset=utf-8", include_str!("parts.js")),
        "/charts.js" => guarded("text/javascript; charset=utf-8", include_str!("charts.js")),
        "/favicon.svg" => guarded("image/svg+xml", include_str!("favicon.svg")),
        _ => return None,
    })
}

fn guarded(content_type: &'static str, body: &str) -> AdminAnswer {
    let mut answer = with_type(StatusCode::OK, content_type, body.to_owned());
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    answer
}
