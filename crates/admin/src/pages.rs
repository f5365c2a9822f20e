//! Plain pages on a port of their own, for commands without a proxy: `attache webhook`.

use std::future::Future;

use attache_rpc::server::Incoming;
use http::{Request, StatusCode};
use tokio::net::TcpListener;

use crate::{
    answer::{READ, method_not_allowed, reads, text, with_type},
    server::{self, AdminReply},
};

/// A page.
#[derive(Debug)]
pub struct AdminPage {
    /// Its status.
    pub status: StatusCode,
    /// Its media type.
    pub content_type: &'static str,
    /// Its text.
    pub text: String,
}

/// Answers GET and HEAD with the page that `page` returns for a path, or with 404 if it returns none, until `shutdown` completes.
pub async fn serve_pages(
    socket: TcpListener,
    page: impl Fn(&str) -> Option<AdminPage> + Send + Sync + 'static,
    shutdown: impl Future<Output = ()>,
) {
    let answer = move |request: &Request<Incoming>| -> AdminReply {
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
