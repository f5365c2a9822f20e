//! Tests that the pages of `docs/` made from the code are up to date. `UPDATE_DOCS=1 cargo test -p attache-telemetry` rewrites them.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use attache_config::model::{LogField, LogFormat};

use crate::{
    Exchange, Reason,
    access_log::{LoggedHeaders, write_line},
    metrics::{BOUNDS, table},
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

/// The most characters in a line of a page.
const WIDTH: usize = 120;

/// Writes a paragraph with one sentence per line, so that a diff shows which sentence changed. A longer line is broken after the last
/// punctuation mark that fits.
fn paragraph(text: &str) -> String {
    let mut page = String::new();
    for mut line in text.replace(". ", ".\n").replace("? ", "?\n").lines() {
        while line.len() > WIDTH {
            let head = &line[..line.floor_char_boundary(WIDTH)];
            // A line is never broken within code.
            let signs = ["; ", ": ", ", "].into_iter().flat_map(|sign| head.match_indices(sign));
            let sign = signs.map(|(at, _)| at).filter(|&at| head[..at].matches('`').count() % 2 == 0).max();
            let Some(end) = sign.map(|at| at + 1).or_else(|| head.rfind(' ')) else { break };
            page.push_str(line[..end].trim_end());
            page.push('\n');
            line = line[end..].trim_start();
        }
        page.push_str(line);
        page.push('\n');
    }
    page
}

/// The text of a table's cell. A pipe is escaped, because it would end the cell.
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
        for d in table::ROWS.iter().map(|row| &row.what).filter(|d| d.name.starts_with(start)) {
            let labels: Vec<_> = d.labels.iter().map(|label| format!("`{label}`")).collect();
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} |",
                d.name,
                d.kind.as_str(),
                labels.join(", "),
                cell(d.help)
            );
        }
    }
    let bounds: Vec<_> = BOUNDS.iter().map(|micros| (*micros as f64 / 1e6).to_string()).collect();
    let bounds =
        format!("Histograms of durations have these upper bounds, in seconds: {}, +Inf.", bounds.join(", "));
    let _ = write!(page, "\n## Buckets\n\n{}", paragraph(&bounds));
    check("metrics.md", &page);
}

#[test]
fn the_page_of_the_access_log_is_current() {
    let exchange = Exchange::new("outbound".into(), "http1", Some("127.0.0.1:40112".parse().unwrap()));
    exchange.method.replace("GET".into());
    exchange.host.replace("orders.internal".into());
    exchange.path.replace("/v1/items".into());
    exchange.request_id.replace("7f3a".into());
    exchange.route.replace(Some("orders-v1".into()));
    exchange.upstream.replace(Some("orders".into()));
    exchange.endpoint.replace(Some("10.0.0.8:8443".into()));
    exchange.attempts.set(3);
    exchange.status.set(503);
    exchange.sent.set(120);
    exchange.fail(Reason::ConnectRefused, "Connection refused (os error 111)");
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_248_000_123);
    let line = |format| {
        let mut line = Vec::new();
        write_line(
            &mut line,
            &format,
            &LoggedHeaders::default(),
            &exchange,
            Duration::from_micros(1500),
            now,
        )
        .unwrap();
        String::from_utf8(line).unwrap()
    };
    let (text, json) = (line(LogFormat::Text), line(LogFormat::Json));
    let mut fields = String::from("\n## Fields\n\n| field | what it says |\n| --- | --- |\n");
    for (word, says) in LogField::WORDS {
        let _ = writeln!(fields, "| `%{{{word}}}` | {} |", cell(says.trim()));
    }
    fields.push_str(
        "| `%{request.header.NAME}` | a header of the request as the client sent it, its first line |\n",
    );
    fields.push_str(
        "| `%{response.header.NAME}` | a header of the response as the client gets it, its first line |\n",
    );
    let page = format!(
        "{GENERATED}{}{text}```\n\n## JSON\n\nOne object a line.\nEvery key is always there; a missing value is `null`.\n\n```json\n{json}```\n{}{fields}",
        include_str!("access-log.md"),
        include_str!("access-log-own.md")
    );
    check("access-log.md", &page);
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
        let (meaning, remedy) = (reason.meaning(), reason.what_to_do());
        let _ = write!(
            page,
            "\n## {reason}\n\n{}\n{}",
            paragraph(meaning),
            paragraph(&format!("**What to do:** {remedy}"))
        );
        let of_clients = reason.what_to_do_for_clients();
        if of_clients != remedy {
            let text = format!("**If it was a client's connection:** {of_clients}");
            let _ = write!(page, "\n{}", paragraph(&text));
        }
    }
    check("reasons.md", &page);
}
