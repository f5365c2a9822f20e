//! Plain pages on a separate port, for programs without a proxy: `attache webhook`.

use std::future::Future;

use attache_rpc::server::Incoming;
use http::{Request, StatusCode};
use tokio::net::TcpListener;

use crate::{
    answer::{READ, method_not_allowed, reads, text, with_type},
    server::{self, Reply},
};

/// A page.
#[derive(Debug)]
pub struct Page {
    /// Its status.
    pub status: StatusCode,
    /// Its media type.
    pub content_type: &'static str,
    /// Its text.
    pub text: String,
}

/// Answers GET and HEAD with what `page` has for a path, and 404 where it has nothing, until `shutdown` is done.
pub async fn serve_pages(
    socket: TcpListener,
    page: impl Fn(&str) -> Option<Page> + Send + Sync + 'static,
    shutdown: impl Future<Output = ()>,
) {
    let answer = move |request: &Request<Incoming>| -> Reply {
        if !reads(request.method()) {
            return method_not_allowed(request.method(), READ).into();
        }
        match page(request.uri().path()) {
            Some(page) => with_type(page.status, page.content_type, page.text).into(),
            None => text(StatusCode::NOT_FOUND, "nothing is here\n").into(),
        }
    };
    server::run(socket, answer, shutdown).await;
}
