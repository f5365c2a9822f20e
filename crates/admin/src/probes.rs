//! The port that others may reach (15090): metrics for Prometheus, probes for the kubelet. It only tells, and changes nothing.

use std::future::Future;

use attache_telemetry::{METRICS_CONTENT_TYPE, Metrics};
use http::{Method, StatusCode};
use tokio::net::TcpListener;

use crate::{
    Readiness,
    answer::{Answer, READ, method_not_allowed, reads, text, with_type},
    server,
};

/// What `/metrics`, `/healthz` and `/readyz` are answered from.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// The process' metrics.
    pub metrics: Metrics,
    /// Whether work may come.
    pub readiness: Readiness,
}

const INDEX: &str = "\
attache

GET /metrics   Prometheus metrics
GET /healthz   200 while the process lives
GET /readyz    200 when it may be sent work, 503 with the reasons otherwise
";

/// Answers `/metrics`, `/healthz` and `/readyz` on this socket until `shutdown` is done. Keep it running while the process
/// drains: that is when `/readyz` matters most.
pub async fn serve(socket: TcpListener, state: AdminState, shutdown: impl Future<Output = ()>) {
    server::run(socket, move |request| answer(&state, request.method(), request.uri().path()), shutdown)
        .await;
}

fn answer(state: &AdminState, method: &Method, path: &str) -> Answer {
    let answer = told(state, path).or_else(|| (path == "/").then(|| text(StatusCode::OK, INDEX)));
    match answer {
        None => text(StatusCode::NOT_FOUND, format!("nothing is here. What there is:\n\n{INDEX}")),
        Some(_) if !reads(method) => method_not_allowed(method, READ),
        Some(answer) => answer,
    }
}

/// What both ports tell.
pub(crate) fn told(state: &AdminState, path: &str) -> Option<Answer> {
    Some(match path {
        "/metrics" => with_type(StatusCode::OK, METRICS_CONTENT_TYPE, state.metrics.render()),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => match state.readiness.reasons() {
            reasons if reasons.is_empty() => {
                text(StatusCode::OK, format!("ready\n{}", state.readiness.notes()))
            }
            reasons => text(StatusCode::SERVICE_UNAVAILABLE, reasons + &state.readiness.notes()),
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
