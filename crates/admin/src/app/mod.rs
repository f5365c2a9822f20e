//! The application on the metrics port: adds its metrics to attache's own, and presents its endpoints in the form that monitors and probers
//! expect.
//!
//! This is the adapter pattern (B. Burns, D. Oppenheimer, "Design patterns for container-based distributed systems", 2016). A monitor or
//! prober expects every application to look the same. The adapter beside the application gives it that look, so the application needs no
//! change.
//!
//! Rule: an application that is slow, down or wrong harms only the answers about itself. Every request to it is limited in time and size,
//! and attache's own answers never wait for it.

mod adapt;
mod ask;
mod merge;

use std::sync::{Arc, Mutex, PoisonError};

use attache_config::model::{Config, MetricsPage, TlsMode, TlsServer};
use attache_telemetry::IdentityProof;
use http::{HeaderMap, StatusCode, header::ACCEPT};

pub(crate) use self::merge::{metrics, named};
use crate::answer::AdminAnswer;

/// The current settings for the application. Cheap to clone; a reload replaces them.
#[derive(Clone, Debug, Default)]
pub struct AppMetricsHandle(Arc<Mutex<Arc<AppMetricsSettings>>>);

/// What a config says about the metrics page.
#[derive(Debug, Default)]
pub(crate) struct AppMetricsSettings {
    pub(crate) app: MetricsPage,
    /// For each listener, how its clients prove their identity.
    pub(crate) proofs: Vec<(String, IdentityProof)>,
}

impl AppMetricsHandle {
    /// Uses the settings of this config from now on.
    pub fn set(&self, config: &Config) {
        let proofs =
            config.listeners.iter().map(|listener| (listener.name.to_string(), proof(listener.tls.as_ref())));
        self.put(AppMetricsSettings { app: config.app.clone(), proofs: proofs.collect() });
    }

    pub(crate) fn put(&self, settings: AppMetricsSettings) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    pub(crate) fn told(&self) -> Arc<AppMetricsSettings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The answer of the adapter with this path, if there is one.
    pub(crate) async fn adapted(&self, path: &str) -> Option<AdminAnswer> {
        let told = self.told();
        let adapter = told.app.adapt.iter().find(|adapter| *adapter.path == *path)?;
        Some(adapt::answer(adapter).await)
    }
}

/// How the clients of a listener with these TLS settings prove their identity.
fn proof(tls: Option<&TlsServer>) -> IdentityProof {
    match tls {
        Some(tls) if tls.client_trust.is_some() && (!tls.client_optional || !tls.allow.is_empty()) => {
            if tls.mode == TlsMode::Permissive { IdentityProof::WithTls } else { IdentityProof::Everybody }
        }
        _ => IdentityProof::Nobody,
    }
}

/// Whether the client prefers OpenMetrics to Prometheus' own text (RFC 9110 section 12.5.1).
pub(crate) fn wants_openmetrics(headers: &HeaderMap) -> bool {
    let (mut open, mut text) = (0.0, 0.0);
    for line in headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok()) {
        for range in line.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let mut weight = 1.0;
            let mut version = "";
            for part in parts {
                match part.split_once('=') {
                    Some(("q", value)) => weight = value.parse().unwrap_or(0.0),
                    Some(("version", value)) => version = value,
                    _ => {}
                }
            }
            match kind {
                "application/openmetrics-text" if matches!(version, "" | "0.0.1" | "1.0.0") => {
                    open = f64::max(open, weight);
                }
                "text/plain" | "text/*" => text = f64::max(text, weight),
                _ => {}
            }
        }
    }
    open > 0.0 && open >= text
}

/// What an application answered.
struct AppAnswer {
    status: StatusCode,
    content_type: Option<http::HeaderValue>,
    body: String,
}

#[cfg(test)]
mod tests;
