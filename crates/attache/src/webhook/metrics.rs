//! The webhook's own metrics, for Prometheus.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use attache_admin::AdminPage;
use attache_kubernetes::review::ReviewOutcome;
use attache_tls::Acceptor;
use http::StatusCode;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

/// Why a client got no answer to its review.
#[derive(Clone, Copy, Debug)]
pub(super) enum ReviewRefused {
    /// The TLS handshake failed, or took too long.
    Handshake,
    /// The body was too large, or came too slowly.
    Body,
    /// The body wasn't a review.
    NoReview,
    /// Other connections needed its permit or its memory.
    Cut,
}

/// All metrics. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct WebhookMetrics(Arc<RegisteredMetrics>);

#[derive(Debug)]
struct RegisteredMetrics {
    registry: Registry,
    reviews: IntCounterVec,
    duration: Histogram,
    refused: IntCounterVec,
    connections: IntGauge,
    expiry: Gauge,
}

impl WebhookMetrics {
    /// # Errors
    /// Two metrics have the same name.
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let reviews = IntCounterVec::new(
            Opts::new(
                "attache_webhook_reviews_total",
                "Reviews answered, by what was decided about the pod.",
            ),
            &["result"],
        )?;
        let duration = Histogram::with_opts(
            HistogramOpts::new(
                "attache_webhook_review_duration_seconds",
                "Time from a review's whole body to its answer.",
            )
            .buckets(vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0]),
        )?;
        let refused = IntCounterVec::new(
            Opts::new(
                "attache_webhook_refused_total",
                "Connections and requests that got no answer to a review, by reason.",
            ),
            &["why"],
        )?;
        let connections =
            IntGauge::new("attache_webhook_connections", "Connections to the webhook that are open.")?;
        let expiry = Gauge::new(
            "attache_webhook_certificate_expiry_timestamp_seconds",
            "When the webhook's certificate expires, in seconds since 1970.",
        )?;
        let registry = Registry::new();
        registry.register(Box::new(reviews.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(expiry.clone()))?;
        for result in ReviewOutcome::ALL {
            reviews.with_label_values(&[result.name()]);
        }
        for why in
            [ReviewRefused::Handshake, ReviewRefused::Body, ReviewRefused::NoReview, ReviewRefused::Cut]
        {
            refused.with_label_values(&[why.name()]);
        }
        Ok(Self(Arc::new(RegisteredMetrics { registry, reviews, duration, refused, connections, expiry })))
    }

    pub(super) fn reviewed(&self, outcome: ReviewOutcome, took: Duration) {
        self.0.reviews.with_label_values(&[outcome.name()]).inc();
        self.0.duration.observe(took.as_secs_f64());
    }

    pub(super) fn refused(&self, why: ReviewRefused) {
        self.0.refused.with_label_values(&[why.name()]).inc();
    }

    /// A connection was accepted.
    pub(super) fn opened(&self) {
        self.0.connections.inc();
    }

    /// A connection has ended.
    pub(super) fn closed(&self) {
        self.0.connections.dec();
    }

    /// The page of the metrics.
    pub(super) fn page(&self, acceptor: &Acceptor) -> AdminPage {
        let expiry = acceptor.certificates().iter().map(|certificate| certificate.not_after).min();
        let expiry = expiry.and_then(|at: SystemTime| at.duration_since(UNIX_EPOCH).ok());
        self.0.expiry.set(expiry.map_or(0.0, |at| at.as_secs_f64()));
        let mut text = Vec::new();
        let (status, text) = match TextEncoder::new().encode(&self.0.registry.gather(), &mut text) {
            Ok(()) => (StatusCode::OK, String::from_utf8_lossy(&text).into_owned()),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        };
        AdminPage { status, content_type: "text/plain; version=0.0.4; charset=utf-8", text }
    }
}

impl ReviewRefused {
    fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Body => "body",
            Self::NoReview => "no_review",
            Self::Cut => "cut",
        }
    }
}
