//! The application's metrics behind attache's own, on one page.
//!
//! Rules:
//! - A page is taken whole or not at all: one line that no monitor could read would cost it all the others, attache's included.
//! - A family stands once. `process_…` families that the application has, too, are the application's, and attache's are called
//!   `attache_process_…`, because a monitor of the application expects the application's own. Of other families the first one stays.
//! - OpenMetrics is answered if every page is there in it; otherwise all is in Prometheus' text.

use std::{
    collections::HashSet,
    fmt::Write as _,
    time::{Duration, Instant},
};

use attache_config::model::{AppMetrics, MetricNames};
use attache_telemetry::{METRICS_CONTENT_TYPE, Metrics, Names, OPENMETRICS_CONTENT_TYPE};
use http::StatusCode;
use serde_json::Value;

use super::{App, AppAnswer, Settings, ask::ask};
use crate::answer::{Answer, with_type};

const TEXT: &str = "text/plain;version=0.0.4;q=1,*/*;q=0.1";
const OPEN: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// All of `/metrics`.
pub(crate) async fn metrics(metrics: &Metrics, app: &App, open: bool) -> Answer {
    let told = app.told();
    // Names of others are no counters by OpenMetrics' rules.
    let mut open = open && told.app.names == MetricNames::Attache;
    let mut pages = scrape(&told.app.metrics, open).await;
    if open && pages.iter().any(|page| page.format == Some(Format::Text)) {
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

/// A page with the names that the config wants beside attache's.
pub(crate) fn named(metrics: &Metrics, told: &Settings) -> String {
    match told.app.names {
        MetricNames::Attache => metrics.render(),
        MetricNames::Envoy => metrics.render_named(Names::Envoy),
        MetricNames::Istio => metrics.render_named(Names::Istio {
            workload: told.app.workload.as_deref().unwrap_or_default(),
            namespace: told.app.namespace.as_deref().unwrap_or_default(),
            proofs: &told.proofs,
        }),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Open,
}

/// One page of the application.
struct Page {
    /// Where it is from, as the label says.
    from: String,
    took: Duration,
    /// `None` where it needs none of its own, or was not got.
    format: Option<Format>,
    text: Result<String, String>,
}

async fn scrape(pages: &[AppMetrics], open: bool) -> Vec<Page> {
    let mut scraped = Vec::with_capacity(pages.len());
    // One after the other: the application is one, and most have one page.
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
            tracing::debug!(from, why, "the application's metrics could not be got");
        }
        scraped.push(Page { from, took: begun.elapsed(), format, text });
    }
    scraped
}

fn read(page: &AppMetrics, told: AppAnswer, open: bool) -> Result<(Option<Format>, String), String> {
    if !told.status.is_success() {
        return Err(format!("the status is {}", told.status));
    }
    if !page.gauges.is_empty() {
        return gauges(page, &told.body).map(|text| (None, text));
    }
    let content_type = told.content_type.as_ref().and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let format =
        if content_type.starts_with("application/openmetrics-text") { Format::Open } else { Format::Text };
    if format == Format::Open && !open {
        return Err("it is OpenMetrics, and Prometheus' text was asked for".to_owned());
    }
    let mut text = told.body;
    if format == Format::Open {
        let Some(end) = text.trim_end().strip_suffix("# EOF").map(str::len) else {
            return Err("it has no `# EOF`, so it isn't whole".to_owned());
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

/// Numbers of a JSON document as gauges. One that isn't there, or isn't a number, is left out.
fn gauges(page: &AppMetrics, body: &str) -> Result<String, String> {
    let body: Value = serde_json::from_str(body).map_err(|error| format!("the body isn't JSON ({error})"))?;
    let mut text = String::new();
    for (name, pointer) in &page.gauges {
        let value = match body.pointer(pointer) {
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Bool(truth)) => u8::from(*truth).to_string(),
            _ => continue,
        };
        // A String takes everything.
        let _ = writeln!(text, "# TYPE {name} gauge\n{name} {value}");
    }
    Ok(text)
}

/// Empty, a comment, or `NAME{LABELS} VALUE [TIMESTAMP]`, with an exemplar behind it in OpenMetrics.
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
    // Rust reads `NaN`, `+Inf` and `-Inf` as Prometheus writes them.
    let value = numbers.next().is_some_and(|value| value.parse::<f64>().is_ok());
    value && numbers.next().is_none_or(|at| at.parse::<f64>().is_ok()) && numbers.next().is_none()
}

fn merged(mut own: String, pages: &[Page], open: bool) -> String {
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
                // OpenMetrics knows no other comments, and no empty lines.
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

/// attache's own families of the process under names that the application does not have.
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

/// How asking went.
fn told_of(page: &mut String, pages: &[Page]) {
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&Page) -> f64| {
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} gauge");
        for page_of_app in pages {
            let _ = writeln!(page, "{name}{{from=\"{}\"}} {}", page_of_app.from, value(page_of_app));
        }
    };
    let success = |page: &Page| f64::from(u8::from(page.text.is_ok()));
    gauge(
        "attache_app_scrape_success",
        "1 if the application's metrics from there are on this page, 0 if they could not be got.",
        &success,
    );
    gauge(
        "attache_app_scrape_duration_seconds",
        "How long the last scrape of the application's metrics took.",
        &|page| page.took.as_secs_f64(),
    );
}

/// The family that a line belongs to; `None` of an empty line or another comment.
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

    fn page(text: &str) -> Page {
        Page {
            from: "localhost:8080/metrics".into(),
            took: Duration::ZERO,
            format: None,
            text: Ok(text.into()),
        }
    }

    #[test]
    fn a_line_of_metrics_is_told_from_anything_else() {
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
    fn the_process_that_is_told_of_is_the_applications() {
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
