//! attache's series under the names of another proxy, so that existing dashboards and alerts work.
//!
//! They are made at a scrape from the page in Prometheus' text format. What attache doesn't count is missing. Requests are shown by their
//! single status (`200`), which is counted in addition to the classes of the page only if such names are used. Durations are shown by the
//! class of the status (`2xx`).

mod envoy;
mod istio;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{
    Metrics,
    semantic::{BOUNDS, CELLS, SIZE_CELLS, SIZES, ServerSums},
};

/// The other proxy, and the data of the workload.
#[derive(Clone, Copy, Debug)]
pub enum NamingScheme<'a> {
    /// Envoy's clusters, listeners and connection managers.
    Envoy,
    /// Istio's standard metrics.
    Istio {
        /// The workload's name; Istio's own value for a missing one is `unknown`.
        workload: &'a str,
        /// The workload's namespace.
        namespace: &'a str,
        /// The listeners, and how their clients prove their identity. For other listeners this is unknown.
        proofs: &'a [(String, IdentityProof)],
    },
}

/// How the clients of a listener prove their identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityProof {
    /// No client does: the listener has plaintext, or TLS without client certificates.
    Nobody,
    /// Every client does, by mutual TLS.
    Everybody,
    /// Every client that uses TLS does; the others use plaintext.
    WithTls,
}

/// Requests by their single status, in the form of a sample of the page. No page contains it.
const EXACT: &str = "exact_requests";
/// The sizes of bodies, in the same form.
const REQUEST_SIZE: &str = "exact_request_bytes";
const RESPONSE_SIZE: &str = "exact_response_bytes";

impl Metrics {
    /// The page in Prometheus' text format, with further families after attache's own.
    pub fn render_named(&self, names: NamingScheme<'_>) -> String {
        let mut page = self.render();
        let more = under_names(&page, &exact(&self.semantic_sums().0), names);
        page.push_str(&more);
        page
    }
}

/// HTTP requests by their single status, and their sizes.
fn exact(sums: &ServerSums) -> String {
    let mut out = String::new();
    for ([listener, _, upstream, _, status, _, scheme, error], cells) in sums {
        let count: u64 = cells.iter().take(BOUNDS.len() + 1).sum();
        // The error's type is a status if attache has no reason of its own.
        let reason = if error == status { "" } else { error };
        // Names in the config and words of closed lists need no escapes.
        let _ = writeln!(
            out,
            "{EXACT}{{listener=\"{listener}\",upstream=\"{upstream}\",protocol=\"http\",code=\"{status}\",reason=\"{reason}\",scheme=\"{scheme}\"}} {count}"
        );
        for (name, first) in [(REQUEST_SIZE, CELLS), (RESPONSE_SIZE, CELLS + SIZE_CELLS)] {
            let labels = format!(
                "listener=\"{listener}\",upstream=\"{upstream}\",protocol=\"http\",code=\"{status}\",reason=\"{reason}\",scheme=\"{scheme}\""
            );
            let mut count = 0;
            for (index, bound) in SIZES.iter().map(Some).chain([None]).enumerate() {
                count += cells.get(first + index).copied().unwrap_or_default();
                let bound = bound.map_or("+Inf".to_owned(), u64::to_string);
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
            }
            let sum = cells.get(first + SIZES.len() + 1).copied().unwrap_or_default();
            let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}");
        }
    }
    out
}

/// The further families for a page of attache's own families.
fn under_names(page: &str, exact: &str, names: NamingScheme<'_>) -> String {
    let samples: Vec<PageSample<'_>> = page.lines().chain(exact.lines()).filter_map(sample).collect();
    let mut out = Families::default();
    match names {
        NamingScheme::Envoy => envoy::families(&samples, &mut out),
        NamingScheme::Istio { workload, namespace, proofs } => {
            istio::families(&samples, workload, namespace, proofs, &mut out);
        }
    }
    out.text()
}

