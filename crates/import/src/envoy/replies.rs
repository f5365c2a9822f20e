//! `local_reply_config`: the text and headers of answers that the proxy itself makes.

use crate::plan::PlannedListener;
use crate::remark::Remarks;
use crate::tree::Node;

use super::edits::MergedEdits;

/// Headers that were added to all of these answers become `local_reply`; the rest becomes a remark.
pub(super) fn local(config: &Node, listener: &mut PlannedListener, remarks: &mut Remarks) {
    if config.get("body_format").is_some() {
        remarks.soft(
            &config.at,
            "the proxy's own answers have attache's text and `x-attache-reason`: `body_format` is left out.",
        );
    }
    for (index, mapper) in config.list("mappers").iter().enumerate() {
        if let Some(status) = mapper.get("status_code") {
            remarks.point(
                &status.at,
                "attache doesn't replace the status of its own answers (docs/reasons.md).",
            );
        }
        if mapper.get("body").is_some() || mapper.get("body_format_override").is_some() {
            remarks.soft(
                &mapper.at,
                "the proxy's own answers have attache's text and `x-attache-reason`: the texts of mappers are left out.",
            );
        }
        let Some(added) = mapper.get("headers_to_add") else { continue };
        if index > 0 || !takes_all(mapper.down(&["filter"])) {
            remarks.soft(
                &added.at,
                "headers for only some of the proxy's own answers are left out: `local_reply` adds its headers to all of them.",
            );
            continue;
        }
        let mut edits = MergedEdits::default();
        for item in added.items() {
            let value = item.down(&["header"]).str("value").unwrap_or_default();
            if value.contains('%') {
                remarks.soft(&item.at, "a header of the proxy's own answers is left out, because its value has a variable: see `local_reply`.");
            } else {
                edits.one(item, remarks);
            }
        }
        let keys = edits.keys();
        if !keys.is_empty() {
            listener.keys.child("local_reply").set("headers", keys);
        }
    }
}

/// Whether a filter matches all of these answers: their status is always at least 400.
fn takes_all(filter: &Node) -> bool {
    let comparison = filter.down(&["status_code_filter", "comparison"]);
    let from = comparison.down(&["value"]).number("default_value").unwrap_or(f64::MAX);
    matches!(comparison.str("op"), Some("GE" | "1")) && from <= 400.0
}
