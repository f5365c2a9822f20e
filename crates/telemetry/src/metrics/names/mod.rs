//! attache's series under the names of another proxy, so that its dashboards and alerts go on.
//!
//! Made of the page in Prometheus' text, at a scrape: nothing is counted twice. What attache doesn't count is not there; a code is a class
//! (`2xx`), as attache counts it.

mod envoy;
mod istio;

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Whose names, and what is said of the workload.
#[derive(Clone, Copy, Debug)]
pub enum Names<'a> {
    /// Envoy's clusters, listeners and connection managers.
    Envoy,
    /// Istio's standard metrics.
    Istio {
        /// The workload's name; Istio's own word is `unknown`.
        workload: &'a str,
        /// The workload's namespace.
        namespace: &'a str,
    },
}

/// The further families for a page of attache's own.
pub fn under_names(page: &str, names: Names<'_>) -> String {
    let samples: Vec<Sample<'_>> = page.lines().filter_map(sample).collect();
    let mut out = Families::default();
    match names {
        Names::Envoy => envoy::families(&samples, &mut out),
        Names::Istio { workload, namespace } => istio::families(&samples, workload, namespace, &mut out),
    }
    out.text()
}

/// One line of a page.
struct Sample<'p> {
    name: &'p str,
    labels: Vec<(&'p str, &'p str)>,
    value: f64,
}

impl Sample<'_> {
    fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

/// `name{label="value",…} number`; values stay escaped, as they are written again.
fn sample(line: &str) -> Option<Sample<'_>> {
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
    Some(Sample { name, labels, value: rest.trim().parse().ok()? })
}

/// Families with their series, each of which is a sum.
#[derive(Default)]
struct Families(BTreeMap<String, Family>);

struct Family {
    kind: &'static str,
    series: BTreeMap<Series, f64>,
}

/// What a series is found by. Buckets of one histogram stand together, the smallest first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    /// What stands behind the family's name: `_bucket`.
    suffix: String,
    /// The labels as they are written, without `le`.
    labels: String,
    /// The bound in microseconds, and how it is written.
    bound: Option<(u64, String)>,
}

impl Families {
    fn add(&mut self, kind: &'static str, name: &str, labels: &[(&str, &str)], value: f64) {
        self.sum(kind, name, "", labels, None, value);
    }

    /// One sample of a histogram: a bucket, the sum or the count. Seconds become milliseconds.
    fn milliseconds(&mut self, name: &str, what: &Sample<'_>, suffix: &str, labels: &[(&str, &str)]) {
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
        let series = Series { suffix: suffix.to_owned(), labels: labels.join(","), bound };
        let family =
            self.0.entry(name.to_owned()).or_insert_with(|| Family { kind, series: BTreeMap::new() });
        *family.series.entry(series).or_insert(0.0) += value;
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for (name, family) in &self.0 {
            // A String takes everything.
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

/// The base of a histogram's sample, and what stands behind it.
fn histogram<'s>(name: &'s str, base: &str) -> Option<&'s str> {
    name.strip_prefix(base).filter(|suffix| matches!(*suffix, "_bucket" | "_sum" | "_count"))
}

#[cfg(test)]
mod tests;
