//! Features for browsers: CORS, gRPC-Web with its own client, and compression.

mod compression;
mod cors;
mod grpc_web;

use attache_tests::{Attache, local, raw};

/// The head in lower case and the body.
fn ask(attache: &Attache, line: &str, headers: &str) -> (String, String) {
    let request = format!("{line} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n{headers}\r\n");
    let answer = raw(local(attache.port), request.as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.to_lowercase(), body.to_owned())
}
