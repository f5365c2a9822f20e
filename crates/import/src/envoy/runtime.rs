//! Values of Envoy's runtime, which override the defaults in a config.
//!
//! The values of static layers are known: the last layer that has a key decides. The values of a folder or a control
//! plane are unknown.

use crate::tree::{FileLine, Node, NodeKind};

/// Replaces the defaults by the values of static layers. Returns the keys that could have another value from a folder
/// or a control plane.
pub(super) fn apply(roots: &mut [Node]) -> Vec<(FileLine, String)> {
    let mut values: Vec<(String, Node)> = Vec::new();
    let mut elsewhere = false;
    for root in roots.iter() {
        let older = root.down(&["runtime"]);
        elsewhere |= older.get("symlink_root").is_some();
        flat("", older.down(&["base"]), &mut values);
        for layer in root.down(&["layered_runtime"]).list("layers") {
            elsewhere |= layer.get("disk_layer").is_some() || layer.get("rtds_layer").is_some();
            flat("", layer.down(&["static_layer"]), &mut values);
        }
    }
    let mut unsure = Vec::new();
    for root in roots {
        root.walk(&mut |node| {
            if elsewhere {
                refuse_more(node);
            }
            let Some(key) = node.str("runtime_key").map(ToOwned::to_owned) else { return };
            if let Some((_, value)) = values.iter().rev().find(|(known, _)| *known == key) {
                let fraction = node.get("default_value").is_none_or(|old| !old.entries().is_empty());
                let value = match &value.kind {
                    NodeKind::Scalar(_) if fraction => node.map(vec![("numerator", value.clone())]),
                    _ => value.clone(),
                };
                node.down(&["default_value"]).skip();
                node.set("default_value", value);
            }
            if elsewhere {
                unsure.push((node.at.clone(), key));
            }
        });
    }
    unsure
}

/// Makes a route that refuses an unknown share of its requests refuse all of them.
fn refuse_more(node: &mut Node) {
    let refuses = node.down(&["direct_response"]).number("status").is_some_and(|status| status >= 400.0);
    if !refuses || !node.has(&["match", "runtime_fraction", "runtime_key"]) {
        return;
    }
    if let Some(fraction) = node.get_mut("match").and_then(|found| found.get_mut("runtime_fraction")) {
        let some = fraction.map(vec![("numerator", fraction.scalar("50"))]);
        fraction.down(&["default_value"]).skip();
        fraction.set("default_value", some);
    }
}

/// Keys with their dots: `{a: {b: 1}}` is `a.b`.
fn flat(prefix: &str, node: &Node, out: &mut Vec<(String, Node)>) {
    for (name, value) in node.entries() {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if value.entries().is_empty() || value.get("numerator").is_some() {
            out.push((key, value.clone()));
        } else {
            flat(&key, value, out);
        }
    }
}
