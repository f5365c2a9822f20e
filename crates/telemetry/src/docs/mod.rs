//! The pages of `docs/` that are made from the code. A stale page fails; `UPDATE_DOCS=1 cargo test -p attache-telemetry` rewrites it.

use std::{fmt::Write as _, fs, path::Path};

use crate::{
    Reason,
    metrics::{
        BOUNDS,
        descriptors::{self, Kind},
    },
};

const GENERATED: &str =
    "<!-- Made from the code by `UPDATE_DOCS=1 cargo test -p attache-telemetry`; change it there. -->\n";

fn check(page: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let stands = fs::read_to_string(&path).unwrap_or_default();
    assert!(stands == text, "docs/{page} is stale: run `UPDATE_DOCS=1 cargo test -p attache-telemetry`");
}

/// A table's cell: a pipe would end it.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[test]
fn the_page_of_metrics_is_current() {
    let mut page = format!("{GENERATED}{}", include_str!("metrics.md"));
    for (title, start) in [("attache", "attache_"), ("The process", "process_")] {
        let _ = write!(
            page,
            "\n## {title}\n\n| metric | type | labels | what it says |\n| --- | --- | --- | --- |\n"
        );
        for d in descriptors::ALL.iter().filter(|d| d.name.starts_with(start)) {
            let kind = match d.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let labels: Vec<_> = d.labels.iter().map(|label| format!("`{label}`")).collect();
            let _ = writeln!(page, "| `{}` | {kind} | {} | {} |", d.name, labels.join(", "), cell(d.help));
        }
    }
    let bounds: Vec<_> = BOUNDS.iter().map(|micros| (*micros as f64 / 1e6).to_string()).collect();
    let _ = write!(
        page,
        "\n## Buckets\n\nHistograms of durations have these upper bounds, in seconds: {}, +Inf.\n",
        bounds.join(", ")
    );
    check("metrics.md", &page);
}

#[test]
fn the_page_of_reasons_is_current() {
    let mut page = format!("{GENERATED}{}", include_str!("reasons.md"));
    page.push_str("\n| reason | status | Envoy's flag | grpc-status |\n| --- | --- | --- | --- |\n");
    for reason in Reason::ALL {
        let (status, flag, grpc) = (reason.status().as_u16(), reason.envoy_flag(), reason.grpc_status());
        let _ = writeln!(page, "| [{reason}](#{reason}) | {status} | {flag} | {grpc} |");
    }
    for reason in Reason::ALL {
        let _ = write!(
            page,
            "\n## {reason}\n\n{}\n\n**What to do:** {}\n",
            reason.meaning(),
            reason.what_to_do()
        );
    }
    check("reasons.md", &page);
}
