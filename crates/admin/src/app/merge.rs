//! Adds the application's metrics to attache's own, on one page.
//!
//! Rules:
//! - A page of the application is added as a whole or not at all: one line that a monitor can't parse would cost it all other lines,
//!   including attache's.
//! - A family occurs only once. If the application has `process_…` families too, they stay the application's, and attache's are renamed to
//!   `attache_process_…`, because a monitor of the application expects the application's own. Of other families, the first one stays.
//! - The answer is OpenMetrics if every page is available in that format; otherwise everything is in Prometheus' text format.

use std::{
    collections::HashSet,
    fmt::Write as _,
    time::{Duration, Instant},
};

use attache_config::model::{AppMetrics, MetricNames};
use attache_telemetry::{METRICS_CONTENT_TYPE, Metrics, NamingScheme, OPENMETRICS_CONTENT_TYPE};
use http::StatusCode;
use serde_json::Value;

use super::{AppAnswer, AppMetricsHandle, AppMetricsSettings, ask::ask};
use crate::answer::{AdminAnswer, with_type};

const TEXT: &str = "text/plain;version=0.0.4;q=1,*/*;q=0.1";
const OPEN: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// The whole page `/metrics`.
pub(crate) async fn metrics(metrics: &Metrics, app: &AppMetricsHandle, open: bool) -> AdminAnswer {
    let told = app.told();
    // Under the names of other proxies, counters break the rules of OpenMetrics.
    let mut open = open && told.app.names == MetricNames::Attache;
    let mut pages = scrape(&told.app.metrics, open).await;
    if open && pages.iter().any(|page| page.format == Some(ExpositionFormat::Text)) {
        open = false;
        pages = scrape(&told.app.metrics, false).await;
    }
    let (own, content_type) = if open {
        (metrics.render_openmetrics(), OPENMETRICS_CONTENT_TYPE)
    } else {
        (named(metrics, &told), METRICS_CONTENT_TYPE)
    };
    let page = if pages.is_empty() { own } else { merged(own, &pages, open) };
    with_type(StatusCode::OK, content_type, if open { page + "# EOF\n" } else { page })
}

/// attache's page, with the additional names that the config asks for.
pub(crate) fn named(metrics: &Metrics, told: &AppMetricsSettings) -> String {
    match told.app.names {
        MetricNames::Attache => metrics.render(),
        MetricNames::Envoy => metrics.render_named(NamingScheme::Envoy),
        MetricNames::Istio => metrics.render_named(NamingScheme::Istio {
            workload: told.app.workload.as_deref().unwrap_or_default(),
            namespace: told.app.namespace.as_deref().unwrap_or_default(),
            proofs: &told.proofs,
        }),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ExpositionFormat {
    Text,
    Open,
}

/// One page of metrics of the application.
struct AppPage {
    /// Where it is from: the value of its label.
    from: String,
    took: Duration,
    /// `None` if it needs no format of its own, or could not be fetched.
    format: Option<ExpositionFormat>,
    text: Result<String, String>,
}

async fn scrape(pages: &[AppMetrics], open: bool) -> Vec<AppPage> {
    let mut scraped = Vec::with_capacity(pages.len());
    // They are fetched one after the other: there is only one application, and usually one page.
    for page in pages {
        let begun = Instant::now();
        let accept = match (page.gauges.is_empty(), open) {
            (false, _) => "application/json",
            (true, true) => OPEN,
            (true, false) => TEXT,
        };
        let told = ask(&page.from, accept, page.timeout, page.max_size).await;
        let (format, text) = match told.and_then(|told| read(page, told, open)) {
            Ok((format, text)) => (format, Ok(text)),
            Err(why) => (None, Err(why)),
        };
        let from = format!("{}{}", page.from.authority, page.from.path);
        if let Err(why) = &text {
            tracing::debug!(from, why, "the application's metrics could not be fetched");
        }
        scraped.push(AppPage { from, took: begun.elapsed(), format, text });
    }
    scraped
}

fn read(
    page: &AppMetrics,
    told: AppAnswer,
    open: bool,
) -> Result<(Option<ExpositionFormat>, String), String> {
    if !told.status.is_success() {
        return Err(format!("the status is {}", told.status));
    }
    if !page.gauges.is_empty() {
        return gauges(page, &told.body).map(|text| (None, text));
    }
    let content_type = told.content_type.as_ref().and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let format = if content_type.starts_with("application/openmetrics-text") {
        ExpositionFormat::Open
    } else {
        ExpositionFormat::Text
    };
    if format == ExpositionFormat::Open && !open {
        return Err("it is OpenMetrics, and Prometheus' text was asked for".to_owned());
    }
    let mut text = told.body;
    if format == ExpositionFormat::Open {
        let Some(end) = text.trim_end().strip_suffix("# EOF").map(str::len) else {
            return Err("it has no `# EOF`, so it is incomplete".to_owned());
        };
        text.truncate(end);
    }
    if let Some(line) = text.lines().find(|line| !is_line(line)) {
        return Err(format!("this isn't a line of metrics: {:?}", line.chars().take(80).collect::<String>()));
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    Ok((Some(format), text))
}

/// Makes gauges from numbers of a JSON document. A value that is missing or isn't a number is left out.
fn gauges(page: &AppMetrics, body: &str) -> Result<String, String> {
    let body: Value = serde_json::from_str(body).map_err(|error| format!("the body isn't JSON ({error})"))?;
    let mut text = String::new();
    for (name, pointer) in &page.gauges {
        let value = match body.pointer(pointer) {
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Bool(truth)) => u8::from(*truth).to_string(),
            _ => continue,
        };
        // Writing to a String never fails.
        let _ = writeln!(text, "# TYPE {name} gauge\n{name} {value}");
    }
    Ok(text)
}

/// Whether a line is valid: empty, a comment, or `NAME{LABELS} VALUE [TIMESTAMP]`, in OpenMetrics with an optional exemplar after it.
fn is_line(line: &str) -> bool {
    if line.is_empty() || line.starts_with('#') {
        return true;
    }
    let name = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':').unwrap_or(line.len());
    let (name, mut rest) = line.split_at(name);
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | ':')) {
        return false;
    }
    if let Some(labels) = rest.strip_prefix('{') {
        let (mut quoted, mut escaped) = (false, false);
        let end = labels.find(|c: char| {
            let ends = c == '}' && !quoted;
            if c == '"' && !escaped {
                quoted = !quoted;
            }
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some((_, after)) = end.and_then(|end| labels.split_at_checked(end + 1)) else { return false };
        rest = after;
    }
    let (value, _exemplar) = rest.split_once(" # ").unwrap_or((rest, ""));
    let mut numbers = value.split_ascii_whitespace();
    // Rust parses `NaN`, `+Inf` and `-Inf` as Prometheus writes them.
    let value = numbers.next().is_some_and(|value| value.parse::<f64>().is_ok());
    value && numbers.next().is_none_or(|at| at.parse::<f64>().is_ok()) && numbers.next().is_none()
}

fn merged(mut own: String, pages: &[AppPage], open: bool) -> String {
    let theirs: HashSet<&str> = pages
        .iter()
        .filter_map(|page| page.text.as_ref().ok())
        .flat_map(|text| text.lines().filter_map(family))
        .filter(|name| name.starts_with("process_"))
        .collect();
    if !theirs.is_empty() {
        own = renamed(&own);
    }
    told_of(&mut own, pages);
    let mut taken: HashSet<String> = own.lines().filter_map(family).map(str::to_owned).collect();
    let mut page = own;
    for text in pages.iter().filter_map(|page| page.text.as_ref().ok()) {
        let mut new = HashSet::new();
        for line in text.lines() {
            match family(line) {
                Some(family) if taken.contains(family) => continue,
                Some(family) => drop(new.insert(family.to_owned())),
                // OpenMetrics allows no other comments and no empty lines.
                None if open => continue,
                None => {}
            }
            page.push_str(line);
            page.push('\n');
        }
        taken.extend(new);
    }
    page
}

/// Renames attache's own `process_…` families to names that the application does not have.
fn renamed(own: &str) -> String {
    let mut page = String::with_capacity(own.len() + 256);
    for line in own.lines() {
        let words = ["process_", "# HELP process_", "# TYPE process_", "# UNIT process_"];
        if words.iter().any(|word| line.starts_with(word)) {
            page.push_str(&line.replacen("process_", "attache_process_", 1));
        } else {
            page.push_str(line);
        }
        page.push('\n');
    }
    page
}

/// Adds the families about how the fetching of the pages went.
fn told_of(page: &mut String, pages: &[AppPage]) {
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&AppPage) -> f64| {
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} gauge");
        for page_of_app in pages {
            let _ = writeln!(page, "{name}{{from=\"{}\"}} {}", page_of_app.from, value(page_of_app));
        }
    };
    let success = |page: &AppPage| f64::from(u8::from(page.text.is_ok()));
    gauge(
        "attache_app_scrape_success",
        "1 if the application's metrics from there are on this page, 0 if they could not be fetched.",
        &success,
    );
    gauge(
        "attache_app_scrape_duration_seconds",
        "How long the last scrape of the application's metrics took.",
        &|page| page.took.as_secs_f64(),
    );
}

