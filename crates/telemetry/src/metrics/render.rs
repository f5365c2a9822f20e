//! Renders the page that Prometheus reads: text format 0.0.4, or OpenMetrics if the client asks for it.
//!
//! All workers' cells are added up here, on the thread of the scrape. The order is that of the table, then of the labels, so that a person
//! can compare two scrapes.

use std::time::{Duration, SystemTime};

use super::{
    Metrics, openmetrics,
    page::{FamilyPage, text},
    process::ProcessReading,
    scrape::Scrape,
    semantic::{ClientSums, ServerSums},
    table,
};

/// The content type of [`Metrics::render`].
pub const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The content type of [`Metrics::render_openmetrics`], after its end mark was added.
pub const OPENMETRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Metrics {
    /// All metrics now, in Prometheus' text format ([`METRICS_CONTENT_TYPE`]). It reads `/proc`, so call it on the control thread.
    pub fn render(&self) -> String {
        text(&self.page())
    }

    /// All metrics now, in OpenMetrics ([`OPENMETRICS_CONTENT_TYPE`]), without the end mark: `# EOF` follows after all other families.
    pub fn render_openmetrics(&self) -> String {
        openmetrics::write(&self.page())
    }

    pub(crate) fn page(&self) -> FamilyPage {
        let now = Scrape::of(&self.0);
        let mut page = FamilyPage::default();
        for row in table::ROWS {
            page.push(&row.what, (row.read)(&now));
        }
        page
    }

    /// When the process started; all counters start then.
    pub(crate) fn started() -> Option<SystemTime> {
        let seconds = ProcessReading::read().start_seconds?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds.max(0.0)))
    }

    /// Durations by the semantic conventions: of requests, and of attempts at upstreams.
    pub(crate) fn semantic_sums(&self) -> (ServerSums, ClientSums) {
        (self.0.semantics.server.sums(), self.0.semantics.client.sums())
    }

    /// The names of attache's own families in OpenMetrics. Other families on the page must not have the same names.
    pub fn family_names() -> impl Iterator<Item = &'static str> {
        table::ROWS.iter().map(|row| openmetrics::family_name(&row.what))
    }
}
