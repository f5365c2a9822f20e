//! Tests of the checks together with a real parser: bytes as a client sends them, and the request that results.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::convert::Infallible;

use attache_config::model::PathPolicy;
use attache_http::{check_request, normalize_uri};
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The status of the first response to these bytes, and what was read of the request.
async fn answer(bytes: &str) -> (u16, String) {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    client.write_all(bytes.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let service = service_fn(|request: Request<Incoming>| async {
        let mut parts = attache_wire::RequestHead::from(request.into_parts().0);
        let checked = check_request(&mut parts, false, false)
            .and_then(|_| normalize_uri(&mut parts.uri, PathPolicy::default()));
        let (status, text) = match checked {
            Ok(()) => (200, parts.uri.to_string()),
            Err(refusal) => (refusal.reason.status().as_u16(), refusal.text.into_owned()),
        };
        Ok::<_, Infallible>(http::Response::builder().status(status).body(text).unwrap())
    });
    let _ = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(server), service).await;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    (status, answer.rsplit("\r\n").next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn unambiguous_requests_get_one_form() {
    for (request, uri) in [
        ("GET /a/../b?c HTTP/1.1\r\nHost: orders\r\n\r\n", "http://orders/b?c"),
        ("GET http://orders:81/%41 HTTP/1.1\r\nHost: other\r\n\r\n", "http://orders:81/A"),
        ("GET / HTTP/1.0\r\n\r\n", "/"),
        ("CONNECT orders:443 HTTP/1.1\r\nHost: orders:443\r\n\r\n", ""),
        ("OPTIONS * HTTP/1.1\r\nHost: orders\r\n\r\n", "http://orders*"),
        ("GET /#fragment HTTP/1.1\r\nHost: orders\r\n\r\n", "http://orders/"),
        ("POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "http://orders/"),
    ] {
        let (status, read) = answer(request).await;
        assert_eq!((status, &*read), (200, uri), "{request:?}");
    }
}

#[tokio::test]
async fn a_request_that_could_be_read_in_two_ways_gets_400() {
    for request in [
        // RFC 9112 sections 3.2 and 3.2.2: the host.
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n",
        // Sections 6.1 to 6.3: the length. (hyper accepts a length beside `chunked`, and a bare LF; `crates/wire` refuses them and has a
        // corpus of its own.)
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        // Sections 2.2 and 5: the lines.
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        // The path.
        "GET /../x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /%2e%2e/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(answer(request).await.0, 400, "{request:?}");
    }
}