/// The family that a line belongs to; `None` for an empty line or another comment.
fn family(line: &str) -> Option<&str> {
    let name = match line.strip_prefix('#') {
        Some(comment) => {
            let mut words = comment.split_ascii_whitespace();
            matches!(words.next()?, "TYPE" | "HELP" | "UNIT").then(|| words.next()).flatten()?
        }
        None => line.split(['{', ' ']).next().filter(|name| !name.is_empty())?,
    };
    let ends = ["_total", "_created", "_bucket", "_count", "_sum", "_info"];
    Some(ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> AppPage {
        AppPage {
            from: "localhost:8080/metrics".into(),
            took: Duration::ZERO,
            format: None,
            text: Ok(text.into()),
        }
    }

    #[test]
    fn a_line_of_metrics_is_recognised() {
        for line in [
            "",
            "# anything",
            "a 1",
            "a:b_c{} 1.5e9 1700000000",
            "a{b=\"c}\\\" # {\",d=\"e\"} +Inf",
            "a_bucket{le=\"1.0\"} 3 # {trace_id=\"ab\"} 0.5 170.1",
            "a NaN",
        ] {
            assert!(is_line(line), "{line}");
        }
        for line in ["<html>", "a", "a b", "a{b=\"c\" 1", "1a 1", "a 1 x", "a 1 1 1", " a 1"] {
            assert!(!is_line(line), "{line}");
        }
    }

    #[test]
    fn process_families_are_the_application_s() {
        let own = "# HELP process_open_fds x\n# TYPE process_open_fds gauge\nprocess_open_fds 7\nattache_panics_total 0\n";
        let app =
            page("# TYPE process_open_fds gauge\nprocess_open_fds 99\nattache_panics_total 5\napp_total 1\n");
        let merged = merged(own.into(), &[app, page("app_total 2\nother 3\n")], false);
        let samples: Vec<_> =
            merged.lines().filter(|line| !line.starts_with('#') && !line.contains("scrape")).collect();
        assert_eq!(
            samples,
            [
                "attache_process_open_fds 7",
                "attache_panics_total 0",
                "process_open_fds 99",
                "app_total 1",
                "other 3"
            ]
        );
    }
}
