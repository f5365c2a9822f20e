//! The page that Prometheus reads: text format 0.0.4, or OpenMetrics where that is asked for.
//!
//! All workers' cells are added up here, on the thread that asks. The order is that of the table, then of the labels, so
//! that two scrapes can be compared by eye.

use std::time::{Duration, SystemTime};

use super::{
    Metrics, openmetrics,
    page::{Page, text},
    process::Process,
    scrape::Scrape,
    semantic::{ClientSums, ServerSums},
    table,
};

/// The content type of [`Metrics::render`].
pub const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The content type of [`Metrics::render_openmetrics`], once it has its end.
pub const OPENMETRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Metrics {
    /// All metrics now, in Prometheus' text format ([`METRICS_CONTENT_TYPE`]). Reads `/proc`; meant for the control thread.
    pub fn render(&self) -> String {
        text(&self.page())
    }

    /// All metrics now, in OpenMetrics ([`OPENMETRICS_CONTENT_TYPE`]), without its end: `# EOF` comes after whatever else is told.
    pub fn render_openmetrics(&self) -> String {
        openmetrics::write(&self.page())
    }

    pub(crate) fn page(&self) -> Page {
        let now = Scrape::of(&self.0);
        let mut page = Page::default();
        for row in table::ROWS {
            page.push(&row.what, (row.read)(&now));
        }
        page
    }

    /// When the process began, and with it everything that is counted.
    pub(crate) fn started() -> Option<SystemTime> {
        let seconds = Process::read().start_seconds?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds.max(0.0)))
    }

    /// Durations by the semantic conventions: of requests, and of attempts at upstreams.
    pub(crate) fn semantic_sums(&self) -> (ServerSums, ClientSums) {
        (self.0.semantics.server.sums(), self.0.semantics.client.sums())
    }

    /// The names of attache's own families, as OpenMetrics has them; what else is told must not have the same.
    pub fn family_names() -> impl Iterator<Item = &'static str> {
        table::ROWS.iter().map(|row| openmetrics::family_name(&row.what))
    }
}
