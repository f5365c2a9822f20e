//! Headers that filters and parts of a split change, and guards that would read the changed headers.

use crate::plan::PlannedRule;
use crate::tree::Node;

use super::{edits::MergedEdits, words};

/// Adds the header changes of a filter after those of the route.
pub(super) fn mutated(config: &Node, rules: &mut [PlannedRule]) {
    for rule in rules.iter_mut().filter(|rule| rule.keys.get("to").is_some()) {
        for (way, key) in [("request", "request_mutations"), ("response", "response_mutations")] {
            let mut edits = MergedEdits::default();
            for item in config.down(&["mutations"]).list(key) {
                match (item.get("append"), item.str("remove")) {
                    (Some(append), _) => edits.one(append, &mut rule.remarks),
                    (None, Some(name)) => edits.removed(name, &item.at, &mut rule.remarks),
                    (None, None) => {
                        rule.refuse(&item.at, "a change of headers isn't known. Write it as `headers`; then replace the refusal.");
                        return;
                    }
                }
            }
            if config.down(&["mutations"]).get("response_trailer_mutations").is_some() {
                rule.remarks.soft(&config.at, "trailers of answers are not changed.");
            }
            edits.behind(&mut rule.keys, way);
        }
    }
}

/// What `header_to_metadata` removes from requests and answers, as changes of headers.
pub(super) fn removals(config: &Node) -> Node {
    let list = |rules: &str| {
        let removed = config.list(rules).iter().filter(|rule| rule.is("remove"));
        let removed = removed.filter_map(|rule| rule.get("header"));
        config.seq(removed.map(|name| name.map(vec![("remove", name.clone())])).collect())
    };
    let (request, response) = (list("request_rules"), list("response_rules"));
    config.map(vec![(
        "mutations",
        config.map(vec![("request_mutations", request), ("response_mutations", response)]),
    )])
}

/// Whether this filter state decides where requests go: Envoy reads state under its own names.
pub(super) fn decides(config: &Node) -> bool {
    config.list("on_request_headers").iter().any(|value| {
        value.get("factory_key").is_some()
            || value.str("object_key").is_some_and(|key| key.starts_with("envoy."))
    })
}

/// The names of headers that a filter changes in requests before the filters behind it read them.
pub(super) fn before_guards(filters: &[Node]) -> Vec<(crate::tree::FileLine, Vec<String>)> {
    let mut out = Vec::new();
    for (index, filter) in filters.iter().enumerate() {
        let config = match words::extension(filter).as_str() {
            "header_mutation" => words::config(filter).clone(),
            "header_to_metadata" => removals(words::config(filter)),
            _ => continue,
        };
        let names: Vec<String> = config
            .down(&["mutations"])
            .list("request_mutations")
            .iter()
            .filter_map(|item| item.str("remove").or_else(|| item.down(&["append", "header"]).str("key")))
            .map(str::to_ascii_lowercase)
            .collect();
        if names.is_empty() {
            continue;
        }
        let reads = |guard: &Node| match words::extension(guard).as_str() {
            "ext_authz" => true,
            "jwt_authn" => names.iter().any(|name| name == "authorization" || mentions(guard, name)),
            "rbac" => names.iter().any(|name| mentions(guard, name)),
            _ => false,
        };
        if let Some(guard) = filters[index + 1..].iter().find(|guard| reads(guard)) {
            out.push((guard.at.clone(), names));
        }
    }
    out
}

/// Whether some scalar in this node is this name.
fn mentions(node: &Node, name: &str) -> bool {
    match &node.kind {
        crate::tree::NodeKind::Scalar(text) => text.eq_ignore_ascii_case(name),
        crate::tree::NodeKind::List(items) => items.iter().any(|item| mentions(item, name)),
        crate::tree::NodeKind::Map(entries) => entries.iter().any(|(_, value)| mentions(value, name)),
    }
}

/// Headers that the parts of a split change. The changes of an only part are those of the route. Of several parts, a header that one
/// of them sets or removes is removed for all of them.
pub(super) fn of_parts(parts: &[Node], rule: &mut PlannedRule) {
    let parts: Vec<&Node> =
        parts.iter().filter(|part| part.number("weight").unwrap_or(0.0) > 0.0 || parts.len() == 1).collect();
    for part in &parts {
        for way in ["request", "response"] {
            let mut edits = MergedEdits::default();
            edits.level(part, way, &mut rule.remarks);
            let said = [format!("{way}_headers_to_add"), format!("{way}_headers_to_remove")];
            let Some(node) = said.iter().find_map(|key| part.get(key)) else { continue };
            if parts.len() > 1 {
                edits = edits.all_removed();
                rule.remarks.point(
                    &node.at,
                    "headers that one part of a split sets or removes are removed for all parts: changes are those of the whole route.",
                );
            }
            edits.behind(&mut rule.keys, way);
        }
        if let Some(node) = part.get("host_rewrite_literal") {
            match node.text().filter(|_| parts.len() == 1) {
                Some(host) => rule.keys.child("rewrite").set("host", host.to_ascii_lowercase()),
                None => rule.remarks.point(&node.at, "`host_rewrite_literal` of one part of a split is absent: the host is that of the whole route."),
            }
        }
    }
}
