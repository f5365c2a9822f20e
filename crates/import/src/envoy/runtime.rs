//! Values of the runtime, which take the place of the defaults that stand in a config.
//!
//! What static layers say is known: the last one that has a key counts. What a folder or a control plane says isn't.

use crate::tree::{At, Kind, Node};

/// Puts what static layers say in the place of the defaults. Names the keys that could have another value from elsewhere.
pub(super) fn apply(roots: &mut [Node]) -> Vec<(At, String)> {
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
                    Kind::Scalar(_) if fraction => node.map(vec![("numerator", value.clone())]),
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

/// A route that refuses a share which may be any: that it is some share makes it refuse all.
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