/// One line of a page.
struct PageSample<'p> {
    name: &'p str,
    labels: Vec<(&'p str, &'p str)>,
    value: f64,
}

impl PageSample<'_> {
    fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

/// Parses `name{label="value",…} number`. Values stay escaped, because they are written again.
fn sample(line: &str) -> Option<PageSample<'_>> {
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, more) = rest.split_once("=\"")?;
            let mut escaped = false;
            let end = more.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            })?;
            labels.push((label, more.get(..end)?));
            rest = more.get(end + 1..)?;
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        rest = rest.get(1..)?;
    }
    Some(PageSample { name, labels, value: rest.trim().parse().ok()? })
}

/// Families with their series. Each series is a sum.
#[derive(Default)]
struct Families(BTreeMap<String, ForeignFamily>);

struct ForeignFamily {
    kind: &'static str,
    series: BTreeMap<ForeignSeries, f64>,
}

/// What identifies a series. Buckets of one histogram are together, the smallest first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct ForeignSeries {
    /// The suffix of the family's name: `_bucket`.
    suffix: String,
    /// The labels in their written form, without `le`.
    labels: String,
    /// The bound in microseconds or bytes, and its written form.
    bound: Option<(u64, String)>,
}

impl Families {
    fn add(&mut self, kind: &'static str, name: &str, labels: &[(&str, &str)], value: f64) {
        self.sum(kind, name, "", labels, None, value);
    }

    /// Adds one sample of a histogram: a bucket, the sum or the count. Seconds become milliseconds.
    fn milliseconds(&mut self, name: &str, what: &PageSample<'_>, suffix: &str, labels: &[(&str, &str)]) {
        let (mut bound, mut value) = (None, what.value);
        match suffix {
            "_bucket" => {
                bound = Some(match what.label("le").parse::<f64>() {
                    Ok(seconds) if seconds.is_finite() => {
                        let micros = (seconds * 1e6).round();
                        (micros as u64, format!("{}", micros / 1e3))
                    }
                    _ => (u64::MAX, "+Inf".to_owned()),
                });
            }
            "_sum" => value *= 1e3,
            _ => {}
        }
        self.sum("histogram", name, suffix, labels, bound, value);
    }

    /// Adds one sample of a histogram of bytes.
    fn bytes(&mut self, name: &str, what: &PageSample<'_>, suffix: &str, labels: &[(&str, &str)]) {
        let bound = (suffix == "_bucket").then(|| {
            let text = what.label("le");
            (text.parse().unwrap_or(u64::MAX), text.to_owned())
        });
        self.sum("histogram", name, suffix, labels, bound, what.value);
    }

    fn sum(
        &mut self,
        kind: &'static str,
        name: &str,
        suffix: &str,
        labels: &[(&str, &str)],
        bound: Option<(u64, String)>,
        value: f64,
    ) {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let series = ForeignSeries { suffix: suffix.to_owned(), labels: labels.join(","), bound };
        let family =
            self.0.entry(name.to_owned()).or_insert_with(|| ForeignFamily { kind, series: BTreeMap::new() });
        *family.series.entry(series).or_insert(0.0) += value;
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for (name, family) in &self.0 {
            // Writing to a String never fails.
            let _ = writeln!(out, "# TYPE {name} {}", family.kind);
            for (series, value) in &family.series {
                let mut labels = series.labels.clone();
                if let Some((_, bound)) = &series.bound {
                    let comma = if labels.is_empty() { "" } else { "," };
                    let _ = write!(labels, "{comma}le=\"{bound}\"");
                }
                let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
                let _ = writeln!(out, "{name}{}{braced} {value}", series.suffix);
            }
        }
        out
    }
}

/// The suffix of a histogram's sample, if its name begins with this base.
fn histogram<'s>(name: &'s str, base: &str) -> Option<&'s str> {
    name.strip_prefix(base).filter(|suffix| matches!(*suffix, "_bucket" | "_sum" | "_count"))
}

#[cfg(test)]
mod tests;
