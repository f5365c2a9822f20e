//! The port that other machines may reach (15090): metrics for Prometheus, and probes for the kubelet. It only shows state and changes
//! nothing.

use std::{fmt::Write as _, future::Future};

use attache_telemetry::{METRICS_CONTENT_TYPE, Metrics};
use http::{Method, Request, StatusCode};
use tokio::net::TcpListener;

use crate::{
    AppMetricsHandle, Readiness,
    answer::{AdminAnswer, READ, method_not_allowed, reads, text, with_type},
    app,
    server::{self, AdminReply},
};

/// What `/metrics`, `/healthz` and `/readyz` are answered from.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// The process' metrics.
    pub metrics: Metrics,
    /// Whether the process is ready for traffic.
    pub readiness: Readiness,
    /// The settings for the application; used only on the port that other machines may reach.
    pub app: AppMetricsHandle,
}

const INDEX: &str = "\
attache

GET /metrics   Prometheus metrics
GET /healthz   200 as long as the process runs
GET /readyz    200 if attache is ready for traffic, otherwise 503 with the reasons
";

/// Answers `/metrics`, `/healthz` and `/readyz` on this socket until `shutdown` completes. Keep it running while the process drains:
/// `/readyz` matters most then.
pub async fn serve(socket: TcpListener, state: AdminState, shutdown: impl Future<Output = ()>) {
    let answer =
        move |request: &Request<_>| AdminReply::Later(Box::pin(answer(state.clone(), question(request))));
    server::run(socket, answer, shutdown).await;
}

/// The parts of a request that the answer depends on.
struct PageRequest {
    method: Method,
    path: String,
    openmetrics: bool,
}

fn question<B>(request: &Request<B>) -> PageRequest {
    PageRequest {
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        openmetrics: app::wants_openmetrics(request.headers()),
    }
}

async fn answer(state: AdminState, asked: PageRequest) -> AdminAnswer {
    let read = reads(&asked.method);
    let answer = match &*asked.path {
        // A request to the application costs the application something, so a request with a refused method must not cause one.
        "/metrics" if read => Some(app::metrics(&state.metrics, &state.app, asked.openmetrics).await),
        "/" => Some(text(StatusCode::OK, index(&state))),
        path => match told(&state, path) {
            None if read => state.app.adapted(path).await,
            told => told,
        },
    };
    match answer {
        None => {
            let what_there_is = index(&state);
            text(StatusCode::NOT_FOUND, format!("there is no such page. The pages are:\n\n{what_there_is}"))
        }
        Some(_) if !read => method_not_allowed(&asked.method, READ),
        Some(answer) => answer,
    }
}

fn index(state: &AdminState) -> String {
    let mut index = INDEX.to_owned();
    for adapter in &state.app.told().app.adapt {
        // Writing to a String never fails.
        let _ = writeln!(
            index,
            "GET {:<10} of the application: http://{}{}",
            adapter.path, adapter.from.authority, adapter.from.path
        );
    }
    index
}

/// The pages that both ports have.
pub(crate) fn told(state: &AdminState, path: &str) -> Option<AdminAnswer> {
    Some(match path {
        "/metrics" => {
            let page = app::named(&state.metrics, &state.app.told());
            with_type(StatusCode::OK, METRICS_CONTENT_TYPE, page)
        }
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
