//! The same page in OpenMetrics 1.0 (<https://prometheus.io/docs/specs/om/open_metrics_spec/>): with units, exemplars and an end mark.
//!
//! `_created` is left out. All counters here start with the process, whose start is `process_start_time_seconds`, and `_created` would
//! double the number of series.

use std::fmt::Write as _;

use super::{
    descriptor::{MetricDescriptor, MetricKind},
    exemplars::Exemplar,
    histogram::BOUNDS,
    page::{FamilyPage, ScrapedFamily, SeriesValue},
};

pub(super) fn write(page: &FamilyPage) -> String {
    let mut out = String::new();
    for family in &page.0 {
        one(&mut out, family);
    }
    out
}

/// The name of a family. For a counter it lacks the suffix `_total`, which its samples have.
pub(crate) fn family_name(what: &MetricDescriptor) -> &'static str {
    if what.kind == MetricKind::Counter {
        what.name.strip_suffix("_total").unwrap_or(what.name)
    } else {
        what.name
    }
}

fn one(out: &mut String, family: &ScrapedFamily) {
    let what = family.what;
    let name = family_name(what);
    // Writing to a String never fails.
    let _ = writeln!(out, "# TYPE {name} {}", what.kind.as_str());
    if let Some(unit) = what.unit() {
        let _ = writeln!(out, "# UNIT {name} {unit}");
    }
    let _ = writeln!(out, "# HELP {name} {}", escaped(what.help));
    for (labels, value) in &family.samples {
        let mut shown = String::new();
        for (label, value) in what.labels.iter().zip(labels) {
            let _ =
                write!(shown, "{}{label}=\"{}\"", if shown.is_empty() { "" } else { "," }, escaped(value));
        }
        match value {
            SeriesValue::Number(number) => {
                let _ = writeln!(out, "{}{} {number}", what.name, braced(&shown));
            }
            SeriesValue::Histogram(histogram) => {
                let comma = if shown.is_empty() { "" } else { "," };
                let bounds = BOUNDS.iter().map(|bound| float(*bound as f64 / 1e6)).chain(["+Inf".into()]);
                let counts = histogram.buckets.iter().chain([&histogram.count]);
                for ((bound, count), exemplar) in bounds.zip(counts).zip(histogram.exemplars) {
                    let _ = write!(out, "{name}_bucket{{{shown}{comma}le=\"{bound}\"}} {count}");
                    if let Some(Exemplar { trace, micros, at }) = exemplar {
                        let (took, at) = (micros as f64 / 1e6, at as f64 / 1e3);
                        let _ = write!(out, " # {{trace_id=\"{trace}\"}} {took} {at}");
                    }
                    out.push('\n');
                }
                let shown = braced(&shown);
                let _ = writeln!(out, "{name}_count{shown} {}", histogram.count);
                let _ = writeln!(out, "{name}_sum{shown} {}", histogram.sum);
            }
        }
    }
}

fn braced(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

/// A number with a decimal point, as in the specification's canonical form.
fn float(number: f64) -> String {
    let text = number.to_string();
    if text.contains('.') { text } else { format!("{text}.0") }
}

/// Escapes label values and help texts.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
